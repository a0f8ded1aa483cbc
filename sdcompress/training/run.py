"""Start or resume a training run in its folder; refuse to mix two runs."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sdcompress import methods, recipes
from sdcompress.artifact.output_path import check_outside
from sdcompress.checkpoint import (
    METRICS,
    STEPS,
    Checkpoint,
    newest,
    open_checkpoint,
    read_metrics,
    start_setting,
    step_of,
)
from sdcompress.data import DatasetCache
from sdcompress.data.samples import Dataset
from sdcompress.errors import CheckpointError, DataError, OutputExistsError, RecipeError
from sdcompress.machine import ThreadCount, check_threads, default_threads, most_threads
from sdcompress.models.backbones import is_users_own
from sdcompress.models.threads import torch_threads
from sdcompress.progress import Progress
from sdcompress.schema.recipe import Recipe
from sdcompress.schema.training import Extension
from sdcompress.storage import LOCK, is_temporary, locked_folder, write_text
from sdcompress.training.check_recipe import check_recipe, method_sha256
from sdcompress.training.hardware import launch, memory_failures
from sdcompress.training.metrics_log import write_metrics
from sdcompress.training.pretrained_preprocessing import adopt_pretrained_preprocessing, reopen_adopted_keys
from sdcompress.training.trained_teacher import teacher_checkpoint
from sdcompress.training.trainer import OnEpoch, Trainer, stop_on_signal
from sdcompress.training.warm_start import start_sha256, warn_of_other_versions
from sdcompress.user_code import module_exists, trust_function

__all__ = ["holds_another", "train"]

_STARTED = "the weights that it started from"


def train(
    recipe: Recipe,
    out: Path,
    *,
    extends: Checkpoint | None = None,
    overwrite: bool = False,
    on_step: Progress | None = None,
    on_epoch: OnEpoch | None = None,
    on_start: Callable[[str], None] | None = None,
    on_check: Progress | None = None,
    checked: bool = False,
    load: DatasetCache | None = None,
    before: Callable[[Dataset], None] | None = None,
) -> Checkpoint:
    """Train, or go on with the run in ``out``; a finished run is returned as it is.

    Args:
        recipe: what to train.
        out: folder of the run.
        extends: a checkpoint of a training by the same recipe with fewer epochs, from which a new run starts: with
            its optimiser, averages and memories, at its step.
        overwrite: throw away a run that is there, once it is known that this one can be trained.
        on_step: called with (steps done, all steps).
        on_epoch: called with the metrics of each epoch.
        on_start: called with a sentence about threads and device before the first step.
        on_check: called with (files of examples checked, all of them) before the first step.
        checked: whether the files of examples were checked already.
        load: loads the data; default: from the disk.
        before: called with the data in one process, before a training begins, not where one goes on.

    Returns:
        The last checkpoint.

    Raises:
        OutputExistsError: if ``out`` holds a run of another recipe, or something else.
        RecipeError: if the method cannot do what the recipe asks.
        DataError: if the data is not there, broken, or not that of the run in ``out``.
        DeviceError: if a step needs more memory than there is.
        TrainingDivergedError: if the loss is not finite.
        Interrupted: on Ctrl-C; the same call goes on.
    """
    check_recipe(recipe)
    fabric = launch(recipe.train, phases=len(methods.build(recipe.method).phases))
    check_outside(out)
    with locked_folder(out) if fabric.is_global_zero else nullcontext():
        if fabric.is_global_zero:
            _make_room(out, overwrite=overwrite)
            if overwrite:
                _check_start_apart(recipe, out, extends)
            _remember_modules(recipe)
        fabric.barrier()
        start, extensions = _start(recipe, out, extends, overwrite=overwrite)
        if start is not None and start is not extends and start.state.finished:
            return start
        if start is not None:
            warn_of_other_versions(start)
        chosen = _threads(recipe.train.threads, start)
        recipe, dataset = _data(recipe, start, load or DatasetCache())
        if fabric.is_global_zero and start is None and not checked:
            dataset.check(on_check)
        fabric.barrier()
        with torch_threads(chosen.threads), memory_failures(recipe.train, fabric.device):
            trainer = Trainer(recipe, dataset, fabric, out, start, extensions=extensions)
            if fabric.is_global_zero:
                if before is not None and start is None:
                    before(dataset)
                _begin(recipe, out, start, overwrite=overwrite)  # only now is it known that it can be trained
            if on_start:
                on_start(f"training on {fabric.device} with {chosen.threads} thread(s): {chosen.reason}")
            trainer.learner.cache_features(on_start)
            with stop_on_signal() as request:
                trainer.run(request, on_step=on_step, on_epoch=on_epoch)
        return open_checkpoint(out)


def _start(
    recipe: Recipe, out: Path, extends: Checkpoint | None, *, overwrite: bool
) -> tuple[Checkpoint | None, tuple[Extension, ...]]:
    """Return the checkpoint to go on from, if there is one, and each time that the training was made longer."""
    last = None if overwrite else newest(out)
    start = open_checkpoint(last) if last else extends
    if start is None:
        return None, ()
    if last is None:
        return start, (*start.state.extensions, _extension(recipe, start))
    _check_same(recipe, start, out, extends)
    return start, start.state.extensions


def _threads(asked: int | None, start: Checkpoint | None) -> ThreadCount:
    """Return the requested threads, else those of the run so far (sums depend on them), else the free ones."""
    before = start.state.threads if start is not None else None
    if asked is not None:
        check_threads(asked, "train.threads")
        chosen = ThreadCount(asked, "train.threads says so")
    elif before is not None and before <= most_threads():
        return ThreadCount(before, "as before, so that the run ends with the same bits")
    else:
        chosen = default_threads()
    if before is not None and start is not None and before != chosen.threads:
        warnings.warn(
            f"{start.path} was trained with {before} thread(s), the run goes on with {chosen.threads}: not with the "
            "bits that it would have had.",
            stacklevel=3,
        )
    return chosen


def _remember_modules(recipe: Recipe) -> None:
    """Whoever trains by a recipe has chosen the code that it names; evaluating the checkpoint need not ask again."""
    model = recipe.model
    if ":" in recipe.data.name and module_exists(recipe.data.name):
        trust_function(recipe.data.name, {})
    if is_users_own(model.name) and module_exists(model.name):
        trust_function(model.name, model.options)


def _data(recipe: Recipe, start: Checkpoint | None, load: DatasetCache) -> tuple[Recipe, Dataset]:
    """Return the data of a run and its recipe, with all that decides how examples are prepared and which are left out.

    Raises:
        DataError: if the data is not that of the run, but for the examples that ``data.exclude`` names.
    """
    if start is None:
        dataset = load(recipe.data, seed=recipe.seed, task=recipe.task, modality=recipe.modality)
        as_trained = adopt_pretrained_preprocessing(recipe, dataset)
        if as_trained != recipe:
            dataset = load(recipe.data, seed=recipe.seed, task=recipe.task, modality=as_trained.modality)
        return as_trained, dataset
    recipe = reopen_adopted_keys(recipe, start)
    before = start.recipe.data.exclude
    exclude = tuple(sorted({*before, *recipe.data.exclude}))
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"exclude": exclude})})
    if exclude == tuple(sorted(before)):
        return recipe, load(
            recipe.data,
            seed=recipe.seed,
            task=recipe.task,
            modality=recipe.modality,
            fingerprint=start.data_fingerprint,
        )
    dataset = load(recipe.data, seed=recipe.seed, task=recipe.task, modality=recipe.modality)
    if dataset.layout != start.state.data_layout:
        raise DataError(
            f"The data set '{recipe.data.name}' is not the one that was trained on, even but for the examples that "
            "data.exclude names.",
            allowed="the same names of files in the same split; the run may go on without those in data.exclude",
            next_step="name all examples that are missing by --set 'data.exclude=[...]', and remove those that are new",
        )
    return recipe, dataset


def holds_another(recipe: Recipe, out: Path) -> bool:
    """Return whether ``out`` holds a run that this recipe cannot go on with: of other settings, or not intact."""
    last = newest(out)
    try:
        return last is not None and bool(_differences(open_checkpoint(last), recipe))
    except CheckpointError:
        return True


def _differences(begun: Checkpoint, recipe: Recipe) -> list[str]:
    """Return the keys that decide a training's outcome and differ, as 'key: one -> other'."""
    a, b = _identifying_keys(begun.recipe), _identifying_keys(reopen_adopted_keys(recipe, begun))
    changed = [f"{key}: {a.get(key)!r} -> {b.get(key)!r}" for key in {**a, **b} if a.get(key) != b.get(key)]
    before, teacher = begun.state.teacher, teacher_checkpoint(recipe)
    if before is not None and teacher is not None and teacher.weights_sha256 != before.weights_sha256:
        changed.append(f"the weights of method.teacher: those that {before.source} had -> those in {teacher.path}")
    # a run may go on where its weights lie elsewhere by now; records of early runs lack what they began with
    begun_with, weights = begun.state.loaded, start_sha256(recipe)
    unrecorded = begun_with is None and begun.recipe.model.weights is not None
    if not unrecorded and weights != (begun_with and begun_with.sha256):
        had = "random ones" if begun_with is None else f"those that {begun_with.source} had"
        now = "random ones" if weights is None else f"those in {recipe.model.weights}"
        changed.append(f"{_STARTED}: {had} -> {now}")
    return changed


def _identifying_keys(recipe: Recipe) -> dict[str, Any]:
    """Return the keys that decide the weights, such as ``train.epochs``, with their values in JSON."""
    ignored = set(_not_identifying(Recipe))
    sections = recipe.model_dump(mode="json", exclude=set(recipe.not_identifying))
    return {key: value for key, value in _flat(sections) if key not in ignored}


def _not_identifying(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    yield from (prefix + name for name in getattr(model, "not_identifying", ()))
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _not_identifying(field.annotation, f"{prefix}{name}.")


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _make_room(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds other things than a training run; remove what a killed process left."""
    ours = {STEPS, METRICS, "recipe.yaml", "tensorboard", LOCK}
    there, steps = [*out.iterdir()], [*(out / STEPS).iterdir()] if (out / STEPS).is_dir() else []
    half = [path for path in there if any(is_temporary(path, name) for name in (METRICS, "recipe.yaml"))]
    foreign = [path.name for path in there if path.name not in ours and path not in half]
    half += [path for path in steps if is_temporary(path, path.name[1:].partition(".")[0]) and step_of(path) is None]
    if overwrite:  # a copy that the user made of a checkpoint would go with the run
        foreign += [f"{STEPS}/{path.name}" for path in steps if path not in half and step_of(path) is None]
    if foreign:
        raise OutputExistsError(
            f"{out} holds other things than a training run: {', '.join(sorted(foreign)[:5])}.",
            allowed="a new or empty folder, or the folder of a training run",
            next_step="choose another folder with --out",
        )
    _remove(half)


def _check_start_apart(recipe: Recipe, out: Path, extends: Checkpoint | None) -> None:
    """Refuse to throw away the folder that holds what the training starts from, or its teacher."""
    sources = (None if extends is None else extends.path, recipe.model.weights, recipe.method.teacher)
    for source in (Path(each) for each in sources if each is not None):
        if source.resolve().is_relative_to(out.resolve()):
            raise OutputExistsError(
                f"{out} would be thrown away, and this training needs {source}, which is in it.",
                allowed="a folder for the new run beside that of the old one",
                next_step="choose another --out",
            )


def _begin(recipe: Recipe, out: Path, start: Checkpoint | None, *, overwrite: bool) -> None:
    """Remove the run that is thrown away, and write what a training begins with."""
    if overwrite:
        _remove([path for path in out.iterdir() if path.name != LOCK])
    write_text(out / "recipe.yaml", recipes.dump(recipe))
    if start is not None:
        write_metrics(out, read_metrics(start.path.parents[1]))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _extension(recipe: Recipe, start: Checkpoint) -> Extension:
    """Return the record of a training that is made longer.

    Raises:
        RecipeError: if more than the number of epochs would change, or the method divides its epochs into phases.
    """
    before, after = start.recipe.train.epochs, recipe.train.epochs
    others = [line for line in _differences(start, recipe) if not line.startswith(("train.epochs:", _STARTED))]
    phases = len(methods.build(recipe.method).phases)
    if others or after <= before or phases > 1:
        why = (
            f"it differs in {'; '.join(others)}"
            if others
            else f"'{recipe.method.name}' divides its epochs into {phases} phases"
            if phases > 1
            else f"train.epochs is {after}, and {before} are trained"
        )
        raise RecipeError(
            f"The training {start.path} cannot be made longer: {why}.",
            allowed="the recipe that it was trained by, with more epochs and a method of one phase",
            next_step=f"give --epochs of more than {before} and no other setting, or start a new training from its "
            f"weights: --set {start_setting(start.path)}",
        )
    return Extension(epochs=before, step=start.state.step, weights_sha256=start.weights_sha256)


def _check_same(recipe: Recipe, start: Checkpoint, out: Path, extends: Checkpoint | None) -> None:
    changed = _differences(start, recipe)
    if extends is not None and extends.weights_sha256 not in {one.weights_sha256 for one in start.state.extensions}:
        changed.append(f"it does not continue {extends.path}")
    if start.state.method_sha256 != method_sha256(recipe):
        changed.append(f"the text of method.file: now {recipe.method.file}")
    if changed:
        raise OutputExistsError(
            f"{out} holds a training run of another recipe: {'; '.join(changed)}.",
            allowed="the same data, model, exits, method, train and seed as before",
            next_step="choose another --out, or --overwrite to throw the old run away; a new run of this backbone can "
            f"start from its weights: --set {start_setting(out)}",
        )
