"""A training run in its folder: start, go on, or refuse to mix two runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sdcompress import data, methods, recipes
from sdcompress.checkpoint import METRICS, STEPS, Checkpoint, newest, open_checkpoint
from sdcompress.data.samples import Dataset
from sdcompress.errors import CheckpointError, OutputExistsError
from sdcompress.schema.recipe import Recipe
from sdcompress.storage import write_text
from sdcompress.training.hardware import launch
from sdcompress.training.interrupt import stop_on_signal
from sdcompress.training.needs import check_recipe, method_sha256
from sdcompress.training.start import warn_of_other_versions
from sdcompress.training.trainer import OnEpoch, OnStep, Trainer

__all__ = ["holds_another", "train"]

SECTIONS = ("seed", "data", "model", "exits", "method", "train")
# decide nothing: what the data is stands in its fingerprint, and the steps are the same however they are watched
FREE = {
    *("data.dir", "data.download", "model.start", "method.file"),
    *(
        "train.devices",
        "train.strategy",
        "train.accelerator",
        "train.resident",
        "train.workers",
        "train.evaluate_every",
        "train.checkpoint_every",
        "train.checkpoint_steps",
    ),
}


def train(
    recipe: Recipe,
    out: Path,
    *,
    overwrite: bool = False,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    before: Callable[[Dataset], None] | None = None,
) -> Checkpoint:
    """Train, or go on with the run in ``out``; a finished run is returned as it is.

    Args:
        recipe: what to train.
        out: folder of the run.
        overwrite: throw away a run that is there.
        on_step: called with (steps done, all steps).
        on_epoch: called with the metrics of each epoch.
        before: called with the data in one process, before a training begins, not where one goes on.

    Returns:
        The last checkpoint.

    Raises:
        OutputExistsError: if ``out`` holds a run of another recipe, or something else.
        RecipeError: if the method cannot do what the recipe asks.
        DataError: if the data is not there, broken, or not that of the run in ``out``.
        TrainingDivergedError: if the loss is not finite.
        Interrupted: on Ctrl-C; the same call goes on.
    """
    check_recipe(recipe)
    fabric = launch(recipe.train, phases=len(methods.build(recipe.method).phases))
    if fabric.is_global_zero:
        _make_room(out, overwrite=overwrite)
    fabric.barrier()
    last = newest(out)
    start = open_checkpoint(last) if last else None
    if start is not None:
        _check_same(recipe, start, out)
        if start.state.finished:
            return start
        warn_of_other_versions(start)
    same = start.data_fingerprint if start is not None else None
    dataset = data.load(recipe.data, seed=recipe.seed, fingerprint=same)
    trainer = Trainer(recipe, dataset, fabric, out, start)
    if fabric.is_global_zero:
        if before is not None and start is None:
            before(dataset)
        write_text(out / "recipe.yaml", recipes.dump(recipe))  # only now is it known that it can be trained
    with stop_on_signal() as request:
        trainer.run(request, on_step=on_step, on_epoch=on_epoch)
    return open_checkpoint(out)


def holds_another(recipe: Recipe, out: Path) -> bool:
    """Whether ``out`` holds a run that this recipe cannot go on with: of other settings, or not intact."""
    last = newest(out)
    try:
        return last is not None and bool(_differences(open_checkpoint(last).recipe, recipe))
    except CheckpointError:
        return True


def _differences(one: Recipe, other: Recipe) -> list[str]:
    """The keys that decide a training's outcome and differ, as 'key: one -> other'."""
    a, b = (
        _flat(one.model_dump(mode="json", include=set(SECTIONS))),
        _flat(other.model_dump(mode="json", include=set(SECTIONS))),
    )
    keys = [key for key in {**a, **b} if a.get(key) != b.get(key) and key not in FREE]
    return [f"{key}: {a.get(key)!r} -> {b.get(key)!r}" for key in keys]


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return flat


def _make_room(out: Path, *, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise OutputExistsError(f"{out} is a file.", allowed="a folder", next_step="choose another folder with --out")
    if not out.exists() or not any(out.iterdir()):
        return
    ours = {STEPS, METRICS, "recipe.yaml", "tensorboard"}
    # of a process that was killed while it wrote a text file or a checkpoint
    leftovers = [*out.glob(f".{METRICS}.*.tmp"), *out.glob(".recipe.yaml.*.tmp"), *out.glob(f"{STEPS}/.*.tmp")]
    foreign = sorted(path.name for path in out.iterdir() if path.name not in ours and path not in leftovers)
    if foreign:
        raise OutputExistsError(
            f"{out} holds other things than a training run: {', '.join(foreign[:5])}.",
            allowed="a new or empty folder, or the folder of a training run",
            next_step="choose another folder with --out",
        )
    if overwrite:
        shutil.rmtree(out)
        return
    for leftover in leftovers:
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def _check_same(recipe: Recipe, start: Checkpoint, out: Path) -> None:
    changed = _differences(start.recipe, recipe)
    if start.state.method_sha256 != method_sha256(recipe):
        changed.append(f"the text of method.file: now {recipe.method.file}")
    if changed:
        raise OutputExistsError(
            f"{out} holds a training run of another recipe: {'; '.join(changed)}.",
            allowed="the same data, model, exits, method, train and seed as before",
            next_step="choose another --out, or --overwrite to throw the old run away; a new run of this backbone can "
            f"start from its weights: --set model.start={out}",
        )
