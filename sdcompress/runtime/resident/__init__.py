"""Chains whose tensors stay in a device's memory between segments."""
