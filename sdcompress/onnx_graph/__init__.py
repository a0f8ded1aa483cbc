"""Surgery on ONNX graphs: partition, merge, edit, count, describe. Never imports torch."""
