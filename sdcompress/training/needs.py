"""Refuse what a method cannot do, or what the network cannot give it, before training starts."""

from __future__ import annotations

from torch import nn

from sdcompress import methods
from sdcompress.errors import RecipeError
from sdcompress.methods._base import Needs
from sdcompress.schema.recipe import Recipe
from sdcompress.training.phases import spans

__all__ = ["check_network", "check_recipe"]


def check_recipe(recipe: Recipe) -> None:
    """Check what the recipe alone tells.

    Raises:
        RecipeError: if images are to be mixed where the method compares or remembers single ones, or there are fewer
            epochs than phases.
    """
    augment, method = recipe.train.augment, methods.build(recipe.method)
    spans(method.phases, recipe.train.epochs)
    if (augment.mixup or augment.cutmix) and not method.needs.mixing:
        raise RecipeError(
            f"The method '{recipe.method.name}' looks at single images, which cannot be mixed.",
            allowed="train.augment.mixup=0 and train.augment.cutmix=0 with this method",
            next_step="--set train.augment.mixup=0 --set train.augment.cutmix=0, or choose another method",
        )


def check_network(needs: Needs, net: nn.Module, recipe: Recipe) -> None:
    """Check that the network can give what the method needs.

    Raises:
        RecipeError: if it has no dropout and the method needs some.
    """
    if needs.dropout and not any(_drops(module) for module in net.modules()):
        raise RecipeError(
            f"The method '{recipe.method.name}' compares two passes with dropout, and '{recipe.model.name}' has none.",
            allowed="a backbone with dropout or stochastic depth",
            next_step="set model.options, for instance {dropout: 0.1} (cifar:wrn_...), {drop_rate: 0.1} or "
            "{drop_path_rate: 0.1} (timm:...)",
        )


def _drops(module: nn.Module) -> bool:
    """Whether a module drops anything: torch's dropout has ``p``, timm's stochastic depth ``drop_prob``."""
    share = getattr(module, "drop_prob", None) if "drop" in type(module).__name__.lower() else None
    if isinstance(module, nn.modules.dropout._DropoutNd):  # noqa: SLF001 - the base of all of torch's
        share = module.p
    return isinstance(share, float) and share > 0
