"""One way of computing a graph per file; each makes a callable of a segment. See docs/adding/backend.md."""
