"""From a source to a data set: check the samples, split, limit, fingerprint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sdcompress.data.samples import Dataset, Labels, Samples, Subset
from sdcompress.data.source import Source
from sdcompress.data.split import hold_out
from sdcompress.errors import DataError, RecipeError
from sdcompress.schema import recipe
from sdcompress.schema.manifest import Preprocess

__all__ = ["assemble"]

_TEST_SHARE = 0.2
_TEST_SEED = (0, 0)  # not the recipe's: the figures of all runs are on the same images
_VALIDATION, _TRAIN_LIMIT, _TEST_LIMIT = 1, 2, 3  # independent streams of one seed


@dataclass(frozen=True)
class _Part:
    """Some positions of what a source gives, and which of all positions are left out."""

    whole: Samples
    indices: Labels
    gone: Labels

    @property
    def targets(self) -> Labels:
        return self.whole.targets[self.indices]

    def hold_out(self, count: int, *seed: int) -> tuple[_Part, _Part]:
        stay, held = hold_out(self.targets, count, seed=seed)
        return replace(self, indices=self.indices[stay]), replace(self, indices=self.indices[held])

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Which of the indices are not left out."""
        return ~np.isin(self.indices, self.gone)

    def dropped(self) -> _Part:
        """The same without those that are left out."""
        return replace(self, indices=self.indices[self.kept])

    def filled(self) -> _Part:
        """The same with the next image of the class in the place of each that is left out.

        So every other image keeps its position: orders, memories of samples and the number of steps stay as they are.

        Raises:
            RecipeError: if a class has no other image.
        """
        kept, labels, indices = self.kept, self.targets, self.indices.copy()
        for at in np.flatnonzero(~kept):
            others = np.flatnonzero(kept & (labels == labels[at]))
            if len(others) == 0:
                raise RecipeError(
                    "data.without leaves a class without any training image.",
                    allowed="at least one image of each class to train on",
                    next_step="name fewer images, or take the class out of the data set",
                )
            indices[at] = indices[others[np.searchsorted(others, at) % len(others)]]
        return replace(self, indices=indices)


def assemble(spec: recipe.Data, source: Source, *, seed: int) -> Dataset:
    """Split a source as the recipe says; the rules stand at ``sdcompress.data.load``.

    Raises:
        RecipeError: if nothing is left to train on, or the source does not do what ``data`` sets.
        DataError: if a label is out of range, or images differ from what the source's preprocessing gives.
    """
    for split, samples in (("train", source.train), ("val", source.val), ("test", source.test)):
        if samples is not None:
            _check(spec.name, split, samples, source)
    _check_obeyed(spec, source.preprocess)
    if spec.without and not any(source.left_out.values()):
        raise RecipeError(
            f"The images of '{spec.name}' have no names that data.without could name.",
            next_step="leave data.without out",
        )
    parts = _parts(spec, source, seed)
    if len(parts["train"].indices) == 0:
        raise RecipeError(
            f"No image of '{spec.name}' is left to train on: data.validation is {spec.validation:g}.",
            allowed="a share below 1",
            next_step="set data.validation, e.g. to 0.1",
        )
    used = (parts["train"].filled(), parts["validation"].dropped(), parts["test"].dropped())
    train, val, test = (Subset(part.whole, part.indices) for part in used)
    return Dataset(
        name=spec.name,
        train=train,
        val=val,
        test=test,
        outputs=source.outputs,
        preprocess=source.preprocess,
        fingerprint=_fingerprint(spec.name, source, source.digest, parts, spec.without),
        layout=_fingerprint(spec.name, source, source.names or source.digest, parts),
    )


def _parts(spec: recipe.Data, source: Source, seed: int) -> dict[str, _Part]:
    train = _all(source.train, source, "train")
    if source.test is not None:
        test = _all(source.test, source, "test")
    else:
        train, test = train.hold_out(round(_TEST_SHARE * len(train.indices)), *_TEST_SEED)
    if source.val is not None:
        val = _all(source.val, source, "val")
    else:
        train, val = train.hold_out(round(spec.validation * len(train.indices)), seed, _VALIDATION)
    if spec.train_limit is not None:
        _, train = train.hold_out(spec.train_limit, seed, _TRAIN_LIMIT)
    if spec.test_limit is not None:
        _, test = test.hold_out(spec.test_limit, seed, _TEST_LIMIT)
    return {"train": train, "validation": val, "test": test}


def _all(samples: Samples, source: Source, split: str) -> _Part:
    return _Part(samples, np.arange(len(samples)), np.array(sorted(source.left_out.get(split, ())), np.int64))


def _check(name: str, split: str, samples: Samples, source: Source) -> None:
    shown = "validation" if split == "val" else split
    if len(samples) == 0:
        raise DataError(
            f"The {shown} split of '{name}' holds no image.", next_step="check the folder that the data lie in"
        )
    if len(source.outputs) < 2:
        raise DataError(
            f"'{name}' has {len(source.outputs)} class: there is nothing to tell apart.",
            allowed="2 classes or more",
            next_step="check the folder that the data lie in",
        )
    low, high = int(samples.targets.min()), int(samples.targets.max())
    if low < 0 or high >= len(source.outputs):
        raise DataError(
            f"The {shown} labels of '{name}' reach from {low} to {high}.",
            allowed=f"0 to {len(source.outputs) - 1}: it has {len(source.outputs)} classes",
            next_step="check the file that holds the labels",
        )
    gone = source.left_out.get(split, ())
    first = next((position for position in range(len(samples)) if position not in gone), 0)
    channels = samples.examples(np.array([first])).shape[3]
    if channels != source.preprocess.channels:
        raise DataError(
            f"The {shown} images of '{name}' have {channels} channels, its preprocessing {source.preprocess.channels}.",
            next_step="correct the data set's file in sdcompress/data/sources",
        )


def _check_obeyed(spec: recipe.Data, done: Preprocess) -> None:
    """Refuse a setting of the preprocessing that the source's file passes over."""
    share = spec.crop if isinstance(spec.crop, float) else None
    crop_obeyed = spec.crop is None or (
        done.crop is None if share is None else done.crop is not None and done.resize == round(min(done.crop) / share)
    )
    obeyed = {
        name: getattr(spec, name) in {None, getattr(done, name)}
        for name in ("mean", "std", "interpolation", "white_level")
    } | {"crop": crop_obeyed}
    if passed_over := [f"data.{name}" for name, ok in obeyed.items() if not ok]:
        raise RecipeError(
            f"The data set '{spec.name}' passes over {', '.join(passed_over)}: its preprocessing is {done!r}.",
            allowed="settings that the data set's file obeys",
            next_step="leave them out, or let its file make its preprocessing by sdcompress.data.source.preprocessing",
        )


def _fingerprint(
    name: str, source: Source, content: str, parts: dict[str, _Part], without: tuple[str, ...] = ()
) -> str:
    digest = hashlib.sha256()
    for text in (name, *source.outputs, source.preprocess.model_dump_json(), content, *sorted(without)):
        digest.update(text.encode() + b"\0")
    for split, part in parts.items():
        digest.update(split.encode() + b"\0")
        digest.update(part.indices.astype("<i8").tobytes() + part.targets.astype("<i8").tobytes())
    return digest.hexdigest()
