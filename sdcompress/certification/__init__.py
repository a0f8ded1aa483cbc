"""Tests that certify thresholds, and the same tests computed again; numpy alone."""
