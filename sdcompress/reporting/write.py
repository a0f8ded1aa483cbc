"""Write a report: report.json (the evidence), report.md and report.html (drawn from it)."""

from __future__ import annotations

from pathlib import Path

from sdcompress.errors import OutputExistsError, requires_extra
from sdcompress.reporting.markdown import markdown
from sdcompress.schema.report import Report
from sdcompress.storage import write_text

__all__ = ["FILES", "write"]

FILES = ("report.json", "report.md", "report.html")


def write(report: Report, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write the three files of a report into a folder; each appears whole, the JSON last.

    Args:
        report: what is written.
        folder: made if it is not there; other files in it are left alone.
        overwrite: replace an earlier report.

    Returns:
        The path of the HTML page.

    Raises:
        OutputExistsError: an earlier report is there, or a file in place of the folder.
        MissingExtraError: the extra 'report' is not installed.
        StorageError: the folder cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder} is a file.", allowed="a folder", next_step="choose another folder")
    there = [name for name in FILES if (folder / name).exists()]
    if there and not overwrite:
        raise OutputExistsError(
            f"{folder} already holds {', '.join(there)}.",
            allowed="a folder without a report",
            next_step="add --overwrite, or choose another --out",
        )
    with requires_extra("report"):
        from sdcompress.reporting.html import page
    html = page(report)
    write_text(folder / "report.html", html)
    write_text(folder / "report.md", markdown(report))
    write_text(folder / "report.json", report.model_dump_json(indent=1) + "\n")
    return folder / "report.html"
