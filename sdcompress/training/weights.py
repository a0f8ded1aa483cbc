"""Prepare images as the weights that a training starts from were trained, unless the recipe says otherwise."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sdcompress.checkpoint import open_checkpoint
from sdcompress.data.samples import Dataset
from sdcompress.modalities import as_image
from sdcompress.modalities._preprocess import Preprocess
from sdcompress.modalities.image import Image
from sdcompress.models.build import pretrained_config
from sdcompress.schema.recipe import Recipe

__all__ = ["as_begun", "as_the_weights"]

FIELDS = ("mean", "std", "interpolation", "crop")
_FILTERS = ("nearest", "bilinear", "bicubic")


def as_the_weights(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe with the preprocessing of the weights that it loads, in those of ``FIELDS`` that it leaves open.

    Published weights say theirs in ``pretrained_cfg``, as timm's networks have it; of a checkpoint what its own recipe
    set is taken. A crop is taken only where the data set crops, and colours only where there are as many channels.

    Args:
        recipe: what to train.
        dataset: its data, prepared by the recipe as it is.

    Returns:
        The same recipe where nothing changes, or the examples are no images. A warning says what changes, and where
        the recipe's own settings differ.
    """
    if not isinstance(dataset.modality, Image) or (loaded := _loaded(recipe, dataset)) is None:
        return recipe
    own, spec = dataset.modality.preprocess, recipe.data
    theirs = _fitting(loaded.prepared, own)
    differ = {field: value for field, value in theirs.items() if value != _used(own, field, value)}
    taken = {field: value for field, value in differ.items() if field in loaded.given and getattr(spec, field) is None}
    kept = {field: value for field, value in differ.items() if field not in taken}
    if taken:
        warnings.warn(
            f"The weights of {loaded.name} were trained with {_listed(taken)}. That is taken over in the place of the "
            f"data set's {_listed({field: _used(own, field, None) for field in taken})}.",
            stacklevel=2,
        )
    if kept:
        warnings.warn(
            f"The weights of {loaded.name} were trained with {_listed(kept)}. This training uses "
            f"{_listed({field: _used(own, field, None) for field in kept})}; data.{next(iter(kept))} sets it.",
            stacklevel=2,
        )
    return recipe.model_copy(update={"data": spec.model_copy(update=taken)}) if taken else recipe


def as_begun(recipe: Recipe, begun: Recipe) -> Recipe:
    """The recipe of a run that goes on: what was taken from the weights when it began, it leaves open still."""
    if not (begun.model.pretrained or begun.model.start):
        return recipe
    taken = {field: getattr(begun.data, field) for field in FIELDS if getattr(recipe.data, field) is None}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=taken)})


@dataclass(frozen=True)
class _Loaded:
    """Weights that a training starts from.

    Attributes:
        name: of the network or the checkpoint.
        prepared: how their images were prepared.
        given: the fields of it that are not only a data set's own, and so hold for another data set too.
    """

    name: str
    prepared: dict[str, Any]
    given: Collection[str]


def _loaded(recipe: Recipe, dataset: Dataset) -> _Loaded | None:
    if recipe.model.start is not None:
        checkpoint = open_checkpoint(recipe.model.start)
        given = {field: value for field in FIELDS if (value := getattr(checkpoint.recipe.data, field)) is not None}
        own = {
            field: getattr(as_image(checkpoint.modality).preprocess, field)
            for field in ("mean", "std", "interpolation")
        }
        return _Loaded(str(checkpoint.path), {**own, **given}, given)
    if recipe.model.pretrained:
        prepared = _read(
            pretrained_config(recipe.model, outputs=dataset.task.output_shape, inputs=dataset.modality.tensors)
        )
        return _Loaded(f"'{recipe.model.name}'", prepared, prepared)
    return None


def _read(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a ``pretrained_cfg`` of timm names."""
    theirs: dict[str, Any] = {}
    for field in ("mean", "std"):
        values = config.get(field)
        if isinstance(values, list | tuple) and all(isinstance(value, int | float) for value in values):
            theirs[field] = tuple(map(float, values))
    if config.get("interpolation") in _FILTERS:
        theirs["interpolation"] = config["interpolation"]
    share = config.get("crop_pct")
    if config.get("crop_mode") == "squash":
        theirs["crop"] = "none"
    elif isinstance(share, int | float) and 0 < share <= 1:
        theirs["crop"] = float(share)
    return theirs


def _fitting(theirs: dict[str, Any], own: Preprocess) -> dict[str, Any]:
    fits = {
        "mean": len(theirs.get("mean", ())) == own.channels,
        "std": len(theirs.get("std", ())) == own.channels,
        "interpolation": own.resize is not None,
        "crop": own.crop is not None,
    }
    return {field: value for field, value in theirs.items() if fits[field]}


def _used(own: Preprocess, field: str, like: Any) -> Any:
    """What a preprocessing has for a field of the recipe; a share that comes to the same pixels is the same."""
    if field != "crop":
        return getattr(own, field)
    if own.crop is None:
        return "none"
    assert isinstance(own.resize, int), own
    side = min(own.crop)
    same = isinstance(like, float) and round(side / like) == own.resize
    return like if same else round(side / own.resize, 3)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{field} {value}" for field, value in values.items())
