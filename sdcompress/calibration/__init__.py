"""When samples may exit: temperatures and thresholds, chosen on the exported file for a target drop."""
