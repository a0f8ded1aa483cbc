"""What NVIDIA's driver and TensorRT are like on this machine, asked without loading either at import. No torch."""
