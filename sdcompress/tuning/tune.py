"""tune: search for better settings of a recipe on its validation split."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sdcompress import recipes
from sdcompress.artifact.output_path import check_outside
from sdcompress.checkpoint import STEPS, read_metrics
from sdcompress.data import DatasetCache
from sdcompress.data.samples import Dataset, Subset
from sdcompress.errors import DeviceError, RecipeError, TrainingDivergedError, UnknownNameError
from sdcompress.machine import default_threads, machine
from sdcompress.progress import Progress, subprogress
from sdcompress.reporting.write import check_ready, write
from sdcompress.schema.recipe import Data, Recipe, Train
from sdcompress.schema.search import MEAN, SearchRange, Tune, Value
from sdcompress.schema.tuning import Trial, Tuning
from sdcompress.storage import digest_of, locked_folder, make_room, write_text
from sdcompress.tuning.search_space import check_networks, searched, value_of, with_values
from sdcompress.tuning.study import JOURNAL, Study, TrialPruned

__all__ = ["BEST", "tune"]

BEST = "best.yaml"
TRIALS = "trials"
_FILES = {f"{JOURNAL}*", TRIALS, BEST, "tuning.json", "tuning.md", "tuning.html"}


def tune(
    recipe: Recipe | Mapping[str, Any] | Path | str | None = None,
    out: Path | str | None = None,
    settings: recipes.Settings = (),
    *,
    search: Mapping[str, str] | None = None,
    overwrite: bool = False,
    command: str = "",
    progress: Progress | None = None,
    on_trial: Callable[[Trial], None] | None = None,
    on_start: Callable[[str], None] | None = None,
) -> Tuning:
    """Search for the values of a recipe's keys with the highest validation metric; a search that was stopped continues.

    Each trial is a training with other values. The first has those of the recipe, so that the best is never worse on
    the validation split. Writes best.yaml, the recipe with the best values, and tuning.json, .md and .html. The test
    split is taken away before the first training.

    Args:
        recipe: a YAML file, a shipped recipe's name, a mapping or a ``Recipe``; None for the defaults.
        out: folder of the search; default ``runs/<name>/tune/<method>``.
        settings: ``{"section.key": value}``, or a list of ``section.key=value``, on top of the recipe.
        search: keys and ranges beside those of ``tune.search``, e.g. {"method.kd_weight": "log:0.01:1"}.
        overwrite: throw away another search in ``out``.
        command: the command that the user typed, for the record.
        progress: called with (steps done, all steps) over all trials.
        on_trial: called with each trial that is over.
        on_start: called with a sentence about threads and device before each training.

    Raises:
        RecipeError: if the recipe or a range is not valid, or the network at an end of a range cannot be trained.
        UnknownNameError: if no exit has the name of ``tune.exit``.
        SetupError, WeightsError, CheckpointError: if weights that the recipe names are not there, or not intact.
        DataError: if the data is missing, or has no validation split.
        OutputExistsError: if ``out`` holds another search, or other things.
        MissingExtraError: if the extra 'tune', 'train' or 'report' is not installed.
        Interrupted: on Ctrl-C; the same call continues.
    """
    read = recipes.read(recipe, settings)
    if search:
        both = {"search": {**read.tune.search, **search}}
        read = read.model_copy(update={"tune": recipes.override(read.tune, both)})
    folder = Path(out) if out is not None else Path("runs") / read.name / "tune" / read.method.name
    check_outside(folder, adds=True)
    check_ready(Tuning, folder, overwrite=True)
    ranges, load = searched(read), _WithoutTest()  # this and the data before an old search is thrown away
    data = load(read.data, seed=read.seed, task=read.task, modality=read.modality)
    data.split("validation")  # it is an error if there is none
    with locked_folder(folder):
        make_room(folder, _FILES, overwrite=overwrite)
        running = _Search(read, ranges, folder, load, data, progress=progress, on_start=on_start)
        running.work(on_trial)
        record = running.record(command)
        write_text(folder / BEST, recipes.dump(Recipe.model_validate(record.recipe)))
        write(record, folder, overwrite=True)
    return record


class _WithoutTest(DatasetCache):
    """Loads data sets and takes their test split away, so that no trial can be chosen by it."""

    def __call__(self, *arguments: Any, **named: Any) -> Dataset:
        """Return what ``DatasetCache`` loads, with an empty test split."""
        dataset = super().__call__(*arguments, **named)
        return replace(dataset, test=Subset(dataset.test, np.empty(0, np.int64)))


def _not_identifying() -> dict[str, Any]:
    """Return the keys of a recipe that may change while a search goes on, as pydantic excludes them."""
    whole = dict.fromkeys(Recipe.not_identifying - {"tune"}, True)
    parts = {"data": Data.not_identifying, "train": Train.not_identifying, "tune": Tune.not_identifying}
    return {**whole, **{key: set(names) for key, names in parts.items()}}


def _identity(recipe: Recipe) -> dict[str, Any]:
    """Return what decides the metric of a trial: keys of the recipe, and of what they name the SHA-256, not the path.

    Raises:
        SetupError, WeightsError, CheckpointError: if weights that the recipe names are not there, or not intact.
    """
    from sdcompress.models.weights.files import weights_sha256
    from sdcompress.training.check_recipe import method_sha256
    from sdcompress.training.trained_teacher import teacher_checkpoint
    from sdcompress.training.warm_start import start_checkpoint

    keys = recipe.model_dump(mode="json", exclude=_not_identifying())
    if recipe.model.weights is not None:
        start = start_checkpoint(recipe)
        keys["model"]["weights"] = start.weights_sha256 if start else weights_sha256(Path(recipe.model.weights))
    if teacher := teacher_checkpoint(recipe):
        keys["method"]["teacher"] = teacher.weights_sha256
    if recipe.method.file is not None:
        keys["method"]["file"] = method_sha256(recipe)
    return keys


class _Search:
    """A search under way; see ``tune`` for the arguments."""

    def __init__(
        self,
        recipe: Recipe,
        ranges: Mapping[str, SearchRange],
        folder: Path,
        load: DatasetCache,
        data: Dataset,
        *,
        progress: Progress | None,
        on_start: Callable[[str], None] | None,
    ) -> None:
        written = {"search": {key: str(range_) for key, range_ in ranges.items()}}
        self.recipe = recipe.model_copy(update={"tune": recipes.override(recipe.tune, written)})
        self._folder, self._progress, self._on_start = folder, progress, on_start
        self._load, self._data = load, data
        self._epochs = recipe.tune.epochs or recipe.train.epochs
        if not (folder / JOURNAL).exists():
            check_networks(recipe, ranges, self._load)
        self._study = Study(
            folder,
            digest_of(_identity(self.recipe)),
            ranges,
            self.recipe.tune,
            seed=recipe.seed,
            first={key: value for key in ranges if (value := value_of(recipe, key)) is not None},
            warm_epochs=self._epochs // 4,
        )

    def work(self, on_trial: Callable[[Trial], None] | None) -> None:
        """Run trials until the budget is spent."""
        checked = False
        while not self._spent():
            number, values = self._study.next()
            trial = self._run(number, values, checked=checked)
            checked = True
            self._study.tell(trial)
            self._remove_losers()
            if on_trial:
                on_trial(trial)

    def record(self, command: str) -> Tuning:
        """Return what was tried and found."""
        trials, data = self._study.trials, self._data
        best = _best(trials)
        return Tuning(
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            command=command,
            data=data.name,
            method=self.recipe.method.name,
            metric_name=data.task.metric,
            binary_loss=data.task.binary_loss,
            samples=len(data.val),
            settings=self.recipe.tune,
            seed=self.recipe.seed,
            trials=trials,
            best=best.number,
            recipe=with_values(self.recipe, best.values).model_dump(mode="json"),
            threads=self.recipe.train.threads or default_threads().threads,
            machine=machine(),
        )

    def _spent(self) -> bool:
        trials, settings = self._study.trials, self.recipe.tune
        over = settings.minutes is not None and sum(trial.seconds for trial in trials) >= 60 * settings.minutes
        return len(trials) >= settings.trials or (over and bool(trials))

    def _run(self, number: int, values: dict[str, Value], *, checked: bool) -> Trial:
        from sdcompress.training.run import train

        recipe, folder = with_values(self.recipe, values, self._epochs), self._trial_folder(number)
        state: Literal["complete", "pruned", "diverged", "refused"] = "complete"
        try:
            train(
                recipe,
                folder,
                on_step=self._steps_of(number),
                on_epoch=self._report,
                on_start=self._on_start,
                checked=checked,
                load=self._load,
            )
        except TrialPruned:
            state = "pruned"
        except TrainingDivergedError:
            state = "diverged"
        except (RecipeError, DeviceError) as error:  # values that do not go together, or need too much memory
            if number == 0:  # the recipe itself
                raise
            state = "refused"
            warnings.warn(f"Trial {number} cannot be trained: {error.problem}", stacklevel=2)
        lines = read_metrics(folder)
        last = self._exits(lines[-1]) if lines and state in ("complete", "pruned") else {}
        return Trial(
            number=number,
            values=values,
            state=state,
            metric=self._metric(last) if last else 0.0,
            exits=last,
            epochs=len(lines),
            seconds=round(sum(line["seconds"] for line in lines), 1),
        )

    def _report(self, line: dict[str, float]) -> None:
        exits = self._exits(line)
        if exits and line["epoch"] < self._epochs:
            self._study.report(self._metric(exits), int(line["epoch"]))

    def _exits(self, line: Mapping[str, float]) -> dict[str, float]:
        prefix = f"val_{self._data.task.metric}/"
        return {key.removeprefix(prefix): value for key, value in line.items() if key.startswith(prefix)}

    def _metric(self, exits: Mapping[str, float]) -> float:
        name = self.recipe.tune.exit
        if name == MEAN:
            return sum(exits.values()) / len(exits)
        if name not in exits:
            raise UnknownNameError("exits", name, [*exits, MEAN], next_step="--set tune.exit=final")
        return exits[name]

    def _steps_of(self, number: int) -> Progress | None:
        """Return the progress of a trial as that of the whole search."""
        if self._progress is None:
            return None
        progress, trials = self._progress, self.recipe.tune.trials

        def report(done: int, steps: int) -> None:
            part = subprogress(progress, number * steps, max(trials, number + 1) * steps)
            assert part is not None
            part(done, steps)

        return report

    def _remove_losers(self) -> None:
        """Remove the checkpoints of all trials but the best; their metrics stay."""
        trials = self._study.trials
        for trial in trials:
            if trial.number != _best(trials).number:
                shutil.rmtree(self._trial_folder(trial.number) / STEPS, ignore_errors=True)

    def _trial_folder(self, number: int) -> Path:
        return self._folder / TRIALS / f"{number:03d}"


def _best(trials: tuple[Trial, ...]) -> Trial:
    """Return the complete trial with the highest metric, of several the earliest."""
    return max(trials, key=lambda trial: (trial.state == "complete", trial.metric, -trial.number))
