"""Bindings of NVIDIA's driver, CUDA and TensorRT, none of which is loaded at import. No torch."""
