"""Everything for NVIDIA GPUs: building and checking engines, and the bindings of NVIDIA's libraries."""
