"""Examples of a user's own without targets, such as production traffic: a folder of files, no data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sdcompress.data.files import FileSamples
from sdcompress.data.samples import Samples, row_batches
from sdcompress.data.sources._listing import Skipped, files_below
from sdcompress.errors import DataError
from sdcompress.modalities import Modality
from sdcompress.progress import Progress
from sdcompress.tasks import Array

__all__ = ["UnlabelledFolder"]

_BATCH = 256
_NAMED = 3  # files or pairs that an error names


class UnlabelledFolder(FileSamples):
    """The examples below a folder, each once, in the order of their content: a file's name decides nothing.

    All are read when it is made, so that a broken one is found before anything runs. Examples are compared as the
    network takes them, for images by their pixels, whatever the file's format.

    Args:
        folder: searched with the folders in it, links followed; hidden ones are passed over. Or one file.
        modality: of the artifact.
        progress: called with (files read, all files).

    Attributes:
        fingerprint: SHA-256 over the preparation and the examples' content, in hexadecimal.
        apart: whether they were compared with the training examples, and none of them is one.

    Raises:
        DataError: if there is no example, or one cannot be used or is there twice.
    """

    def __init__(
        self,
        folder: Path,
        modality: Modality,
        progress: Progress | None = None,
    ) -> None:
        self._modality, skipped = modality, Skipped(modality.suffixes)
        single = [folder] if folder.is_file() and folder.suffix.lower() in modality.suffixes else []
        paths = files_below(folder, skipped) if folder.is_dir() else single
        self._raw = [named for path in paths for named in modality.raw_examples(path)]
        if not self._raw:
            raise DataError(
                f"{folder} {'holds no file that can be read' if folder.is_dir() else 'is not a folder'}.",
                allowed=f"a folder with files that end in {', '.join(sorted(modality.suffixes))}, also in folders of "
                "their own",
                next_step="name the folder that holds the examples: --samples FOLDER",
            )
        skipped.warn(folder)
        self._targets = np.full(len(self._raw), -1, np.int64)
        digests = list(_digests(self, progress))
        order = sorted(range(len(digests)), key=digests.__getitem__)
        self._raw = [self._raw[row] for row in order]
        self._check_unique([digests[row] for row in order], [name for name, _ in self._raw])
        self._digests, self.apart = frozenset(digests), False
        text = modality.fingerprint_text.encode() + b"\0" + b"".join(sorted(digests))
        self.fingerprint = hashlib.sha256(text).hexdigest()

    def check_apart(self, training: Samples, progress: Progress | None = None) -> None:
        """Refuse examples that the network was trained on.

        Args:
            training: the training samples.
            progress: called with (training examples compared, all of them).

        Raises:
            DataError: if any is a training example.
        """
        seen = sum(digest in self._digests for digest in set(_digests(training, progress)))
        if seen:
            raise DataError(
                f"{seen} of {len(self)} examples are among those that the network was trained on.",
                allowed="examples that training has not seen: on others, exits agree with the whole network more often",
                next_step="remove them, or collect others",
            )
        self.apart = True

    def name(self, position: int) -> str:
        """Return the path, of a row also the line."""
        return self._raw[position][0]

    def file(self, position: int) -> Any:
        """Return the raw example: the path, or what stands in the row."""
        return self._raw[position][1]

    def _example(self, position: int) -> Array:
        try:
            return super()._example(position)
        except DataError as error:
            # a folder has no recipe that could leave one out
            raise DataError(error.problem, allowed=error.allowed, next_step="repair or remove it") from error

    @staticmethod
    def _check_unique(digests: list[bytes], names: list[str]) -> None:
        """Refuse copies rather than drop them: which of them traffic really holds is not ours to guess."""
        twice = [row for row in range(1, len(digests)) if digests[row] == digests[row - 1]]
        if twice:
            pairs = "; ".join(f"{names[row - 1]} and {names[row]}" for row in twice[:_NAMED])
            raise DataError(
                f"{len(twice)} of {len(names)} examples are copies of another, as the network sees them: {pairs}"
                + (", ..." if len(twice) > _NAMED else "."),
                allowed="each example once: a copy is no further evidence, and a certificate would count it as one",
                next_step="remove all but one of each",
            )


def _digests(samples: Samples, progress: Progress | None) -> Iterator[bytes]:
    for rows in row_batches(len(samples), _BATCH):
        for example in samples.examples(rows):
            yield hashlib.sha256(example.tobytes()).digest()
        if progress:
            progress(int(rows[-1]) + 1, len(samples))
