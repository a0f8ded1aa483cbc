"""Write a report, an explanation or a search as JSON, Markdown and HTML."""

from __future__ import annotations

import os
from base64 import b64decode
from pathlib import Path
from typing import Any

from sdcompress.artifact.output_path import check_outside
from sdcompress.errors import OutputExistsError, StorageError, requires_extra
from sdcompress.printable import printable
from sdcompress.reporting.page import DECISIONS, Page
from sdcompress.schema.compression import Compression
from sdcompress.schema.explain import Explanation
from sdcompress.schema.report import Report
from sdcompress.schema.tuning import Tuning
from sdcompress.storage import write_bytes, write_text

__all__ = ["check_ready", "files", "write"]

Record = Report | Explanation | Tuning | Compression
_STEMS: dict[type[Record], str] = {Report: "report", Explanation: "explain", Tuning: "tuning", Compression: "compress"}

_BASE64 = {"losses", "pictures"}
_MAX_TEXT = 250  # characters of a name or a folder; commands may be longer


def files(kind: type[Record]) -> tuple[str, str, str]:
    """Return the file names of JSON, Markdown and HTML."""
    stem = _STEMS[kind]
    return f"{stem}.json", f"{stem}.md", f"{stem}.html"


def check_ready(kind: type[Record], folder: str | Path, *, overwrite: bool = False) -> None:
    """Check before a measurement that its record can be written.

    Raises:
        OutputExistsError: if the folder holds a record, is a file, or lies in an artifact or a training run.
        StorageError: if it cannot be written.
        MissingExtraError: if the extra 'report' is not installed.
    """
    folder = Path(folder)
    check_outside(folder, adds=True)
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder} is a file.", allowed="a folder", next_step="choose another folder")
    written = (*files(kind), DECISIONS) if kind is Report else files(kind)
    existing = [name for name in written if (folder / name).exists()]
    if existing and not overwrite:
        raise OutputExistsError(
            f"{folder} already holds {', '.join(existing)}.",
            allowed=f"a folder without {' and '.join(files(kind))}",
            next_step="add --overwrite, or choose another --out",
        )
    _check_writable(folder)
    with requires_extra("report"):
        import jinja2  # noqa: F401
        import matplotlib as mpl  # noqa: F401


def _check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written, or cannot be made in the nearest one that is there."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise StorageError(
            f"{folder} cannot be written: '{there}' is {'read-only' if there.is_dir() else 'a file'}.",
            allowed="a folder that this user may write",
            next_step="choose another --out",
        )


def write(record: Record, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write the three files of a record into a folder, each atomically, the JSON last.

    Args:
        record: a report, an explanation or a search.
        folder: created if missing; other files in it are kept.
        overwrite: replace an earlier record.

    Returns:
        The path of the HTML file.

    Raises:
        OutputExistsError: if the folder holds a record, or is a file.
        MissingExtraError: if the extra 'report' is not installed.
        StorageError: if the folder is not writable.
    """
    folder = Path(folder)
    check_ready(type(record), folder, overwrite=overwrite)
    from sdcompress.reporting.render import html, markdown

    page = _page(_printable(record))
    in_json, in_markdown, in_html = files(type(record))
    drawn = html(page)
    for picture in page.pictures:
        write_bytes(folder / picture.file, b64decode(picture.png))
    write_text(folder / in_html, drawn)
    write_text(folder / in_markdown, markdown(page))
    write_text(folder / in_json, record.model_dump_json(indent=1) + "\n")
    return folder / in_html


def _printable(record: Record) -> Record:
    """Return the record with every text made printable. The JSON keeps the original texts."""
    fields = _all_printable(record.model_dump()) | {"command": printable(record.command)}
    return type(record).model_validate(fields)


def _all_printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value, _MAX_TEXT)
    if isinstance(value, dict):
        # base64 is long, and as safe as it is
        return {_all_printable(key): inner if key in _BASE64 else _all_printable(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return value if value and isinstance(value[0], float) else type(value)(map(_all_printable, value))
    return value


def _page(record: Record) -> Page:
    if isinstance(record, Report):
        from sdcompress.reporting.report.page import report_page

        return report_page(record)
    if isinstance(record, Tuning):
        from sdcompress.reporting.tuning.page import tuning_page

        return tuning_page(record)
    if isinstance(record, Compression):
        from sdcompress.reporting.compression.page import compression_page

        return compression_page(record)
    from sdcompress.reporting.explanation.page import explanation_page

    return explanation_page(record)
