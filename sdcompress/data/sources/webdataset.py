"""User images in WebDataset shards: tar files of KEY.jpg and KEY.cls, read by offset without unpacking.

    data.dir/train/*.tar               or, one set that is split:      data.dir/*.tar
    data.dir/validation/*.tar          (or val, valid, dev; optional; else a share of train is held out)
    data.dir/test/*.tar
    data.dir/classes.txt               (optional: one class name in each line, in label order)

A sample consists of the members with one key, the part of a file name before its first dot. They are an image (jpg,
jpeg, png or webp) and a label: an integer as text (cls), else ``label`` or ``cls`` of a JSON object. Members that give
no sample are tried again with the key before the last dot (``photo.1.jpg`` and ``photo.1.cls``). Other members are
skipped with a warning. Shards are sorted by name, samples by their first members. Headers are read once, so that any
image can be read by its offset: order, resume and sample memories work as with other sets. Preprocessing is that of
``imagefolder``.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from sdcompress.data.files import FileSamples
from sdcompress.data.source import Source
from sdcompress.data.sources import _tar
from sdcompress.data.sources._listing import Skipped, entries_of, folders_in, no_folder
from sdcompress.data.sources._photos import check_every_class, photos
from sdcompress.data.sources._splits import has_splits, left_out, published_splits
from sdcompress.errors import DataError, RecipeError
from sdcompress.modalities import Modality
from sdcompress.schema import recipe

__all__ = ["webdataset"]

_IMAGES = {"jpeg", "jpg", "png", "webp"}
_PACKED = re.compile(r"(.+)\.(?:tgz|txz|tbz2?|tar\.(?:gz|bz2|xz|zst))")
_INTEGER = re.compile(r"-?[0-9]{1,9}")  # at most nine digits: a label is a class index


def webdataset(spec: recipe.Data) -> Source:
    """Return the shards below ``spec.dir``. No image is decoded yet.

    Raises:
        RecipeError: if ``spec.dir`` is not set.
        DataError: if there are no shards, a shard is compressed, truncated or damaged, a key lacks its image or label,
            or labels and classes do not match.
    """
    if spec.dir is None:
        raise RecipeError("'webdataset' needs data.dir.", next_step="--set data.dir=FOLDER (with .tar shards)")
    root = Path(spec.dir)
    modality = photos()
    splits = {split: _ShardSamples(root, _shards(folder), modality) for split, folder in _folders(root).items()}
    train = splits["train"].targets
    names = _class_names(root)
    count = len(names) or int(train.max(initial=-1)) + 1
    for samples in splits.values():
        samples.check_labels(count)
    check_every_class(train, count, root, "classes.txt names" if names else "reach up to the highest")
    digest = hashlib.sha256()
    for split, samples in splits.items():
        for line in samples.listing():
            digest.update(f"{split}\t{line}\n".encode(errors="surrogateescape"))
    classes = names or tuple(str(label) for label in range(count))
    return Source(
        outputs=classes,
        modality=modality,
        digest=digest.hexdigest(),
        left_out=left_out(splits, spec.exclude, root),
        train=splits["train"],
        val=splits.get("val"),
        test=splits.get("test"),
    )


class _ShardSamples(FileSamples):
    """The images of a split, read and decoded on access in the thread of the caller."""

    def __init__(self, root: Path, shards: list[Path], modality: Modality) -> None:
        self._root, self._shards, self._modality = root, shards, modality
        self._members: list[tuple[Path, _tar.Member]] = []
        labels, skipped = [], Counter[str]()
        for shard in shards:
            for image, label in _index(shard, skipped):
                self._members.append((shard, image))
                labels.append(label)
        if skipped:
            kinds = ", ".join(
                f"{count} {f'.{ending}' if ending else 'without an ending'}" for ending, count in skipped.most_common()
            )
            warnings.warn(
                f"{shards[0].parent}: skipped members that are neither image nor label: {kinds}.", stacklevel=2
            )
        self._targets = np.array(labels, np.int64)

    def check_labels(self, classes: int) -> None:
        """Refuse a label that is not in 0..classes-1."""
        for at in np.flatnonzero((self._targets < 0) | (self._targets >= classes))[:1]:
            shard, image = self._members[at]
            raise DataError(
                f"'{image.name}' of {shard} has the label {self._targets[at]}.",
                allowed=f"0 to {classes - 1}: there are {classes} classes",
                next_step="number the labels from 0, as the lines of classes.txt and the labels in train/ are",
            )

    def listing(self) -> Iterator[str]:
        """Yield lines with names and sizes of shards and images."""
        for path in self._shards:
            yield f"{path.name}\t{path.stat().st_size}"
        for _, image in self._members:
            yield f"{image.name}\t{image.size}"

    def name(self, position: int) -> str:
        """Return the path of the shard relative to data.dir, and the name of the member."""
        shard, member = self._members[position]
        return f"{shard.relative_to(self._root).as_posix()}/{member.name}"

    def file(self, position: int) -> bytes:
        """Read the bytes of an image from its shard."""
        return _tar.read(*self._members[position])


def _folders(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise no_folder(root, "shards")
    names = {path.name for path in folders_in(root, Skipped())}
    if not has_splits(names):
        return {"train": root}
    return {split: root / name for split, name in published_splits(names, root).items()}


def _shards(folder: Path) -> list[Path]:
    paths = (Path(entry.path) for entry in entries_of(folder) if entry.is_file() and not entry.name.startswith("."))
    files = sorted(paths)
    shards = [path for path in files if path.suffix == ".tar"]
    # a compressed shard beside its .tar (gunzip --keep) is ignored
    matches = filter(None, (_PACKED.fullmatch(path.name) for path in files))
    packed = [match[0] for match in matches if not (folder / f"{match[1]}.tar").exists()]
    if packed:
        raise DataError(
            f"{folder} holds compressed shards: {', '.join(packed[:3])}{', ...' if len(packed) > 3 else ''}.",
            allowed="uncompressed .tar files; images in compressed ones cannot be read by offset",
            next_step="unpack them to .tar, e.g. with gunzip (compression does not make images smaller)",
        )
    if not shards:
        raise DataError(
            f"{folder} holds no shards.",
            allowed=".tar files with KEY.jpg (or jpeg, png, webp) and KEY.cls",
            next_step="set data.dir to the folder with the shards, or with train/ and test/",
        )
    return shards


def _class_names(root: Path) -> tuple[str, ...]:
    """Return the lines of classes.txt, or none without that file."""
    path = root / "classes.txt"
    if not path.exists():
        return ()
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}", next_step="save it as UTF-8 text") from error
    if "" in names or len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1 and name})
        raise DataError(
            f"{path} has " + (f"a name twice: {twice[0]}." if twice else "an empty line."),
            allowed="a different name in each line, in the order of the labels",
            next_step="correct the file, or remove it, so that classes are named by their numbers",
        )
    return names


def _index(shard: Path, skipped: Counter[str]) -> list[tuple[_tar.Member, int]]:
    """Return the images of a shard with their labels. Other members are counted by suffix."""
    samples: dict[str, dict[str, _tar.Member]] = {}
    unmatched = [member for member in _tar.members(shard) if not _add(samples, member, shard, "first")]
    complete = {key for key, parts in samples.items() if "image" in parts}
    dotted: dict[str, dict[str, _tar.Member]] = {}
    for member in unmatched:
        if not _key(member, "first")[0]:
            continue
        if _key(member, "first")[0] in complete or not _add(dotted, member, shard, "last"):
            skipped[_key(member, "first")[1]] += 1
    for key, parts in dotted.items():
        if set(parts) == {"json"}:  # metadata of the whole set
            skipped[_key(parts["json"], "first")[1]] += 1
        else:
            samples[key] = parts
    in_order = sorted(samples.items(), key=lambda sample: min(part.offset for part in sample[1].values()))
    return [_sample(shard, key, parts) for key, parts in in_order]


def _key(member: _tar.Member, dot: Literal["first", "last"]) -> tuple[str, str]:
    """Split the name of a member into key and suffix, at its first or last dot."""
    folder, slash, file = member.name.rpartition("/")
    if file.startswith("."):  # macOS writes '._name.jpg' beside 'name.jpg', which is not an image
        return "", file
    stem, _, ending = file.partition(".") if dot == "first" else file.rpartition(".")
    return folder + slash + stem, ending.lower()


def _add(
    samples: dict[str, dict[str, _tar.Member]], member: _tar.Member, shard: Path, dot: Literal["first", "last"]
) -> bool:
    """Add a member to the sample of its key. Returns False if it is neither image nor label."""
    key, ending = _key(member, dot)
    kind = "image" if ending in _IMAGES else ending
    if not key or kind not in {"image", "cls", "json"}:
        return False
    parts = samples.setdefault(key, {})
    if kind in parts:
        raise DataError(
            f"The key '{key}' of {shard} has two members of one kind: '{parts[kind].name}' and '{member.name}'.",
            allowed="one image and one label for each key",
            next_step="write the shard again with a key for each image",
        )
    parts[kind] = member
    return True


def _sample(shard: Path, key: str, parts: dict[str, _tar.Member]) -> tuple[_tar.Member, int]:
    if "image" not in parts or len(parts) < 2:
        missing = "label" if "image" in parts else "image"
        raise DataError(
            f"The key '{key}' of {shard} has no {missing}.",
            allowed="KEY.jpg (or jpeg, png, webp) with KEY.cls, or with KEY.json that has a 'label'",
            next_step=f"write the shard again, with the {missing} or without the key",
        )
    member = parts.get("cls") or parts["json"]
    text = _tar.read(shard, member)
    label = _from_json(text) if member.name.lower().endswith(".json") else _from_text(text)
    if label is None:
        raise DataError(
            f"'{member.name}' of {shard} gives no label: {text[:40]!r}{' ...' if len(text) > 40 else ''}.",
            allowed="an integer as text (cls), or a JSON object whose 'label' or 'cls' is one (json), below 10^9",
            next_step="number the classes from 0, write the shard again, and put the names into classes.txt",
        )
    return parts["image"], label


def _from_text(text: bytes) -> int | None:
    word = text.decode("ascii", errors="replace").strip()
    return int(word) if _INTEGER.fullmatch(word) else None


def _from_json(text: bytes) -> int | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    label = content.get("label", content.get("cls")) if isinstance(content, dict) else None
    if type(label) is not int:  # bool is a subclass of int, and not a label
        return None
    return label if _INTEGER.fullmatch(str(label)) else None
