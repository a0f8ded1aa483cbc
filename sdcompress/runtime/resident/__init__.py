"""Chains whose tensors stay on a device between segments: what is done there, apart from any device."""
