"""Run the graphs of an artifact, one backend a file; see docs/adding/backend.md."""
