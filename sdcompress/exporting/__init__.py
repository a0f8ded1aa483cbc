"""From a checkpoint to artifacts: one ONNX export, cut, counted and proved. Importing it loads no torch."""
