"""Explain an artifact: score and time of its exits on this machine, and whether early exit pays."""
