"""User images with a mask each, segmentation: class numbers, palettes or colours, with or without train, val and test.

    data.dir/classes.txt               one class a line, see below
    data.dir/train/images/*.jpg        or, one set that is split:      data.dir/images/*.jpg
    data.dir/train/masks/*.png                                         data.dir/masks/*.png
    data.dir/val/images, val/masks     (or valid, validation, dev; optional: else a share of train is held out)
    data.dir/test/images, test/masks

A mask has its image's name and the ending .png; folders inside are the same in both. Its pixels are numbers (grey, or a
palette as PASCAL VOC has them) or colours. ``classes.txt`` says what they mean, in one of three forms:

    background          0 background        0 0 0 background
    road                3 road              128 64 128 road
    car                 9 car               64 0 128 car
                        11 void             0 0 0 void

Names alone are numbered from 0. What is called void is no class: it is neither learnt nor measured. Numbers have 255 as
void besides. All images are resized to the height and width of the first one unless ``modality.image_size`` says
otherwise, with the mean and std of ImageNet; masks take the nearest pixel.
"""

from __future__ import annotations

from pathlib import Path

from sdcompress.data.samples import without_setting
from sdcompress.data.source import Source
from sdcompress.data.sources._listing import Skipped, folders_in, no_folder
from sdcompress.data.sources._masks import VOID, MaskCoding, Pair, images_in, mask_source, pairs_of
from sdcompress.data.sources._splits import has_splits, published_splits
from sdcompress.errors import DataError, InputError, RecipeError
from sdcompress.modalities._image_files import open_picture
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image
from sdcompress.schema import recipe

__all__ = ["masks"]

_LIST = "classes.txt"
_VOID_NAMES = {"void", "ignore", "unlabelled", "unlabeled"}
_MOST_CLASSES = 255  # a mask has 8 bits, and 255 is void
_FORMS = "lines such as 'road', '3 road' or '128 64 128 road', all of one form, each class once"


def masks(spec: recipe.Data) -> Source:
    """Return the images and masks below ``spec.dir``.

    Raises:
        RecipeError: if ``spec.dir`` is not set, or ``data.exclude`` names an image that is not there.
        DataError: if a folder, a mask or the list of classes is missing, or the list cannot be read.
    """
    if spec.dir is None:
        raise RecipeError(
            "'masks' needs data.dir.", next_step=f"--set data.dir=FOLDER (with images, masks and {_LIST})"
        )
    root = Path(spec.dir)
    if not root.is_dir():
        raise no_folder(root, "images and masks")
    coding = _coding(root / _LIST)
    pairs, excluded = {}, [root / name for name in spec.exclude]
    for split, folder in _splits(root).items():
        images = images_in(folder / "images")
        pairs[split] = pairs_of(images, folder / "images", folder / "masks", excluded)
    return mask_source(
        root, pairs, coding, Image.of(_preprocess(_size_of_first(pairs["train"], excluded, root))), spec.exclude
    )


def _preprocess(size: tuple[int, int]) -> Preprocess:
    return Preprocess(channels=3, resize=size, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def _splits(root: Path) -> dict[str, Path]:
    names = [path.name for path in folders_in(root, Skipped())]
    if not has_splits(names):
        return {"train": root}
    return {split: root / name for split, name in published_splits(names, root).items()}


def _size_of_first(pairs: list[Pair], excluded: list[Path], root: Path) -> tuple[int, int]:
    """Return the height and width of the first image."""
    first = next((pair.image for pair in pairs if pair.image not in excluded), pairs[0].image)
    try:
        with open_picture(first) as image:
            return image.height, image.width
    except InputError as error:
        name = first.relative_to(root).as_posix()
        raise DataError(
            f"The first image {first} cannot be used: {error.problem}",
            allowed=error.allowed,
            next_step=f"repair it, or go on without it: {without_setting([name])}",
        ) from error


def _coding(path: Path) -> MaskCoding:
    """Return what ``classes.txt`` says."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"The list of classes {path} cannot be read: {error}.", allowed=_FORMS, next_step=f"write {path}"
        ) from error
    leading = [next((at for at, word in enumerate(line) if not word.isdecimal()), len(line)) for line in lines]
    if len({*leading}) != 1 or leading[0] not in {0, 1, 3} or any(len(line) <= leading[0] for line in lines):
        raise _unusable(path, "its lines are of several forms, or of none")
    codes = [tuple(map(int, line[: leading[0]])) or (at,) for at, line in enumerate(lines)]
    names = [" ".join(line[leading[0] :]) for line in lines]
    classes = tuple(dict.fromkeys(name for name in names if name.casefold() not in _VOID_NAMES))
    if len(set(codes)) < len(codes) or max(map(max, codes)) > 255:
        raise _unusable(path, "a number or a colour is there twice, or is above 255")
    if not 2 <= len(classes) <= _MOST_CLASSES:
        raise _unusable(path, f"it names {len(classes)} classes, where 2 to {_MOST_CLASSES} can be told apart")
    meaning = {code: classes.index(name) if name in classes else VOID for code, name in zip(codes, names, strict=True)}
    if leading[0] == 3:
        return MaskCoding(classes, colours={(r, g, b): k for (r, g, b), k in meaning.items()})
    return MaskCoding(classes, values={VOID: VOID} | {code[0]: k for code, k in meaning.items()})


def _unusable(path: Path, why: str) -> DataError:
    return DataError(f"The list of classes {path} cannot be used: {why}.", allowed=_FORMS, next_step="correct the list")
