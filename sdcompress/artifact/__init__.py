"""The artifact folder: reading with checks, and atomic writing. docs/artifact.md specifies it."""
