"""Open an artifact and run it, without torch: engines, the cascade, executors and their backends."""
