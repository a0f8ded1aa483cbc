"""Start from another training's weights: what fits is taken over, and what does not is said."""

from __future__ import annotations

import warnings
from importlib.metadata import version

from torch import nn

from sdcompress.checkpoint import Checkpoint
from sdcompress.errors import RecipeError
from sdcompress.printable import printable
from sdcompress.schema.recipe import Recipe

__all__ = ["check_start", "take_over", "warn_of_other_versions"]

DECIDE_BITS = ("sdcompress", "torch", "numpy")


def check_start(checkpoint: Checkpoint, recipe: Recipe) -> None:
    """Refuse to start from the weights of another network.

    Args:
        checkpoint: to start from.
        recipe: of what is to be trained.

    Raises:
        RecipeError: if the checkpoint is of another backbone.
    """
    theirs, ours = checkpoint.recipe, recipe
    if (theirs.model.name, theirs.model.options) != (ours.model.name, ours.model.options):
        raise RecipeError(
            f"model.start is a checkpoint of '{theirs.model.name}' {theirs.model.options or ''}".rstrip()
            + f", the recipe trains '{ours.model.name}' {ours.model.options or ''}".rstrip()
            + ".",
            allowed="a checkpoint of the same backbone; method, exits, data and schedule may differ",
            next_step=f"--set model.name={theirs.model.name}, or train a checkpoint of '{ours.model.name}' first",
        )


def take_over(checkpoint: Checkpoint, net: nn.Module, recipe: Recipe) -> None:
    """Copy the weights of a checkpoint that have a place of the same name and shape in a network.

    Args:
        checkpoint: of a network with the same backbone; its heads are taken where they stand at the same places.
        net: the network that is to start from it.
        recipe: names the backbone and the exits.

    Raises:
        RecipeError: if the checkpoint is of another backbone.
    """
    check_start(checkpoint, recipe)
    theirs, ours = checkpoint.recipe, recipe
    same_exits = theirs.exits.model_dump(exclude={"gradient"}) == ours.exits.model_dump(exclude={"gradient"})
    there = net.state_dict()
    taken = {
        name: value
        for name, value in checkpoint.tensors().items()
        if name in there and there[name].shape == value.shape and (same_exits or not name.startswith("heads."))
    }
    net.load_state_dict({**there, **taken})
    if anew := sorted({".".join(name.split(".")[:2]) for name in there if name not in taken}):
        warnings.warn(
            f"{len(taken)} of {len(there)} tensors are taken over from {checkpoint.path}; "
            f"trained anew: {', '.join(anew)}",
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
