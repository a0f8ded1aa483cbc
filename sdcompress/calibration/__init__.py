"""When images may leave: temperatures and thresholds, chosen on the exported file for a wished accuracy."""
