"""Shared by sources of images with masks."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from sdcompress.data.source import Source
from sdcompress.data.sources._listing import Skipped, files_below
from sdcompress.data.sources._mask_files import MaskCoding, MaskSamples, Pair
from sdcompress.data.sources._splits import left_out
from sdcompress.errors import DataError
from sdcompress.modalities.image import Image

__all__ = ["images_in", "mask_source"]


def images_in(folder: Path) -> list[Path]:
    """Return the images below a folder, sorted by path; a warning says what is passed over.

    Raises:
        DataError: if there is none.
    """
    skipped = Skipped(Image.suffixes)
    files = files_below(folder, skipped) if folder.is_dir() else []
    if not files:
        raise DataError(
            f"{folder} holds no image.",
            allowed=f"files that end in {', '.join(sorted(Image.suffixes))}",
            next_step="copy the images there, or correct data.dir",
        )
    skipped.warn(folder)
    return files


def mask_source(
    root: Path,
    pairs: Mapping[str, Sequence[Pair]],
    coding: MaskCoding,
    modality: Image,
    exclude: Collection[str],
) -> Source:
    """Return a source of images with masks.

    Args:
        root: the folder that names are relative to.
        pairs: the files of ``train`` and, where there are such splits, of ``val`` and ``test``.
        coding: of the masks.
        modality: of the images, as far as the data set says.
        exclude: names of images to leave out.

    Raises:
        RecipeError: if a name belongs to no image.
    """
    named = {split: MaskSamples(root, listed, coding, modality) for split, listed in pairs.items()}
    excluded = left_out(named, exclude, root)
    splits = {split: samples.without(excluded.get(split, ())) for split, samples in named.items()}
    content, names = hashlib.sha256(), hashlib.sha256()
    for samples in splits.values():
        lines = samples.listing()
        content.update(("\n".join(lines) + "\0").encode(errors="surrogateescape"))
        names.update(("\n".join(line.partition("\t")[0] for line in lines) + "\0").encode(errors="surrogateescape"))
    return Source(
        outputs=coding.classes,
        modality=modality,
        digest=content.hexdigest(),
        names=names.hexdigest(),
        left_out=excluded,
        train=splits["train"],
        val=splits.get("val"),
        test=splits.get("test"),
        task="segmentation",
    )
