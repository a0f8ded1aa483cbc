"""Labelled images: sources, splits and preprocessing. 'load' gives the data set that a recipe names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdcompress.schema import recipe

if TYPE_CHECKING:
    from sdcompress.data.samples import Dataset

__all__ = ["ROOM", "load"]

ROOM = "sdcompress.data.sources"


def load(spec: recipe.Data, *, seed: int) -> Dataset:
    """The data set that a recipe names, checked and split.

    Where the source has no test split, 20 % of it are held out, the same for every seed. Where it has no validation
    split, ``spec.validation`` of the training samples are held out by ``seed``. Both are stratified by class. The
    limits come last: a validation split does not depend on them.

    Args:
        spec: the recipe's ``data``.
        seed: the recipe's seed.

    Raises:
        UnknownNameError: if there is no such source.
        MissingExtraError: if it needs a package that is not installed.
        RecipeError: if nothing is left to train on.
        DataError: if files are missing or broken, or a label is out of range.
    """
    # inside: importing a room stays light (no numpy), so that names can be listed quickly
    from sdcompress import registry
    from sdcompress.data.assemble import assemble

    source = registry.load(ROOM, spec.name, extra="train")
    return assemble(spec, source(spec), seed=seed)
