"""User images or texts in a local Hugging Face dataset, as written by save_to_disk.

    datasets.load_dataset("some/name").save_to_disk("FOLDER")        then: data.dir=FOLDER

A DatasetDict gives train, test and, if there is one, validation (or valid, val, dev). Other splits are skipped with a
warning. A single Dataset, or a DatasetDict of one split, is split. The image column has the type Image. The label
column is a ClassLabel, or integers called ``label``, ``labels`` or ``fine_label``. If several columns match, these
names (for images ``image`` and ``img``) decide. Preprocessing is that of ``imagefolder``.

A dataset without images is one of texts: those in ``data.columns``, else in its only column of texts. Their label
column is ``data.label``. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from sdcompress.data.files import FileSamples
from sdcompress.data.source import Source
from sdcompress.data.sources._huggingface_texts import common_classes, dataset_texts, has_texts
from sdcompress.data.sources._listing import no_folder
from sdcompress.data.sources._photos import check_every_class, photos
from sdcompress.data.sources._splits import left_out, published_splits
from sdcompress.errors import DataError, RecipeError, requires_extra
from sdcompress.modalities import Modality
from sdcompress.schema import recipe

__all__ = ["huggingface"]

_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels", "fine_label")
_SAVE = "python -c \"import datasets; datasets.load_dataset('NAME').save_to_disk('FOLDER')\""


def huggingface(spec: recipe.Data) -> Source:
    """Return the dataset in ``spec.dir``. No image is decoded yet; texts are read.

    Raises:
        RecipeError: if ``spec.dir`` is not set.
        MissingExtraError: if the package ``datasets`` is not installed.
        DataError: if the dataset is missing or damaged, its columns are ambiguous, a row lacks its image or label, or
            labels and classes do not match.
    """
    if spec.dir is None:
        raise RecipeError("'huggingface' needs data.dir.", next_step=f"--set data.dir=FOLDER, saved by {_SAVE}")
    root = Path(spec.dir)
    modality = photos()
    tables = _tables(root)
    if not _image_columns(tables["train"].features) and has_texts(tables["train"].features, spec.label):
        return dataset_texts(root, tables, spec)
    splits, labels = {}, []
    for split, table in tables.items():
        columns = _columns(root, table.features)
        splits[split] = _Rows(split, f"the split '{split}' of {root}", table, columns, modality)
        labels.append(table.features[columns[1]])
    named, train = common_classes(root, labels), splits["train"].targets
    count = len(named) or int(train.max(initial=-1)) + 1
    for rows in splits.values():
        rows.check_labels(count)
    if not named:
        check_every_class(train, count, root, "reach up to the highest")
    digest = hashlib.sha256()
    for split, rows in splits.items():
        digest.update(split.encode() + b"\0" + "\n".join(rows.listing()).encode() + b"\0")
    classes = named or tuple(str(label) for label in range(count))
    return Source(
        outputs=classes,
        modality=modality,
        digest=digest.hexdigest(),
        left_out=left_out(splits, spec.exclude, root),
        train=splits["train"],
        val=splits.get("val"),
        test=splits.get("test"),
    )


class _Rows(FileSamples):
    """The images of a split, decoded on access in the thread of the caller.

    ``datasets`` does not decode them: it would rotate images by EXIF, which no other source does.
    """

    def __init__(self, split: str, name: str, table: Any, columns: tuple[str, str], modality: Modality) -> None:
        from datasets import Image
        from pyarrow import compute

        image, label = columns
        self._split, self._name, self._column, self._modality = split, name, image, modality
        labels = table.data.column(label)
        self._no_gaps("label", compute.is_null(labels))
        self._targets = labels.to_numpy().astype(np.int64)
        self._files = table.data.column(image)
        self._no_gaps("image", compute.is_null(compute.struct_field(self._files, "bytes")))
        self._rows = table.with_format(None).select_columns([image]).cast_column(image, Image(decode=False))

    def listing(self) -> list[str]:
        """Return a line with name and size of each image, without reading images."""
        from pyarrow import compute

        names = compute.struct_field(self._files, "path").to_pylist()
        sizes = compute.binary_length(compute.struct_field(self._files, "bytes")).to_pylist()
        return [f"{name or ''}\t{size}" for name, size in zip(names, sizes, strict=True)]

    def check_labels(self, classes: int) -> None:
        """Refuse a label that is not in 0..classes-1."""
        for row in np.flatnonzero((self._targets < 0) | (self._targets >= classes))[:1]:
            raise DataError(
                f"Row {row} of {self._name} has the label {self._targets[row]}.",
                allowed=f"0 to {classes - 1}: there are {classes} classes",
                next_step="number the labels from 0; if a split has no labels (-1), remove it or make "
                "another one with train_test_split",
            )

    def _no_gaps(self, kind: str, absent: Any) -> None:
        for row in np.flatnonzero(absent.to_numpy())[:1]:
            raise DataError(
                f"Row {row} of {self._name} has no {kind}.",
                allowed="a label and the bytes of an image in each row, as save_to_disk writes them",
                next_step="remove such rows with Dataset.filter, and save the dataset again",
            )

    def name(self, position: int) -> str:
        """Return the split and the row."""
        return f"{self._split}/{position}"

    def file(self, position: int) -> bytes:
        """Return the bytes in the row."""
        content: bytes = self._rows[position][self._column]["bytes"]
        return content


def _tables(root: Path) -> dict[str, Any]:
    """Load the dataset of each split."""
    with requires_extra("huggingface"):
        import datasets
        import pyarrow as pa
    # the package would download a name that is not a local folder
    if not root.is_dir():
        raise no_folder(root, "dataset")
    if not any((root / name).is_file() for name in ("dataset_dict.json", "state.json")):
        raise DataError(
            f"{root} holds no dataset of save_to_disk: dataset_dict.json and state.json are missing.",
            allowed="the folder of a saved Dataset or DatasetDict, not a cache or a clone of the Hub",
            next_step=_SAVE,
        )
    try:
        dataset = datasets.load_from_disk(str(root.resolve()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException) as error:
        raise DataError(
            f"The dataset in {root} cannot be read: {error}",
            allowed="complete files of save_to_disk",
            next_step="copy or save the dataset again",
        ) from error
    if not isinstance(dataset, dict):
        return {"train": dataset}
    if len(dataset) == 1:
        return {"train": next(iter(dataset.values()))}
    return {split: dataset[name] for split, name in published_splits(dataset.keys(), root).items()}


def _columns(root: Path, features: Any) -> tuple[str, str]:
    """Return the names of the image column and the label column."""
    from datasets import ClassLabel, Value

    images = _image_columns(features)
    labels = [
        name
        for name, feature in features.items()
        if isinstance(feature, ClassLabel)
        or (name in _LABEL_NAMES and isinstance(feature, Value) and feature.dtype.lstrip("u").startswith("int"))
    ]
    image, label = _only(images, _IMAGE_NAMES), _only(labels, _LABEL_NAMES)
    if image is None:
        raise _unclear(root, features, images, "image", _IMAGE_NAMES)
    if label is None:
        raise _unclear(root, features, labels, "label", _LABEL_NAMES)
    return image, label


def _image_columns(features: Any) -> list[str]:
    from datasets import Image

    return [name for name, feature in features.items() if isinstance(feature, Image)]


def _only(columns: list[str], preferred: tuple[str, ...]) -> str | None:
    by_name = [name for name in columns if name in preferred]
    candidates = columns if len(columns) == 1 else by_name
    return candidates[0] if len(candidates) == 1 else None


def _unclear(root: Path, features: Any, columns: list[str], role: str, preferred: tuple[str, ...]) -> DataError:
    kind, cast = {
        "image": ("Image", "cast_column('COLUMN', datasets.Image())"),
        "label": ("ClassLabel", "class_encode_column('COLUMN')"),
    }[role]
    types = ", ".join(f"{name} ({_type(feature)})" for name, feature in features.items())
    problem = f"more than one {role} column: {', '.join(columns)}" if columns else f"no {role} column"
    if not columns:
        change = cast
    elif any(name in preferred for name in columns):
        change = "remove_columns('COLUMN')"  # renaming one would leave two of these names
    else:
        change = f"rename_column('COLUMN', '{preferred[0]}')"
    return DataError(
        f"{root} has {problem}. Its columns are {types}.",
        allowed=f"one column of the type {kind}, or one of several called {' or '.join(preferred)}",
        next_step=f"datasets.load_from_disk('FOLDER').{change}.save_to_disk('OTHER')",
    )


def _type(feature: Any) -> str:
    kind = type(feature).__name__
    return str(feature.dtype) if kind == "Value" else kind
