"""Compare exported graphs with the checkpoint, and verify artifacts on the machine that runs them; no torch."""
