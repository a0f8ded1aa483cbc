"""run: execute all steps of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sdcompress.cli.console import bar, command_line, epoch_line, note, say, write_json
from sdcompress.cli.options import DataDir, Json, Overwrite, PrintConfig, Set, as_settings, complete_recipe
from sdcompress.cli.report import show_report
from sdcompress.cli.train import OutFolder, TrainThreads, print_config_of

__all__ = ["run"]


def run(
    recipe: Annotated[
        str, typer.Argument(help="a YAML file or the name of a shipped recipe", autocompletion=complete_recipe)
    ],
    set_: Set = None,
    data_dir: DataDir = None,
    threads: TrainThreads = None,
    out: OutFolder = None,
    overwrite: Overwrite = False,
    print_config: PrintConfig = False,
    json: Json = False,
) -> None:
    """Run all steps of a recipe: train it and its controls, export, calibrate, evaluate, bench, report.

    Finished steps are skipped unless their inputs have changed.

    Example: sdcompress run digits
    """
    settings = as_settings(set_, data__dir=data_dir, train__threads=threads)
    if print_config:
        print_config_of(recipe, settings, as_json=json)
        return
    from sdcompress.pipeline.run import run as run_pipeline

    report = run_pipeline(
        recipe,
        out,
        settings=settings,
        command=command_line(),
        overwrite=overwrite,
        step_progress=bar,
        on_epoch=epoch_line,
        on_start=note,
    )
    if json:
        write_json(_without_calls(report.model_dump(mode="json")))
        return
    folder = out or Path("runs") / str((report.recipe or {})["name"])
    show_report(report)
    say("", f"report: {folder / 'report' / 'report.html'}")


def _without_calls(report: dict[str, Any]) -> dict[str, Any]:
    """Return the report without its tens of thousands of single timings, which stand in report.json."""
    for bench in report["benches"]:
        for record in bench["records"]:
            record["raw_ms"] = []
    return report
