"""Define the types of arguments that several verbs share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdcompress.evaluation.trained_model import TrainedModel
from sdcompress.schema.recipe import Recipe

__all__ = ["Folder", "Overrides", "RecipeLike", "Source"]

Folder = Path | str
Source = TrainedModel | Folder
Overrides = Mapping[str, Any]  # some keys of a section of the recipe
RecipeLike = Recipe | Overrides | Folder | None
