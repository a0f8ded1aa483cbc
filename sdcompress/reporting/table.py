"""A table of text cells, shared by Markdown, HTML and the terminal."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sdcompress.reporting import quantities as q

__all__ = ["Table"]


@dataclass(frozen=True)
class Table:
    """Text cells; the first column is a name, the others are right-aligned.

    Args:
        title: what the table shows.
        columns: headings, with the unit if all cells share it.
        rows: cells, each row as long as ``columns``.
        note: how to read it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def without_empty_columns(self) -> Table:
        """Return the table without columns whose cells are all empty."""
        filled = [i for i in range(len(self.columns)) if any(row[i] != q.NOTHING for row in self.rows)]
        rows = tuple(tuple(row[i] for i in filled) for row in self.rows)
        return replace(self, columns=tuple(self.columns[i] for i in filled), rows=rows)
