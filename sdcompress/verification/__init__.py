"""Graphs held against the checkpoint, artifacts proved where they run; no torch."""
