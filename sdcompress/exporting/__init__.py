"""Export a checkpoint to artifacts: one ONNX export, cut, counted and compared. Importing it loads no torch."""
