"""The trained network that ``method.teacher`` names: refuse one that cannot teach, and open one that can."""

from __future__ import annotations

import warnings

from sdcompress import methods
from sdcompress.checkpoint import Checkpoint, open_checkpoint
from sdcompress.data.samples import Dataset
from sdcompress.errors import RecipeError
from sdcompress.methods._base import Method
from sdcompress.models.multiexit import MultiExit
from sdcompress.schema.recipe import Recipe
from sdcompress.schema.training import Teacher

__all__ = ["check_teacher", "load_teacher", "teacher_checkpoint"]


def teacher_checkpoint(recipe: Recipe) -> Checkpoint | None:
    """Return the checkpoint that ``method.teacher`` names; None if it names none.

    Raises:
        CheckpointError: if it is not there, or not intact.
    """
    return None if recipe.method.teacher is None else open_checkpoint(recipe.method.teacher)


def check_teacher(recipe: Recipe, method: Method) -> None:
    """Refuse a method with two teachers, and a recipe that lacks one, names one without need or of another task.

    Raises:
        RecipeError: says which.
        CheckpointError: if it is not there, or not intact.
    """
    name, needs = recipe.method.name, method.needs
    restarts = any(phase.restart for phase in method.phases)
    if needs.teacher and (needs.average or restarts):
        raise RecipeError(
            f"The method '{name}' learns from a trained network, and also from "
            f"{'the network before a restart' if restarts else 'the average of its own weights'}.",
            allowed="one teacher: Needs(teacher=True), Needs(average=...) or Phase(restart=True)",
            next_step="correct 'needs' and 'phases' of the method",
        )
    checkpoint = teacher_checkpoint(recipe)
    if checkpoint is None and needs.teacher:
        raise RecipeError(
            f"The method '{name}' learns from a trained network, and method.teacher names none.",
            allowed="a finished training on the same data; of a pruned network the one that was pruned",
            next_step="--set method.teacher=RUN",
        )
    if checkpoint is None:
        return
    if not needs.teacher:
        taught = ", ".join(name for name, kind in methods.method_classes().items() if kind.default_needs.teacher)
        raise RecipeError(
            f"method.teacher is '{recipe.method.teacher}', and the method '{name}' has another teacher or none.",
            allowed=f"methods that learn from a trained network: {taught}",
            next_step="remove method.teacher, or choose such a method",
        )
    if checkpoint.state.task.name != recipe.task.name:
        raise _other(recipe, f"is for the task '{checkpoint.state.task.name}', and the recipe for '{recipe.task.name}'")


def load_teacher(recipe: Recipe, dataset: Dataset) -> tuple[MultiExit, Teacher] | tuple[None, None]:
    """Return the network that teaches, frozen and in evaluation mode on the CPU, and its record.

    Args:
        recipe: names it in ``method.teacher``, or names none.
        dataset: of the training.

    Raises:
        RecipeError: if it was trained on other data or for other outputs.
        CheckpointError: if it is not there, or not intact.
        UsageError: if it names a module that is not trusted, see ``sdcompress.user_code``.
    """
    checkpoint = teacher_checkpoint(recipe)
    if checkpoint is None:
        return None, None
    if checkpoint.state.outputs != dataset.outputs:
        raise _other(recipe, f"has the outputs {_few(checkpoint.state.outputs)}, the data {_few(dataset.outputs)}")
    if checkpoint.data_fingerprint != dataset.fingerprint:
        raise _other(
            recipe,
            "was trained on other data, another split or inputs prepared otherwise: it may have learnt the validation "
            "samples",
        )
    if checkpoint.state.task != dataset.task.record:
        raise _other(recipe, f"has other settings of the task '{recipe.task.name}'")
    if not checkpoint.state.finished:
        warnings.warn(
            f"The training of method.teacher '{recipe.method.teacher}' is not finished: it teaches as it is.",
            stacklevel=2,
        )
    net = checkpoint.network().requires_grad_(requires_grad=False)
    return net, Teacher(source=str(recipe.method.teacher), weights_sha256=checkpoint.weights_sha256)


def _other(recipe: Recipe, how: str) -> RecipeError:
    return RecipeError(
        f"The network of method.teacher '{recipe.method.teacher}' cannot teach: it {how}.",
        allowed="a training with the same data, seed, modality and task; backbone, exits and method may differ",
        next_step="name another training, or train a teacher by this recipe's data, seed, modality and task",
    )


def _few(names: tuple[str, ...]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
