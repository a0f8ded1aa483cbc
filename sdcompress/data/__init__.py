"""Data sets: sources, samples and splits. 'load' gives the data set that a recipe names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sdcompress.errors import DataError, RecipeError
from sdcompress.schema import recipe

if TYPE_CHECKING:
    from sdcompress.data.samples import Dataset
    from sdcompress.data.source import Source

__all__ = ["ROOM", "DatasetCache", "load"]

ROOM = "sdcompress.data.sources"


def load(
    spec: recipe.Data,
    *,
    seed: int,
    task: recipe.TaskSection | None = None,
    modality: recipe.ModalitySection | None = None,
    fingerprint: str | None = None,
    stored_in: Path | None = None,
    trust_modules: bool = False,
) -> Dataset:
    """Return the data set that a recipe names, checked and split.

    Where the source has no test split, 20 % of it are held out, the same for every seed. Where it has no validation
    split, ``spec.validation`` of the training samples are held out by ``seed``. Both are stratified where the task has
    strata, such as classes. The limits come last: a validation split does not depend on them.

    Args:
        spec: the recipe's ``data``; its name is an entry of the room, or ``module:function`` of the user's own, which
            is called with ``spec=`` and returns a ``sdcompress.data.source.Source``.
        seed: the recipe's seed.
        task: the recipe's ``task``, which must be that of the source's targets; default: classification.
        modality: the recipe's ``modality``; default: the data set's own.
        fingerprint: of the data that a network was trained on. Other data is refused: what is held out in it may have
            been trained on.
        stored_in: the checkpoint or artifact whose recipe this is, perhaps a stranger's: a function that it names is
            imported only if its user has trained on it here, or says that it is right.
        trust_modules: the user's word.

    Raises:
        UsageError: if a stored recipe names a function that is not trusted, see ``sdcompress.user_code``.
        UnknownNameError: if there is no such source.
        MissingExtraError: if it needs a package that is not installed.
        RecipeError: if the task or the modality is another, nothing is left to train on, or the user's function
            returns something else.
        DataError: if files are missing or broken, a target is out of range, or the fingerprint is another.
    """
    # inside: importing a room stays light (no numpy), so that names can be listed quickly
    from sdcompress import registry
    from sdcompress.data.assemble import assemble
    from sdcompress.user_code import check_trusted

    if stored_in is not None and ":" in spec.name:
        check_trusted(stored_in, spec.name, {}, trust=trust_modules)
    source = _users(spec) if ":" in spec.name else registry.load(ROOM, spec.name, extra="train")(spec)
    dataset = assemble(spec, source, seed=seed, task=task, modality=modality)
    _check_same(dataset, fingerprint, spec)
    return dataset


class DatasetCache:
    """Loads data sets as ``load`` does, and keeps them: the next call with the same recipe returns the same object."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[int, str, str, str], Dataset] = {}

    def __call__(
        self,
        spec: recipe.Data,
        *,
        seed: int,
        task: recipe.TaskSection | None = None,
        modality: recipe.ModalitySection | None = None,
        fingerprint: str | None = None,
        stored_in: Path | None = None,
        trust_modules: bool = False,
    ) -> Dataset:
        """Load a data set; arguments and errors are those of ``load``."""
        means, prepared = task or recipe.TaskSection(), modality or recipe.ModalitySection()
        content = spec.model_dump_json(exclude={"download"})
        key = (seed, content, means.model_dump_json(), prepared.model_dump_json())
        if key not in self._loaded:
            self._loaded[key] = load(
                spec, seed=seed, task=means, modality=prepared, stored_in=stored_in, trust_modules=trust_modules
            )
        _check_same(self._loaded[key], fingerprint, spec)
        return self._loaded[key]


def _check_same(dataset: Dataset, fingerprint: str | None, spec: recipe.Data) -> None:
    if fingerprint is not None and dataset.fingerprint != fingerprint:
        raise DataError(
            f"The data set '{spec.name}' is not the one that was trained on: its fingerprint is "
            f"{dataset.fingerprint[:12]}, not {fingerprint[:12]}.",
            allowed="the same files and the same split",
            next_step="restore the data, or name the folder where it lies (data.dir, --data-dir); a training goes on "
            "without files that were removed if they are named: --set 'data.exclude=[train/cat/3.jpg]'",
        )


def _users(spec: recipe.Data) -> Source:
    from sdcompress import registry
    from sdcompress.data.source import Source

    try:
        source = registry.call_user_function(spec.name, spec=spec)
    except registry.ArgumentsError as error:
        raise RecipeError(
            f"The function '{spec.name}' cannot be called with spec=...: {error}",
            allowed="def function(spec: sdcompress.schema.recipe.Data) -> sdcompress.data.source.Source",
            next_step="take the recipe's data section as the one argument 'spec'",
        ) from error
    if not isinstance(source, Source):
        raise RecipeError(
            f"'{spec.name}' returned a {type(source).__name__}.",
            allowed="a sdcompress.data.source.Source, as image_source makes one",
            next_step="return image_source(outputs, preprocess, (images, targets)), see docs/adding/dataset.md",
        )
    return source
