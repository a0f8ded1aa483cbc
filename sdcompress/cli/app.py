"""Define the Typer application, and print errors."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Annotated, NoReturn

import typer

import sdcompress
from sdcompress.cli.bench import bench
from sdcompress.cli.build_engines import build_engines
from sdcompress.cli.calibrate import calibrate
from sdcompress.cli.capacity import capacity
from sdcompress.cli.compress import compress
from sdcompress.cli.console import note
from sdcompress.cli.doctor import doctor
from sdcompress.cli.evaluate import evaluate
from sdcompress.cli.explain import explain
from sdcompress.cli.export import export
from sdcompress.cli.inspect import inspect
from sdcompress.cli.list import list_
from sdcompress.cli.package import package
from sdcompress.cli.predict import predict
from sdcompress.cli.prune import prune
from sdcompress.cli.quantize import quantize
from sdcompress.cli.report import report
from sdcompress.cli.run import run
from sdcompress.cli.serve import serve
from sdcompress.cli.sign import sign
from sdcompress.cli.streams import check_arguments, check_working_directory, flush, prepare_streams, storage_error
from sdcompress.cli.train import train
from sdcompress.cli.tune import tune
from sdcompress.cli.verify import verify
from sdcompress.errors import Interrupted, SdcompressError
from sdcompress.printable import printable

__all__ = ["app", "start"]

VERBS = (
    train,
    tune,
    prune,
    run,
    export,
    build_engines,
    quantize,
    calibrate,
    compress,
    verify,
    sign,
    inspect,
    evaluate,
    predict,
    explain,
    bench,
    report,
    package,
    serve,
    capacity,
    list_,
    doctor,
)

app = typer.Typer(
    name="sdcompress",
    help="Self-distillation for deployable networks: train once, truncate or exit early, export, calibrate, measure.",
    epilog="All steps on built-in data: sdcompress run digits",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(sdcompress.__version__)
        raise typer.Exit


@app.callback()
def _root(
    _version_flag: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Define the options before the verb."""


for verb in VERBS:
    name = verb.__name__.rstrip("_").replace("_", "-")
    # Typer would truncate the first sentence in the list of verbs
    line = (verb.__doc__ or "").partition("\n")[0]
    app.command(name, short_help=line, no_args_is_help=name not in ("train", "list", "doctor"))(verb)


def start() -> None:
    """Run the command line; print errors and exit with their codes."""
    prepare_streams()
    warnings.formatwarning = _warning_line
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime's; who wants to send it sets the variable
    try:
        sys.exit(_run())
    except SdcompressError as error:
        _refuse(error)
    except OSError as error:
        if (refused := storage_error(error)) is None:
            raise
        _refuse(refused)
    except KeyboardInterrupt:
        sys.exit(Interrupted.exit_code)


def _run() -> int:
    check_arguments(sys.argv[1:])
    check_working_directory()
    try:
        app(prog_name="sdcompress", standalone_mode=True)
    except SystemExit as stopped:
        try:
            flush()
        except BrokenPipeError:
            return 0
        for cause in _causes(stopped):
            if isinstance(cause, EOFError):  # for Typer the end of what a person types; here a file that ends too early
                raise cause from None
        # Typer and rich exit with 1 when the reader of the output has gone (| head), which is no bug
        return 0 if stopped.code == 1 else int(stopped.code or 0)
    return 0


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield what was handled when an exception was raised, latest first."""
    cause = error.__context__
    while cause is not None:
        yield cause
        cause = cause.__context__


def _warning_line(message: Warning | str, category: type[Warning], *_: object, **__: object) -> str:
    """Return a warning as one line, without its place in the code."""
    kind = "warning" if issubclass(category, UserWarning) else category.__name__
    return f"{kind}: {printable(str(message))}\n"


def _refuse(error: SdcompressError) -> NoReturn:
    with contextlib.suppress(OSError):  # the message says that stdout is full
        flush()
    note(f"error: {error}")
    sys.exit(error.exit_code)
