"""Refuse what a method cannot do, or what the network cannot give it, before training starts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

import numpy as np
import torch
from torch import nn

from sdcompress import methods
from sdcompress.data.samples import Dataset
from sdcompress.errors import RecipeError
from sdcompress.machine import check_threads
from sdcompress.methods._base import Needs
from sdcompress.modalities import Modality
from sdcompress.models._trace import evaluating
from sdcompress.models.backbones import is_users_own
from sdcompress.models.cost import tap_shares
from sdcompress.models.inputs import example_inputs
from sdcompress.models.multiexit import MultiExit
from sdcompress.schema import graphs
from sdcompress.schema.recipe import Recipe
from sdcompress.storage import sha256_of
from sdcompress.training.batches import check_batch_size
from sdcompress.training.frozen import check_frozen
from sdcompress.training.schedule import Span, spans
from sdcompress.training.sharding import check_sharding
from sdcompress.training.trained_teacher import check_teacher
from sdcompress.training.warm_start import check_start, check_trained_classifier, check_trained_start

__all__ = [
    "check_augmentation",
    "check_edge_cases",
    "check_logits",
    "check_network",
    "check_recipe",
    "method_sha256",
    "warn_of_places",
]


def check_recipe(recipe: Recipe) -> None:
    """Check the recipe and the files that it names.

    Raises:
        RecipeError: if the method cannot serve the task, there are fewer epochs than phases, the batch does not divide,
            train.strategy does not go with something else, model.weights is of another backbone, an untrained
            backbone is frozen from the first step, the method has two teachers, or method.teacher is missing,
            superfluous or of another task.
        SetupError: if there are no weights where model.weights says.
        CheckpointError: if model.weights or method.teacher is a checkpoint that is not intact.
        UsageError: if train.threads is more than this machine runs at once.
    """
    check_sharding(recipe)
    if recipe.train.threads is not None:
        check_threads(recipe.train.threads, "train.threads")
    train, method = recipe.train, methods.build(recipe.method)
    _check_task(recipe, method.needs)
    check_frozen(recipe, method)
    _warn_of_warm_up(train.schedule.warmup_epochs, spans(method.phases, train.epochs))
    check_batch_size(train.batch_size, train.processes, train.accumulate)
    check_trained_start(recipe)
    check_start(recipe)
    check_teacher(recipe, method)


def check_augmentation(recipe: Recipe, needs: Needs, dataset: Dataset) -> None:
    """Refuse augmentation that the modality, the method or the targets do not allow.

    Raises:
        RecipeError: if the modality has no such parameter; if samples are to be mixed where the method compares or
            remembers single ones; if targets have places, as masks do, and ``train.augment`` changes inputs alone, or
            moves the views that the method compares; or if integers such as token ids are to be mixed.
    """
    augment, axes = recipe.train.augment, dataset.train.targets.ndim
    settings = dataset.modality.augmentation_settings(augment)
    chosen = settings.model_dump(exclude_defaults=True)
    mixing = [name for name in ("mixup", *settings.mixing) if chosen.get(name) or (name == "mixup" and augment.mixup)]
    if mixing and not needs.mixing:
        raise RecipeError(
            f"The method '{recipe.method.name}' looks at single samples, which cannot be mixed.",
            allowed=" and ".join(f"train.augment.{name}=0" for name in mixing) + " with this method",
            next_step=" ".join(f"--set train.augment.{name}=0" for name in mixing) + ", or choose another method",
        )
    if axes > 2 and chosen and dataset.task.target_fill is None:
        off = {name: getattr(type(settings)(), name) for name in chosen}
        raise RecipeError(
            f"train.augment.{next(iter(chosen))} changes inputs alone, and their targets, of {axes} axes, have places "
            "too.",
            allowed="train.augment.mixup, which changes both alike",
            next_step=" ".join(f"--set train.augment.{name}={value}".lower() for name, value in off.items()),
        )
    moving = [name for name in settings.moving if chosen.get(name)]
    if moving and dataset.task.target_fill is not None and needs.view is not None and needs.view.augmented:
        unmoved = [f"train.augment.{name}={getattr(type(settings)(), name)}".lower() for name in moving]
        raise RecipeError(
            f"The method '{recipe.method.name}' compares two views of an input place by place, and "
            f"train.augment.{moving[0]} moves each of them elsewhere.",
            allowed=" and ".join(unmoved) + " with this method and targets that have places, such as masks",
            next_step=" ".join(f"--set {setting}" for setting in unmoved) + ", or choose another method",
        )
    integers = [t.name for t in dataset.modality.tensors if not np.issubdtype(np.dtype(t.dtype), np.floating)]
    if integers and augment.mixup:
        raise RecipeError(
            f"train.augment.mixup is {augment.mixup:g}, and the input '{integers[0]}' is of integers, which cannot be "
            "mixed.",
            allowed="mixup where all inputs are floats",
            next_step="--set train.augment.mixup=0",
        )
    if integers and needs.view is not None and needs.view.mixed:
        raise RecipeError(
            f"The method '{recipe.method.name}' mixes inputs, and the input '{integers[0]}' is of integers.",
            allowed="a method that mixes nothing, where not all inputs are floats",
            next_step="choose another method: sdcompress list methods",
        )


def method_sha256(recipe: Recipe) -> str | None:
    """SHA-256 of the user's own method file; None where the method is one of this package or an installed one."""
    return sha256_of(Path(recipe.method.file)) if recipe.method.file else None


def check_network(needs: Needs, net: MultiExit, recipe: Recipe) -> None:
    """Check that the network can give what the method needs.

    Raises:
        RecipeError: if it has no dropout and the method needs some, or a new classifier is frozen from the first step.
    """
    check_trained_classifier(net, recipe)
    if needs.dropout and not any(_drops(module) for module in net.modules()):
        raise RecipeError(
            f"The method '{recipe.method.name}' compares two passes with dropout, and '{recipe.model.name}' has none.",
            allowed="a backbone with dropout or stochastic depth",
            next_step="set model.options, for instance {dropout: 0.1} (cifar:wrn_...), {drop_rate: 0.1} or "
            "{drop_path_rate: 0.1} (timm:...)",
        )


@torch.no_grad()
def check_edge_cases(net: MultiExit, modality: Modality, recipe: Recipe) -> None:
    """Check that the network takes the largest ids and the longest inputs that the modality may give.

    Args:
        net: on the CPU, where an index out of range is an error; left in the mode it was in.
        modality: its edge cases reach its limits.
        recipe: for messages.

    Raises:
        RecipeError: if the network has no entry for an id, or for a position.
    """
    if all(np.issubdtype(np.dtype(tensor.dtype), np.floating) for tensor in modality.tensors):
        return
    mode, kinds_by_reason = net.training, dict[str, list[str]]()
    net.eval()
    for kind, example in modality.edge_cases().items():
        inputs = map(torch.from_numpy, modality.ordered(modality.collate(np.asarray(example)[None])))
        try:
            net(*inputs)
        except (IndexError, RuntimeError) as error:
            reason = shorten(str(error).splitlines()[0], 160, placeholder=" ...")
            kinds_by_reason.setdefault(reason, []).append(kind)
    net.train(mode)
    if kinds_by_reason:
        refused = [f"{', '.join(kinds)} ({reason})" for reason, kinds in kinds_by_reason.items()]
        raise RecipeError(
            f"'{recipe.model.name}' cannot take all inputs of the modality '{modality.record.name}': "
            f"{'; '.join(refused)}.",
            allowed=f"a network for {modality.limits_text}",
            next_step=f"set {' or '.join(f'modality.{name}' for name in modality.setting_names())} as this network was "
            "trained, or choose another network in model.name",
        )


@torch.no_grad()
def check_logits(net: MultiExit, recipe: Recipe, inputs: Sequence[graphs.Tensor]) -> None:
    """Refuse a user's classifier that ends in a softmax: the loss and the exit policies would apply a second one.

    Args:
        net: on the CPU; left as it was.
        recipe: networks of the families here give logits.
        inputs: the tensors of its modality.

    Raises:
        RecipeError: if the outputs of each sample are shares that add up to 1.
    """
    if recipe.task.name != "classification" or not is_users_own(recipe.model.name):
        return
    with evaluating(net):
        final = net(*example_inputs(inputs)).logits[-1]
    if bool((final >= 0).all()) and torch.allclose(final.sum(1), torch.ones(len(final)), atol=1e-4):
        raise RecipeError(
            f"'{recipe.model.name}' returns probabilities: the outputs of each sample are at least 0 and add up to 1.",
            allowed="logits, as its last linear layer gives them; the loss and the exits apply the softmax",
            next_step="remove the softmax at the end of its forward",
        )


def warn_of_places(net: MultiExit, recipe: Recipe, inputs: Sequence[graphs.Tensor]) -> None:
    """Say where exits landed that could not be placed evenly: nearer to another exit's share of the MACs.

    Args:
        net: the network.
        recipe: there is no warning about exits that it names itself.
        inputs: the tensors of its modality.
    """
    if recipe.exits.modules or not net.taps:
        return
    step = 1 / (len(net.taps) + 1)
    shares = tap_shares(net, inputs)
    if all(abs(share - step * k) <= step / 2 for k, share in enumerate(shares, start=1)):
        return
    places = ", ".join(f"{name} at {share:.0%}" for name, share in zip(net.taps, shares, strict=True))
    warnings.warn(
        f"exits.count={recipe.exits.count} places exits evenly by MACs, but '{recipe.model.name}' can be cut only "
        f"where they land like this: {places}. Elsewhere no module ends, or several branches run side by side. An "
        "early exit may be weak, a late one saves little: choose another exits.count, or another backbone.",
        stacklevel=2,
    )


def _check_task(recipe: Recipe, needs: Needs) -> None:
    """Refuse a method that cannot serve the task; the error names the methods that can."""
    task = recipe.task.name
    if needs.tasks is None or task in needs.tasks:
        return
    served = {name: kind.default_needs.tasks for name, kind in methods.method_classes().items()}
    raise RecipeError(
        f"The method '{recipe.method.name}' cannot serve the task '{task}', but {', '.join(needs.tasks) or 'none'}.",
        allowed=", ".join(name for name, tasks in served.items() if tasks is None or task in tasks),
        next_step="choose one of these in method.name and in controls",
    )


def _warn_of_warm_up(epochs: float, phases: Sequence[Span]) -> None:
    """Say where the schedule never begins, because the warm-up takes all of a phase: each has its own."""
    shortest = min(span.epochs for span in phases)
    if epochs < shortest:
        return
    whole = "the training has" if len(phases) == 1 else "the shortest phase of the method has"
    warnings.warn(
        f"train.schedule.warmup_epochs is {epochs:g}, and {whole} {shortest}: the rate only rises"
        + (", and does not get to train.optimizer.lr." if epochs > shortest else ".")
        + f" For a shorter warm-up: --set train.schedule.warmup_epochs={shortest / 10:g}",
        stacklevel=3,
    )


def _drops(module: nn.Module) -> bool:
    """Return whether a module drops anything in training: by its kind, and by the share that it says it drops."""
    kind = type(module).__name__.lower()
    if not ("drop" in kind or "stochasticdepth" in kind or isinstance(module, nn.MultiheadAttention)):
        return False
    shares = (getattr(module, name, None) for name in ("p", "drop_prob", "dropout"))
    return any(isinstance(share, float) and share > 0 for share in shares)
