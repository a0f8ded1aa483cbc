"""Build each network of a run and take one step, so that faults show before the controls are trained."""

from __future__ import annotations

from pathlib import Path

from sdcompress import methods
from sdcompress.data.samples import Dataset
from sdcompress.schema.recipe import Recipe
from sdcompress.training.check_recipe import check_network
from sdcompress.training.hardware import launch
from sdcompress.training.trainer import Trainer

__all__ = ["check_with_data"]


def check_with_data(recipe: Recipe, dataset: Dataset) -> None:
    """Build what would be trained, and run one batch through it; nothing is written.

    Raises:
        RecipeError: if the backbone cannot be built, cannot give what the method needs, or cannot be trained on
            batches of this size.
    """
    method = methods.build(recipe.method)
    # published weights would be downloaded twice; whether those that model.weights names fit is to be found
    model = recipe.model.untrained.model_copy(update={"weights": recipe.model.weights, "match": recipe.model.match})
    trainer = Trainer(
        recipe.model_copy(update={"model": model}), dataset, launch(recipe.train, phases=len(method.phases)), Path()
    )
    check_network(method.needs, trainer.net, recipe)
