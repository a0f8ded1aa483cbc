"""User images in one folder for each class, with or without train/, val/ and test/ above them.

    data.dir/train/<class>/*.png      or, one set that is split:      data.dir/<class>/*.png
    data.dir/val/<class>/*.png        (or valid, validation, dev; optional: else a share of train is held out)
    data.dir/test/<class>/*.png

Classes are the folders sorted by name. Images are the files below them sorted by path, with links followed. A warning
names what is skipped: hidden folders, files without an image suffix, folders beside the splits. Images are decoded on
access. The shorter side is resized and the centre cropped, as usual for ImageNet (224 of 256), with its mean and std.
The recipe's ``modality`` changes that.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

from sdcompress.data.files import FolderSamples
from sdcompress.data.source import Source
from sdcompress.data.sources._listing import Skipped, files_below, folders_in, no_folder
from sdcompress.data.sources._photos import photos
from sdcompress.data.sources._splits import has_splits, left_out, published_splits
from sdcompress.errors import DataError, RecipeError
from sdcompress.printable import has_surrogates
from sdcompress.schema import recipe

__all__ = ["imagefolder"]


def imagefolder(spec: recipe.Data) -> Source:
    """Return the images below ``spec.dir``.

    Raises:
        RecipeError: if ``spec.dir`` is not set.
        DataError: if a folder is missing or unreadable, a link leads to a parent folder, a class has no
            training image or its name is no text, or another split has other classes.
    """
    if spec.dir is None:
        raise RecipeError("'imagefolder' needs data.dir.", next_step="--set data.dir=FOLDER (with a folder per class)")
    root = Path(spec.dir)
    modality = photos()
    skipped = Skipped(modality.suffixes)
    folders = _folders(root, skipped)
    classes = {split: _classes(folder, skipped) for split, folder in folders.items()}
    splits = {}
    for split, folder in folders.items():
        if not set(classes[split]) <= set(classes["train"]):
            raise _different(folders["train"], classes["train"], folder, classes[split])
        absent = [root / name for name in spec.exclude]
        images = [_images(folder / name, skipped, absent) for name in classes["train"]]
        _check_every_class(folder, classes["train"], images, skipped, trains=split == "train")
        splits[split] = FolderSamples(root, images, modality)
    skipped.warn(root)
    excluded = left_out(splits, spec.exclude, root)
    digest, names = hashlib.sha256(), hashlib.sha256()
    for number, (split, samples) in enumerate(splits.items()):
        lines = samples.listing(excluded.get(split, frozenset()))
        digest.update(("\n" * bool(number) + "\n".join(lines)).encode(errors="surrogateescape"))
        names.update("\n".join(line.partition("\t")[0] for line in lines).encode(errors="surrogateescape") + b"\0")
    return Source(
        outputs=classes["train"],
        modality=modality,
        digest=digest.hexdigest(),
        names=names.hexdigest(),
        left_out=excluded,
        train=splits["train"],
        val=splits.get("val"),
        test=splits.get("test"),
    )


def _folders(root: Path, skipped: Skipped) -> dict[str, Path]:
    if not root.is_dir():
        raise no_folder(root, "images")
    skipped_in_root = Skipped(skipped.accepted)
    names = [path.name for path in folders_in(root, skipped_in_root)]
    if not has_splits(names):
        return {"train": root}
    skipped.hidden += skipped_in_root.hidden
    skipped.loose += skipped_in_root.loose
    skipped.dangling += skipped_in_root.dangling
    return {split: root / name for split, name in published_splits(names, root).items()}


def _classes(folder: Path, skipped: Skipped) -> tuple[str, ...]:
    names = tuple(path.name for path in folders_in(folder, skipped))
    if not names:
        raise DataError(
            f"{folder} holds no folders.",
            allowed="one folder for each class, with the images in it",
            next_step="sort the images into a folder for each class, or set data.dir to another folder",
        )
    for name in names:
        if has_surrogates(name):
            raise DataError(
                f"The name of the class folder {name!a} in {folder} is not text in UTF-8.",
                allowed="names in UTF-8, the encoding of all records",
                next_step="rename the folder",
            )
    return names


def _images(folder: Path, skipped: Skipped, excluded: Collection[Path]) -> list[Path]:
    """Return the images of a class, none without its folder. Excluded images keep their position, even if missing."""
    files = files_below(folder, skipped) if folder.is_dir() else []
    absent = {path for path in excluded if path.is_relative_to(folder)}.difference(files)
    return sorted([*files, *absent], key=lambda path: path.relative_to(folder).as_posix()) if absent else files


def _check_every_class(
    split: Path, classes: Sequence[str], images: Sequence[Sequence[Path]], skipped: Skipped, *, trains: bool
) -> None:
    """Refuse a class without training images, and warn of one that another split lacks: nothing is measured of it."""
    lacking = [name for name, files in zip(classes, images, strict=True) if not files]
    if lacking and trains:
        raise DataError(
            f"The class folder {split / lacking[0]} holds no image.",
            allowed=f"files that end in {', '.join(sorted(skipped.accepted))}",
            next_step="add images, or remove the folder of this class from every split",
        )
    if lacking and len(lacking) < len(classes):
        warnings.warn(
            f"{split} holds no image of {', '.join(lacking[:5])}{', ...' if len(lacking) > 5 else ''}: "
            "nothing is measured of these classes there.",
            stacklevel=4,
        )


def _different(first: Path, classes: tuple[str, ...], second: Path, other_classes: tuple[str, ...]) -> DataError:
    only_first, only_second = sorted(set(classes) - set(other_classes)), sorted(set(other_classes) - set(classes))
    parts = [f"only in {first.name}/: {', '.join(only_first)}"] if only_first else []
    parts += [f"only in {second.name}/: {', '.join(only_second)}"] if only_second else []
    return DataError(
        f"{first} and {second} hold different class folders: {'; '.join(parts)}.",
        allowed=f"the class folders of {first.name}/, or some of them",
        next_step="rename or remove the folders that differ",
    )
