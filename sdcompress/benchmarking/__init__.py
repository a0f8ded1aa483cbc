"""Bench: how long a call takes, closed loop, all artifacts in turn on the same images."""
