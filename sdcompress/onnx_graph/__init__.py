"""ONNX graphs taken apart, joined, counted and described; no torch."""
