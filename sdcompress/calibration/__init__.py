"""When samples may leave: temperatures and thresholds, chosen on the exported file for a target drop."""
