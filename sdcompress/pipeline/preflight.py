"""Refuse early what would otherwise fail after hours of training."""

from __future__ import annotations

from sdcompress import methods
from sdcompress.calibration.calibrate import check_policy, least_samples
from sdcompress.data import Loader
from sdcompress.errors import RecipeError, SetupError, UnknownNameError, UsageError, requires_extra
from sdcompress.exporting.exit_selection import kept_exits
from sdcompress.exporting.preflight import check_export
from sdcompress.machine import check_threads
from sdcompress.progress import Progress
from sdcompress.runtime.open import USUAL
from sdcompress.schema.recipe import Recipe
from sdcompress.tasks import task_class

__all__ = ["check_data", "check_recipe"]


def check_recipe(recipe: Recipe) -> None:
    """Check the recipe, without its data.

    Raises:
        RecipeError: if the method is its own control, one of them cannot train by this recipe, the artifacts are to be
            measured on a backend that they are not made for, or a precision cannot be made or run here.
        UnknownNameError: if there will be no such exit, or there is no such method, exit policy or precision.
        UsageError: if bench.threads is more than this machine runs at once, the exit policy is of no use with so few
            exits or for this task, or the exits to keep are the last alone.
    """
    with requires_extra("train"):
        from sdcompress.training.validate_recipe import check_recipe as check_training  # torch

    _check_backend(recipe.bench.backend)
    check_threads(recipe.bench.threads, "bench.threads")
    _check_precisions(recipe)
    for spec in (recipe.method, *recipe.controls):
        check_training(recipe.model_copy(update={"method": spec}))
    for control in recipe.controls:
        if control.name == recipe.method.name and control != recipe.method:
            raise RecipeError(
                f"The method '{control.name}' is its own control, with other parameters.",
                allowed="controls of other names than the method: results go by the name",
                next_step="remove it from controls, and run it as a recipe of its own, with its own name",
            )
    if not methods.build(recipe.method).needs.exits:
        return
    count = len(recipe.exits.modules) or recipe.exits.count
    known = (*(f"exit{k}" for k in range(1, count + 1)), "final")
    if {"cascade", "all"} & set(recipe.export.layouts):
        kept = kept_exits(known, recipe.export.keep_exits, next_step="correct export.keep_exits in the recipe")
        if "cascade" in recipe.export.layouts:
            check_policy(recipe.calibrate, len(kept), task_class(recipe.task.name))
    if "single" not in recipe.export.layouts:
        return
    for name in recipe.export.truncate_at:
        if name not in known:
            raise UnknownNameError("exits", name, known, "correct export.truncate_at in the recipe")


def _check_precisions(recipe: Recipe) -> None:
    if not recipe.quantize.precisions:
        return
    with requires_extra("quantize"):
        from sdcompress.quantizing.smoke_test import try_precision  # onnx
    try:
        for precision in recipe.quantize.precisions:
            try_precision(precision, opset=recipe.export.opset)
    except UnknownNameError:
        raise
    except (UsageError, SetupError) as error:
        raise RecipeError(
            f"A precision of quantize.precisions would fail after the training: {error.problem}",
            allowed=error.allowed,
            next_step="take it out of quantize.precisions, or change export.opset in the recipe",
        ) from error


def _check_backend(backend: str) -> None:
    if backend != USUAL:
        raise RecipeError(
            f"bench.backend is '{backend}', and 'run' makes artifacts for {USUAL} alone.",
            allowed=USUAL,
            next_step="leave bench.backend out; afterwards 'sdcompress bench --backend' measures them elsewhere",
        )


def check_data(recipe: Recipe, load: Loader, progress: Progress | None = None) -> None:
    """Check that enough images are held out and can be read, that every method trains on them, and all networks export.

    Loads the data set.

    Args:
        recipe: the method and its controls.
        load: loads the data, once for all who need it.
        progress: called with (image files checked, all of them).

    Raises:
        RecipeError: if no image is held out to prove an export, or too few to choose thresholds, or the network cannot
            give what a method needs, or cannot be trained on batches of this size.
        UsageError, ParityError: if a network cannot be exported.
        DataError: if the data is not there or broken.
    """
    with requires_extra("train"):
        from sdcompress.training.preflight import check_with_data  # torch

    dataset = load(recipe.data, seed=recipe.seed, task=recipe.task, modality=recipe.modality)
    for spec in (recipe.method, *recipe.controls):
        check_with_data(recipe.model_copy(update={"method": spec}), dataset)
    validation, test = len(dataset.val), len(dataset.test)
    calibrates = methods.build(recipe.method).needs.exits and "cascade" in recipe.export.layouts
    judges = bool(recipe.quantize.precisions)
    if judges:
        with requires_extra("quantize"):
            from sdcompress.quantizing.calibration_data import calibration_samples  # onnx
        calibration_samples(dataset.train, dataset.task, None)
    least = least_samples(recipe.calibrate, dataset.task) if calibrates else int(judges)
    if validation + test and validation >= least:
        dataset.check(progress)
        for spec in (recipe.method, *recipe.controls):
            check_export(recipe.model_copy(update={"method": spec}), dataset)
        return
    reasons = ["choose the thresholds of the layout 'cascade'"] * calibrates + ["say what a precision costs"] * judges
    ways = ["take 'cascade' out of export.layouts"] * calibrates + ["leave quantize.precisions out"] * judges
    raise RecipeError(
        f"'{recipe.data.name}' holds out {validation} images for validation and {test} for test.",
        allowed="at least 1 of them, which proves the export"
        + (f", and {least} for validation, which {' and '.join(reasons)}" if reasons else "")
        + (" (calibrate.confidence asks for so many)" if calibrates and recipe.calibrate.confidence else ""),
        next_step=f"raise data.validation or data.test_limit{', or ' if ways else ''}{' and '.join(ways)}",
    )
