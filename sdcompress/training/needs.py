"""Refuse what a method cannot do, or what the network cannot give it, before training starts."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from sdcompress import methods
from sdcompress.checkpoint import open_checkpoint
from sdcompress.data.samples import Dataset
from sdcompress.errors import RecipeError
from sdcompress.methods._base import Context, Needs
from sdcompress.models.build import build
from sdcompress.schema.recipe import Recipe
from sdcompress.storage import sha256_of
from sdcompress.training.balance import class_weights
from sdcompress.training.phases import spans
from sdcompress.training.sharding import check_sharding
from sdcompress.training.start import check_start

__all__ = ["check_network", "check_recipe", "check_with_data", "method_sha256"]


def check_recipe(recipe: Recipe) -> None:
    """Check what the recipe and the files that it names tell.

    Raises:
        RecipeError: if images are to be mixed where the method compares or remembers single ones, there are fewer
            epochs than phases, the batch does not divide, train.strategy does not go with something else, or
            model.start is of another backbone.
        CheckpointError: if model.start is no checkpoint.
    """
    check_sharding(recipe)
    train, method = recipe.train, methods.build(recipe.method)
    spans(method.phases, train.epochs)
    shares = train.devices * train.accumulate
    if train.batch_size % shares:
        raise RecipeError(
            f"train.batch_size is {train.batch_size}, which does not divide over train.devices {train.devices} x "
            f"train.accumulate {train.accumulate}.",
            allowed=f"a multiple of {shares}",
            next_step=f"--set train.batch_size={-(-train.batch_size // shares) * shares}",
        )
    if (train.augment.mixup or train.augment.cutmix) and not method.needs.mixing:
        raise RecipeError(
            f"The method '{recipe.method.name}' looks at single images, which cannot be mixed.",
            allowed="train.augment.mixup=0 and train.augment.cutmix=0 with this method",
            next_step="--set train.augment.mixup=0 --set train.augment.cutmix=0, or choose another method",
        )
    if recipe.model.start is not None:
        check_start(open_checkpoint(recipe.model.start), recipe)


def check_with_data(recipe: Recipe, dataset: Dataset) -> None:
    """Build what would be trained, and check it.

    Raises:
        RecipeError: if the backbone cannot be built or cannot give what the method needs, or there are other classes
            than class weights.
    """
    class_weights(recipe.train.class_weights, dataset)
    method = methods.build(recipe.method)
    needs, classes = method.needs, len(dataset.classes)
    # no weights: published ones would be downloaded twice
    model = recipe.model.model_copy(update={"pretrained": False, "start": None})
    net = build(model, recipe.exits, classes=classes, image=dataset.image, heads=needs.exits, maps=needs.maps)
    check_network(needs, net, recipe)
    method.state(Context(len(dataset.train), recipe.train.batch_size, classes, net.feature_sizes, net.map_shapes))


def method_sha256(recipe: Recipe) -> str | None:
    """SHA-256 of the user's own method file; None where the method is one of this package or an installed one."""
    return sha256_of(Path(recipe.method.file)) if recipe.method.file else None


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
    """Whether a module drops anything in training: by its kind, and by the share that it says it drops."""
    kind = type(module).__name__.lower()
    if not ("drop" in kind or "stochasticdepth" in kind or isinstance(module, nn.MultiheadAttention)):
        return False
    shares = (getattr(module, name, None) for name in ("p", "drop_prob", "dropout"))
    return any(isinstance(share, float) and share > 0 for share in shares)
