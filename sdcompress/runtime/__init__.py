"""Open an artifact and run it, without torch: engines, the cascade, its policies and the backends under it."""
