"""From an artifact to TensorRT engines of this machine. No torch, no onnx: TensorRT parses the graphs itself."""
