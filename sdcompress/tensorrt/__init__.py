"""Everything NVIDIA: engines built and checked, and the libraries that are asked for it."""
