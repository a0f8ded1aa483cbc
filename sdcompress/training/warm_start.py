"""Start from another training's weights: copy those that match, warn about the others."""

from __future__ import annotations

import warnings
from importlib.metadata import version

from torch import nn

from sdcompress import methods, registry
from sdcompress.checkpoint import Checkpoint
from sdcompress.errors import RecipeError
from sdcompress.models.backbones import ROOM as BACKBONES
from sdcompress.models.multiexit import MultiExit
from sdcompress.printable import printable
from sdcompress.schema.recipe import Recipe

__all__ = [
    "check_start",
    "check_trained_classifier",
    "check_trained_start",
    "load_matching",
    "warn_of_other_versions",
]

DECIDE_BITS = ("sdcompress", "torch", "numpy")


def check_start(checkpoint: Checkpoint, recipe: Recipe) -> None:
    """Refuse to start from the weights of another network.

    Args:
        checkpoint: to start from.
        recipe: of what is to be trained.

    Raises:
        RecipeError: if the checkpoint is of another backbone.
    """
    source, target = checkpoint.recipe, recipe
    if (source.model.name, source.model.options) != (target.model.name, target.model.options):
        raise RecipeError(
            f"model.start is a checkpoint of '{source.model.name}' {source.model.options or ''}".rstrip()
            + f", the recipe trains '{target.model.name}' {target.model.options or ''}".rstrip()
            + ".",
            allowed="a checkpoint of the same backbone; method, exits, data and schedule may differ",
            next_step=f"--set model.name={source.model.name}, or train a checkpoint of '{target.model.name}' first",
        )


def check_trained_start(recipe: Recipe) -> None:
    """Refuse to freeze a backbone that nothing has trained: its exits would learn random answers.

    A function of the user's own may load weights itself, so there it is a warning.

    Raises:
        RecipeError: if the method freezes the backbone from the first step, and no weights are taken from anywhere.
    """
    model = recipe.model
    if not methods.build(recipe.method).phases[0].freeze_backbone or model.untrained != model:
        return
    if model.name.partition(":")[0] in registry.names(BACKBONES):
        raise _untrained(recipe, f"'{model.name}' starts with random weights")
    warnings.warn(
        f"The method '{recipe.method.name}' freezes the backbone from the first step. If '{model.name}' does not load "
        "trained weights itself, its exits learn random answers.",
        stacklevel=2,
    )


def check_trained_classifier(net: MultiExit, recipe: Recipe) -> None:
    """Refuse published weights whose classifier is replaced, where the method freezes it from the first step.

    Raises:
        RecipeError: if timm's record of the weights names another number of classes than the network has.
    """
    model = recipe.model
    if not methods.build(recipe.method).phases[0].freeze_backbone or model.start is not None or not model.pretrained:
        return
    record = getattr(net.backbone, "pretrained_cfg", None)
    published = record.get("num_classes") if isinstance(record, dict) else None
    classes = getattr(net.backbone.get_submodule(net.output_layer), "out_features", None)
    if published is not None and classes is not None and published != classes:
        raise _untrained(
            recipe, f"the weights of '{model.name}' are for {published} classes, so that its classifier is new"
        )


def _untrained(recipe: Recipe, why: str) -> RecipeError:
    return RecipeError(
        f"The method '{recipe.method.name}' freezes the backbone from the first step, and {why}: the exits would learn "
        "random answers.",
        allowed="a backbone and a classifier that are trained, or a first phase that trains them",
        next_step="--set model.start=RUN, a finished training of the same backbone and classes, or give the backbone "
        "epochs of its own (fastbert: method.backbone_share=0.5)",
    )


def load_matching(checkpoint: Checkpoint, net: nn.Module, recipe: Recipe) -> None:
    """Copy the weights of a checkpoint that have a place of the same name and shape in a network.

    Args:
        checkpoint: of a network with the same backbone; its heads are taken where they stand at the same places.
        net: the network that is to start from it.
        recipe: names the backbone and the exits.

    Raises:
        RecipeError: if the checkpoint is of another backbone, or a part of it is new (a classifier of other classes)
            and the method freezes it from the first step.
    """
    check_start(checkpoint, recipe)
    source, target = checkpoint.recipe, recipe
    same_exits = source.exits.model_dump(exclude={"gradient"}) == target.exits.model_dump(exclude={"gradient"})
    there = net.state_dict()
    taken = {
        name: value
        for name, value in checkpoint.tensors().items()
        if name in there and there[name].shape == value.shape and (same_exits or not name.startswith("heads."))
    }
    new = [name for name in there if name not in taken and name.startswith("backbone.")]
    if new and methods.build(recipe.method).phases[0].freeze_backbone:
        raise _untrained(recipe, f"{', '.join(new)} of {checkpoint.path} does not fit and is new")
    net.load_state_dict({**there, **taken})
    anew = sorted({".".join(name.split(".")[:2]) for name in there if name not in taken})
    warnings.warn(
        f"{len(taken)} of {len(there)} tensors are taken over from {checkpoint.path}; "
        f"trained anew: {', '.join(anew) or 'nothing'}",
        stacklevel=2,
    )


def warn_of_other_versions(checkpoint: Checkpoint) -> None:
    """Say if a run goes on with packages that may give other bits than those that it began with."""
    changed = [
        f"{name} {checkpoint.state.versions[name]} -> {version(name)}"
        for name in DECIDE_BITS
        if name in checkpoint.state.versions and checkpoint.state.versions[name] != version(name)
    ]
    if changed:
        warnings.warn(
            f"{checkpoint.path} was written by other versions: {printable(', '.join(changed))}. The run goes on from "
            "it, but not with the bits that it would have had.",
            stacklevel=2,
        )
