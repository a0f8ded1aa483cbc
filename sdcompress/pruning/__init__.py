"""Structured pruning: remove channels, attention heads and hidden units of a trained network with exits."""
