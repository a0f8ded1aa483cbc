"""Refuse early what would otherwise fail after hours of training."""

from __future__ import annotations

from sdcompress import methods
from sdcompress.calibration.calibrate import check_policy, least_samples
from sdcompress.data import DatasetCache
from sdcompress.errors import RecipeError, SetupError, UnknownNameError, UsageError, requires_extra
from sdcompress.exporting.export_spec import kept_exits
from sdcompress.exporting.preflight import check_export
from sdcompress.machine import check_threads
from sdcompress.policies import check_task
from sdcompress.progress import Progress
from sdcompress.runtime.open import USUAL
from sdcompress.schema.recipe import Recipe

__all__ = ["check_data", "check_recipe"]


def check_recipe(recipe: Recipe) -> None:
    """Check the recipe, without its data.

    Raises:
        RecipeError: if the method is its own control, one of them cannot train by this recipe, bench.backend is not
            that of the artifacts, or a precision cannot be written or run on this machine.
        UnknownNameError: if there is no such exit, method, exit policy or precision.
        UsageError: if bench.threads is more than this machine runs at once, the exit policy does not serve this number
            of exits, or only the last exit is kept.
    """
    with requires_extra("train"):
        from sdcompress.training.check_recipe import check_recipe as check_training  # torch

    _check_backend(recipe.bench.backend)
    check_threads(recipe.bench.threads, "bench.threads")
    _check_precisions(recipe)
    for spec in (recipe.method, *recipe.controls):
        check_training(recipe.model_copy(update={"method": spec}))
    for control in recipe.controls:
        if control.name == recipe.method.name and control != recipe.method:
            raise RecipeError(
                f"The method '{control.name}' is its own control, with other parameters.",
                allowed="controls with other names than the method, because names identify results",
                next_step="remove it from controls, and run it as a recipe of its own, with its own name",
            )
    if not methods.build(recipe.method).needs.exits:
        return
    count = len(recipe.exits.modules) or recipe.exits.count
    known = (*(f"exit{k}" for k in range(1, count + 1)), "final")
    if {"cascade", "all"} & set(recipe.export.layouts):
        kept = kept_exits(known, recipe.export.keep_exits, next_step="correct export.keep_exits in the recipe")
        if "cascade" in recipe.export.layouts:
            check_policy(recipe.calibrate, len(kept), None)
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


def check_data(recipe: Recipe, load: DatasetCache, progress: Progress | None = None) -> None:
    """Check that enough samples are held out and readable, and that all methods can train and all networks export.

    Loads the data set.

    Args:
        recipe: the method and its controls.
        load: loads the data.
        progress: called with (files checked, all files).

    Raises:
        RecipeError: if no sample is held out to check an export, or too few to choose thresholds, or the network does
            not meet the needs of a method, or cannot be trained with this batch size.
        UsageError, ParityError: if a network cannot be exported, or the task lacks the signals of the exit policy.
        DataError: if the data is missing or broken.
    """
    with requires_extra("train"):
        from sdcompress.training.preflight import check_with_data  # torch

    dataset = load(recipe.data, seed=recipe.seed, task=recipe.task, modality=recipe.modality)
    for spec in (recipe.method, *recipe.controls):
        check_with_data(recipe.model_copy(update={"method": spec}), dataset)
    validation, test = len(dataset.val), len(dataset.test)
    calibrates = methods.build(recipe.method).needs.exits and "cascade" in recipe.export.layouts
    if calibrates:
        check_task(recipe.calibrate.policy, dataset.task)
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
    reasons = ["choose the thresholds of the layout 'cascade'"] * calibrates
    reasons += ["measure the cost of a precision"] * judges
    ways = ["take 'cascade' out of export.layouts"] * calibrates + ["leave quantize.precisions out"] * judges
    raise RecipeError(
        f"'{recipe.data.name}' holds out {validation} samples for validation and {test} for test.",
        allowed="at least 1 of them, to check the export"
        + (f", and {least} for validation, which {' and '.join(reasons)}" if reasons else "")
        + (" (because of calibrate.confidence)" if calibrates and recipe.calibrate.confidence else ""),
        next_step=f"raise data.validation or data.test_limit{', or ' if ways else ''}{' and '.join(ways)}",
    )
