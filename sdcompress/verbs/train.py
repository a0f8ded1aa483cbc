"""train: train the network of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from sdcompress import recipes
from sdcompress.checkpoint import Checkpoint, no_training, open_checkpoint
from sdcompress.data import DatasetCache
from sdcompress.errors import UsageError, requires_extra
from sdcompress.exporting.preflight import warn_of_export
from sdcompress.progress import Progress
from sdcompress.verbs._types import Folder, RecipeLike

__all__ = ["train"]


def train(
    recipe: RecipeLike = None,
    out: Folder | None = None,
    settings: recipes.Settings = (),
    *,
    extends: Folder | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    on_start: Callable[[str], None] | None = None,
    on_check: Progress | None = None,
    checked: bool = False,
    load: DatasetCache | None = None,
) -> Checkpoint:
    """Train a network with exits by self-distillation; a training that was stopped continues.

    Args:
        recipe: a YAML file, a shipped recipe's name, a mapping or a ``Recipe``; None for the defaults.
        out: folder of the training run; default ``runs/<name>/train/<method>``, or ``<extends>-<epochs>-epochs``.
        settings: ``{"section.key": value}``, or a list of ``section.key=value``, on top of the recipe.
        extends: the folder of a training run, or a checkpoint, to extend: by the recipe of that run (``recipe`` is
            None) with more epochs in ``settings``; the checkpoint records it.
        overwrite: replace a run of another recipe.
        progress: called with (steps done, all steps).
        on_epoch: called with the metrics of each epoch.
        on_start: called with a sentence about threads and device before the first step.
        on_check: called with (files checked, all files) before the first step.
        checked: files were checked and an export was tried before.
        load: loads the data; default: from the disk.

    Raises:
        RecipeError: if the recipe is not valid.
        DataError: if the data is missing, or a file is broken.
        OutputExistsError: if ``out`` holds a run of another recipe.
        TrainingDivergedError: if the loss is not finite; the last good checkpoint is kept.
        Interrupted: on Ctrl-C; the same call continues the training.
    """
    if extends is not None and recipe is not None:
        raise UsageError(
            "A recipe was given, and a training run to extend.",
            allowed="one of the two: a run is extended by its own recipe",
            next_step="leave the recipe out",
        )
    extended = open_checkpoint(extends) if extends is not None else None
    if extended is not None and extended.state.training is None:
        raise no_training(extended)
    # before torch is imported, which takes seconds
    read = recipes.read(extended.recipe if extended else recipe, settings)
    with requires_extra("train"):
        from sdcompress.training.run import train as run_train

    folder = Path("runs") / read.name / "train" / read.method.name
    if extended is not None:
        run = extended.path.parents[1]
        folder = run.with_name(f"{run.name}-{read.train.epochs}-epochs")
    return run_train(
        read,
        Path(out) if out is not None else folder,
        extends=extended,
        overwrite=overwrite,
        on_step=progress,
        on_epoch=on_epoch,
        on_start=on_start,
        on_check=on_check,
        checked=checked,
        load=load,
        before=None if checked else partial(warn_of_export, read),
    )
