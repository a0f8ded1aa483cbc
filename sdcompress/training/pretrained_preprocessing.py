"""Adopt the image preprocessing of the weights that a training starts from, unless the recipe sets it."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdcompress.data.samples import Dataset
from sdcompress.modalities import as_image
from sdcompress.modalities._image_settings import ImageSettings
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image
from sdcompress.models.build import pretrained_config
from sdcompress.models.weights.preparation import preparation_beside
from sdcompress.schema.recipe import Recipe
from sdcompress.training.warm_start import start_checkpoint

__all__ = ["adopt_pretrained_preprocessing", "reopen_adopted_keys"]

FIELDS = ("mean", "std", "interpolation", "crop")
_FILTERS = ("nearest", "bilinear", "bicubic")


def adopt_pretrained_preprocessing(recipe: Recipe, dataset: Dataset) -> Recipe:
    """Return the recipe with the preprocessing of its weights, in those of ``FIELDS`` that it leaves open.

    Published weights say theirs in files beside them, or in the network's ``pretrained_cfg``, as timm's networks have
    it; of a checkpoint what its own recipe set is taken. A crop is taken only where the data set crops, and colours
    only where there are as many channels.

    Args:
        recipe: what to train.
        dataset: its data, prepared by the recipe as it is.

    Returns:
        The same recipe where nothing changes, or the examples are no images. A warning says what changes, and where
        the recipe's own settings differ.
    """
    if not isinstance(dataset.modality, Image) or (loaded := _loaded(recipe, dataset)) is None:
        return recipe
    current, chosen = dataset.modality.preprocess, recipe.modality
    loaded_fields = _fitting(loaded.prepared, current)
    differ = {field: value for field, value in loaded_fields.items() if value != _used(current, field, value)}
    taken = {
        field: value
        for field, value in differ.items()
        if field in loaded.given and chosen.parameters.get(field) is None
    }
    kept = {field: value for field, value in differ.items() if field not in taken}
    if taken:
        warnings.warn(
            f"The weights of {loaded.name} were trained with {_listed(taken)}. That is taken over in the place of the "
            f"data set's {_listed({field: _used(current, field, None) for field in taken})}.",
            stacklevel=2,
        )
    if kept:
        warnings.warn(
            f"The weights of {loaded.name} were trained with {_listed(kept)}. This training uses "
            f"{_listed({field: _used(current, field, None) for field in kept})}; modality.{next(iter(kept))} sets it.",
            stacklevel=2,
        )
    # lists, as a stored recipe has them: a run that goes on compares
    parameters = {field: list(value) if isinstance(value, tuple) else value for field, value in taken.items()}
    return recipe.model_copy(update={"modality": chosen.model_copy(update=parameters)}) if taken else recipe


def reopen_adopted_keys(recipe: Recipe, begun: Recipe) -> Recipe:
    """Return the recipe of a resumed run with the fields cleared that were adopted from the weights."""
    if not (begun.model.pretrained or begun.model.weights):
        return recipe
    own, before = recipe.modality.parameters, begun.modality.parameters
    taken = {field: before[field] for field in FIELDS if own.get(field) is None and field in before}
    return recipe.model_copy(update={"modality": recipe.modality.model_copy(update=taken)})


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
    if (checkpoint := start_checkpoint(recipe)) is not None:
        settings = ImageSettings.model_validate(checkpoint.recipe.modality.parameters)
        given = {field: value for field in FIELDS if (value := getattr(settings, field)) is not None}
        current = {
            field: getattr(as_image(checkpoint.modality).preprocess, field)
            for field in ("mean", "std", "interpolation")
        }
        return _Loaded(str(checkpoint.path), {**current, **given}, given)
    if not (recipe.model.pretrained or recipe.model.weights):
        return None
    if recipe.model.weights and (prepared := _read(preparation_beside(Path(recipe.model.weights)))):
        return _Loaded(recipe.model.weights, prepared, prepared)
    prepared = _read(
        pretrained_config(recipe.model, outputs=dataset.task.output_shape, inputs=dataset.modality.tensors)
    )
    return _Loaded(f"'{recipe.model.name}'", prepared, prepared)


def _read(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that a ``pretrained_cfg`` of timm names."""
    loaded_fields: dict[str, Any] = {}
    for field in ("mean", "std"):
        values = config.get(field)
        if isinstance(values, list | tuple) and all(isinstance(value, int | float) for value in values):
            loaded_fields[field] = tuple(map(float, values))
    if config.get("interpolation") in _FILTERS:
        loaded_fields["interpolation"] = config["interpolation"]
    share = config.get("crop_pct")
    if config.get("crop_mode") == "squash":
        loaded_fields["crop"] = "none"
    elif isinstance(share, int | float) and 0 < share <= 1:
        loaded_fields["crop"] = float(share)
    return loaded_fields


def _fitting(loaded_fields: dict[str, Any], current: Preprocess) -> dict[str, Any]:
    fits = {
        "mean": len(loaded_fields.get("mean", ())) == current.channels,
        "std": len(loaded_fields.get("std", ())) == current.channels,
        "interpolation": current.resize is not None,
        "crop": current.crop is not None,
    }
    return {field: value for field, value in loaded_fields.items() if fits[field]}


def _used(current: Preprocess, field: str, like: Any) -> Any:
    """Return a preprocessing's value of a recipe field; a share that gives the same pixels is equal."""
    if field != "crop":
        return getattr(current, field)
    if current.crop is None:
        return "none"
    assert isinstance(current.resize, int), current
    side = min(current.crop)
    same = isinstance(like, float) and round(side / like) == current.resize
    return like if same else round(side / current.resize, 3)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{field} {value}" for field, value in values.items())
