"""Adopt the preprocessing of the weights that a training starts from, unless the recipe sets it."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdcompress.checkpoint import Checkpoint
from sdcompress.data.samples import Dataset
from sdcompress.models.build import pretrained_config
from sdcompress.models.weights.preparation import preparation_beside
from sdcompress.schema.recipe import Recipe
from sdcompress.training.warm_start import start_checkpoint

__all__ = ["adopt_pretrained_preprocessing", "reopen_adopted_keys"]


def adopt_pretrained_preprocessing(recipe: Recipe, dataset: Dataset) -> Recipe:
    """Return the recipe with the preprocessing of its weights, in those settings that it leaves open.

    Published weights say theirs in files beside them, or in the network's ``pretrained_cfg``, as timm's networks have
    it; of a checkpoint what its own recipe set is taken. ``Modality.from_weights`` names the settings.

    Args:
        recipe: what to train.
        dataset: its data, prepared by the recipe as it is.

    Returns:
        The same recipe where nothing changes. A warning says what changes, and where the recipe's own settings differ.
    """
    modality, chosen = dataset.modality, recipe.modality
    if not modality.from_weights or (loaded := _loaded(recipe, dataset)) is None:
        return recipe
    own = modality.own_settings(loaded.settings)
    differ = {name: value for name, value in loaded.settings.items() if name in own and value != own[name]}
    taken = {
        name: value for name, value in differ.items() if name in loaded.given and chosen.parameters.get(name) is None
    }
    kept = {name: value for name, value in differ.items() if name not in taken}
    if taken:
        warnings.warn(
            f"The weights of {loaded.name} were trained with {_listed(taken)}. That is taken over in the place of the "
            f"data set's {_listed({name: own[name] for name in taken})}.",
            stacklevel=2,
        )
    if kept:
        warnings.warn(
            f"The weights of {loaded.name} were trained with {_listed(kept)}. This training uses "
            f"{_listed({name: own[name] for name in kept})}; modality.{next(iter(kept))} sets it.",
            stacklevel=2,
        )
    # lists, as a stored recipe has them: a run that goes on compares
    parameters = {name: list(value) if isinstance(value, tuple) else value for name, value in taken.items()}
    return recipe.model_copy(update={"modality": chosen.model_copy(update=parameters)}) if taken else recipe


def reopen_adopted_keys(recipe: Recipe, begun: Checkpoint) -> Recipe:
    """Return the recipe of a resumed run with the settings that its checkpoint adopted from weights."""
    if not (begun.recipe.model.pretrained or begun.recipe.model.weights):
        return recipe
    own, before = recipe.modality.parameters, begun.recipe.modality.parameters
    names = begun.modality.from_weights
    taken = {name: before[name] for name in names if own.get(name) is None and name in before}
    return recipe.model_copy(update={"modality": recipe.modality.model_copy(update=taken)})


@dataclass(frozen=True)
class _Loaded:
    """Weights that a training starts from.

    Attributes:
        name: of the network or the checkpoint.
        settings: how their examples were prepared.
        given: those of them that are not only a data set's own, and so hold for another data set too.
    """

    name: str
    settings: dict[str, Any]
    given: Collection[str]


def _loaded(recipe: Recipe, dataset: Dataset) -> _Loaded | None:
    modality, weights = dataset.modality, recipe.model.weights
    if (checkpoint := start_checkpoint(recipe)) is not None:
        parameters = checkpoint.recipe.modality.parameters
        given = {name: _tuple(parameters[name]) for name in modality.from_weights if parameters.get(name) is not None}
        return _Loaded(str(checkpoint.path), {**checkpoint.modality.own_settings(given), **given}, given)
    if not (recipe.model.pretrained or weights):
        return None
    if weights and (settings := modality.settings_of_weights(preparation_beside(Path(weights)))):
        return _Loaded(weights, settings, settings)
    config = pretrained_config(recipe.model, outputs=dataset.task.output_shape, inputs=modality.tensors)
    settings = modality.settings_of_weights(config)
    return _Loaded(f"'{recipe.model.name}'", settings, settings)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
