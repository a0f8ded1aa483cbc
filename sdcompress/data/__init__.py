"""Labelled images: sources, splits and preprocessing. 'load' gives the data set that a recipe names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sdcompress.errors import DataError, RecipeError
from sdcompress.schema import recipe

if TYPE_CHECKING:
    from sdcompress.data.samples import Dataset
    from sdcompress.data.source import Source

__all__ = ["ROOM", "load"]

ROOM = "sdcompress.data.sources"


def load(
    spec: recipe.Data,
    *,
    seed: int,
    fingerprint: str | None = None,
    stored_in: Path | None = None,
    trust_modules: bool = False,
) -> Dataset:
    """The data set that a recipe names, checked and split.

    Where the source has no test split, 20 % of it are held out, the same for every seed. Where it has no validation
    split, ``spec.validation`` of the training samples are held out by ``seed``. Both are stratified by class. The
    limits come last: a validation split does not depend on them.

    Args:
        spec: the recipe's ``data``; its name is an entry of the room, or ``module:function`` of the user's own, which
            is called with ``spec=`` and returns a ``sdcompress.data.source.Source``.
        seed: the recipe's seed.
        fingerprint: of the data that a network was trained on. Other data is refused: what is held out in it may have
            been trained on.
        stored_in: the checkpoint or artifact whose recipe this is, perhaps a stranger's: a function that it names is
            imported only if its user has trained on it here, or says that it is right.
        trust_modules: the user's word.

    Raises:
        UsageError: if a stored recipe names a function that is not trusted, see ``sdcompress.user_code``.
        UnknownNameError: if there is no such source.
        MissingExtraError: if it needs a package that is not installed.
        RecipeError: if nothing is left to train on, or the user's function returns something else.
        DataError: if files are missing or broken, a label is out of range, or the fingerprint is another.
    """
    # inside: importing a room stays light (no numpy), so that names can be listed quickly
    from sdcompress import registry
    from sdcompress.data.assemble import assemble
    from sdcompress.user_code import check_trusted

    if stored_in is not None and ":" in spec.name:
        check_trusted(stored_in, spec.name, {}, trust=trust_modules)
    source = _users(spec) if ":" in spec.name else registry.load(ROOM, spec.name, extra="train")(spec)
    found = assemble(spec, source, seed=seed)
    if fingerprint is not None and found.fingerprint != fingerprint:
        raise DataError(
            f"The data set '{spec.name}' is not the one that was trained on: its fingerprint is "
            f"{found.fingerprint[:12]}, not {fingerprint[:12]}.",
            allowed="the same files and the same split",
            next_step="restore the data, or name the folder where it lies (data.dir, --data-dir); a training goes on "
            "without files that were removed if they are named: --set 'data.without=[train/cat/3.jpg]'",
        )
    return found


def _users(spec: recipe.Data) -> Source:
    from sdcompress import registry
    from sdcompress.data.source import Source

    try:
        found = registry.call_user_function(spec.name, spec=spec)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise RecipeError(
            f"The function '{spec.name}' cannot be called with spec=...: {error}",
            allowed="def function(spec: sdcompress.schema.recipe.Data) -> sdcompress.data.source.Source",
            next_step="take the recipe's data section as the one argument 'spec'",
        ) from error
    if not isinstance(found, Source):
        raise RecipeError(
            f"'{spec.name}' returned a {type(found).__name__}.",
            allowed="a sdcompress.data.source.Source, as array_source makes one",
            next_step="return array_source(classes, preprocess, (images, labels)), see docs/adding/dataset.md",
        )
    return found
