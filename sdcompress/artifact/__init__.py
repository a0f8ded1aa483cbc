"""The artifact folder: read with every check, written in one step. Specified in docs/artifact.md."""
