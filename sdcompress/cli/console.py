"""Write output: data to stdout, messages and progress to stderr.

Whatever a terminal sees passes through here, so that text from a file is escaped and cut in one place. Rich is imported
where something is drawn, so that help is shown without it.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import typer

from sdcompress.errors import Interrupted
from sdcompress.printable import json_safe, printable

__all__ = ["bar", "command_line", "epoch_line", "ms", "note", "percent", "say", "table", "write_json"]

_CELL = 200  # characters
_LOG_INTERVAL_S = 60.0  # between lines of progress where stderr is no terminal
_DRAWN_A_SECOND = 1.0  # a thread draws, which takes a millisecond from what some verbs measure


def command_line() -> str:
    """Return the command line, for the records."""
    return shlex.join([Path(sys.argv[0]).name.replace("__main__.py", "sdcompress"), *sys.argv[1:]])


def write_json(data: Any) -> None:
    """Write one JSON value to stdout."""
    utf8 = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    typer.echo(json_safe(json.dumps(data, indent=2, ensure_ascii=not utf8)))


def say(*lines: str) -> None:
    """Write lines for a person to stdout; a line break within one of them is text, and is escaped."""
    for line in lines:
        typer.echo(printable(line))


def note(text: str) -> None:
    """Write a line for a person to stderr, above the bar."""
    sys.stderr.write(f"{text}\n")  # rich moves the bar out of the way


@contextmanager
def bar(what: str, *, timed: bool = False) -> Iterator[Callable[..., None]]:
    """Show a progress bar with the remaining time; where stderr is no terminal, a line a minute and one at the end.

    Yields a function of (done, all) and ``doing``, what is done where it is something else than ``what``.

    Args:
        what: is done.
        timed: the work measures times: the bar is drawn when it reports, and never in between.

    Raises:
        Interrupted: on Ctrl-C, where the work itself does not say more.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    what = printable(what, _CELL)
    with Progress(
        *columns,
        console=console,
        auto_refresh=not timed,
        refresh_per_second=_DRAWN_A_SECOND,
        transient=console.is_terminal,
    ) as progress:
        task, written = progress.add_task(what, total=None, count=""), monotonic()

        def update(done: int, total: int, doing: str = what) -> None:
            nonlocal written
            count = f"{done}/{total}"
            progress.update(task, completed=done, total=total, description=doing, count=count, refresh=timed)
            if not console.is_terminal and monotonic() - written >= _LOG_INTERVAL_S:
                written = monotonic()
                note(f"{doing} {done}/{total}")

        try:
            yield update
            if not progress.tasks[task].total:  # the work had nothing to report
                progress.update(task, completed=1, total=1)
        except KeyboardInterrupt as stop:
            raise Interrupted(
                f"Stopped during '{what}'; what was finished before is kept.", next_step="run the same command again"
            ) from stop
    if console.is_terminal:
        note(f"done: {what}")


def epoch_line(metrics: dict[str, float]) -> None:
    """Write the metrics of an epoch, above the bar."""
    metrics_by_exit = [f"{k.partition('/')[2]} {v:.2%}" for k, v in metrics.items() if k.startswith("val_")]
    text = f"epoch {metrics['epoch']:3.0f}  loss {metrics['loss']:.4f}"
    note(printable(text + ("  validation: " + ", ".join(metrics_by_exit) if metrics_by_exit else "")))


def table(columns: list[str], rows: list[list[str]], title: str = "") -> None:
    """Write a table to stdout; the first column is left-aligned, the others are numbers."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=printable(title) or None, title_justify="left")
    for index, column in enumerate(columns):
        drawn.add_column(printable(column, _CELL), justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*(printable(cell, _CELL) for cell in row))
    console = Console(soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 160, markup=False)
    console.print(drawn)


def percent(share: float | None) -> str:
    """Return a share as a cell of a table."""
    return "-" if share is None else f"{share:.2%}"


def ms(value: float | None) -> str:
    """Return milliseconds as a cell of a table."""
    return "-" if value is None else f"{value:.3f}"
