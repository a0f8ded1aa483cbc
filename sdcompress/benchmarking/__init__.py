"""Benchmark artifacts in a closed loop, in interleaved rounds on the same examples."""
