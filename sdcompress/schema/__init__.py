"""The frozen types that cross a border: recipe, manifest, report. No torch, no numpy, no behaviour beyond checks."""
