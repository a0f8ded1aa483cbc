"""Build TensorRT engines of an artifact on this machine. No torch, no onnx: TensorRT parses the graphs."""
