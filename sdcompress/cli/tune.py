"""tune: search for better settings of a recipe."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

import sdcompress
from sdcompress.cli.console import bar, command_line, note, say, table, write_json
from sdcompress.cli.options import DataDir, Json, Overwrite, PrintConfig, RecipeFile, Set, as_settings
from sdcompress.cli.train import OutFolder, TrainThreads, print_config_of
from sdcompress.errors import UsageError
from sdcompress.printable import printable

if TYPE_CHECKING:
    from sdcompress.schema.tuning import Trial, Tuning

__all__ = ["tune"]


def tune(
    config: RecipeFile = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="KEY=RANGE",
            help="a key and its range, e.g. method.kd_weight=log:0.01:1, train.optimizer.momentum=uniform:0.8:0.99, "
            "exits.count=int:1:3, exits.head=choice:linear,sepconv; repeatable [tune.search]",
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option("--trials", help="[tune.trials]")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="of each trial [tune.epochs]")] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", help="of training in all [tune.minutes]")] = None,
    set_: Set = None,
    data_dir: DataDir = None,
    threads: TrainThreads = None,
    out: OutFolder = None,
    overwrite: Overwrite = False,
    print_config: PrintConfig = False,
    json: Json = False,
) -> None:
    """Search for better settings of a recipe on its validation split. A search that was stopped continues.

    Without --search it tries the learning rate and the numbers of the method.

    Example: sdcompress tune -c digits --trials 10 --out tuned
    """
    settings = as_settings(
        set_,
        tune__trials=trials,
        tune__epochs=epochs,
        tune__minutes=minutes,
        data__dir=data_dir,
        train__threads=threads,
    )
    if print_config:
        print_config_of(config, settings, as_json=json)
        return
    with bar("tune") as progress:
        result = sdcompress.tune(
            config,
            out,
            settings=settings,
            search=_ranges(search or []),
            overwrite=overwrite,
            command=command_line(),
            progress=progress,
            on_trial=_trial_line,
            on_start=_once(),
        )
    folder = out or f"runs/{result.recipe['name']}/tune/{result.method}"
    if json:
        write_json(result.model_dump(mode="json"))
        return
    _show(result)
    best = shlex.quote(f"{folder}/best.yaml")
    say("", f"page: {folder}/tuning.html", f"next: sdcompress train -c {best} --out runs/tuned")


def _ranges(given: list[str]) -> dict[str, str]:
    ranges = {}
    for text in given:
        key, equals, range_ = text.partition("=")
        if not equals:
            raise UsageError(
                f"--search is '{text}'.",
                allowed="KEY=RANGE",
                next_step="write for instance --search train.optimizer.lr=log:0.01:0.3",
            )
        ranges[key] = range_
    return ranges


def _once() -> Any:
    """Return a note that is written for the first trial only."""
    seen: set[str] = set()

    def write(text: str) -> None:
        if text not in seen:
            note(text)
        seen.add(text)

    return write


def _trial_line(trial: Trial) -> None:
    from sdcompress.reporting.tuning.findings import shown

    values = ", ".join(f"{key}={shown(value)}" for key, value in trial.values.items())
    state = "" if trial.state == "complete" else f"  {trial.state}"
    note(printable(f"trial {trial.number:3d}  {trial.metric:.2%}  {values}{state}"))


def _show(result: Tuning) -> None:
    """Print what the page says."""
    from sdcompress.reporting.tuning.findings import best_trials, cautions, findings, headline

    drawn = best_trials(result)
    table(list(drawn.columns), [list(row) for row in drawn.rows], drawn.title)
    for sentence in (headline(result), *findings(result)):
        say(sentence)
    for sentence in cautions(result):
        say(f"caution: {sentence}")
