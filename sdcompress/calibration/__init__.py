"""Calibration: choose temperatures and exit thresholds on the exported graphs for a target drop."""
