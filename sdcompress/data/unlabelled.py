"""Images of a user's own without labels, such as production traffic: a folder of files, no data set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from sdcompress.data.samples import Images, Samples
from sdcompress.data.sources._listing import Skipped, picture_files
from sdcompress.data.sources._photos import DecodedSamples
from sdcompress.errors import DataError
from sdcompress.schema.manifest import Preprocess

__all__ = ["UnlabelledImages"]

Progress = Callable[[int, int], None]
_BATCH = 256
_NAMED = 3  # files or pairs that an error names


class UnlabelledImages(DecodedSamples):
    """The images below a folder, each once, in the order of their content: a file's name decides nothing.

    All are read when it is made, so that a broken one is found before anything runs. What is compared is pixels past
    the geometry of the preprocessing, which are what the network sees, whatever the file's format.

    Args:
        folder: searched with the folders in it, links followed; hidden ones are passed over.
        preprocess: of the artifact.
        shape: height, width and channels that its network takes.
        progress: called with (images read, all images).

    Attributes:
        fingerprint: SHA-256 over the preprocessing and the images' content, in hexadecimal.
        apart: whether they were compared with the training images, and none of them is one.

    Raises:
        DataError: if there is no image, one cannot be decoded, has another size, or is there twice.
    """

    def __init__(
        self,
        folder: Path,
        preprocess: Preprocess,
        shape: tuple[int, int, int],
        progress: Progress | None = None,
    ) -> None:
        self._preprocess, self._shape = preprocess, shape
        passed = Skipped()
        self._paths = picture_files(folder, passed) if folder.is_dir() else []
        if not self._paths:
            raise DataError(
                f"{folder} {'holds no image' if folder.is_dir() else 'is not a folder'}.",
                allowed="a folder with image files, also in folders of their own",
                next_step="name the folder that holds the images: --images FOLDER",
            )
        passed.warn(folder)
        self._labels = np.full(len(self._paths), -1, np.int64)
        digests = list(_digests(self, progress))
        order = sorted(range(len(digests)), key=digests.__getitem__)
        self._check_unique([digests[row] for row in order], [self._paths[row] for row in order])
        self._paths = [self._paths[row] for row in order]
        self._digests, self.apart = frozenset(digests), False
        text = preprocess.model_dump_json().encode() + b"\0" + b"".join(sorted(digests))
        self.fingerprint = hashlib.sha256(text).hexdigest()

    def check_apart(self, training: Samples, progress: Progress | None = None) -> None:
        """Refuse images that the network was trained on.

        Args:
            training: the training images, past the same geometry.
            progress: called with (training images compared, all of them).

        Raises:
            DataError: if the pixels of any are those of a training image.
        """
        seen = sum(digest in self._digests for digest in set(_digests(training, progress)))
        if seen:
            raise DataError(
                f"{seen} of {len(self)} images are among the images that the network was trained on.",
                allowed="images that training has not seen: on others, exits agree with the whole network more often",
                next_step="remove them, or collect others",
            )
        self.apart = True

    def name(self, position: int) -> str:
        """The path."""
        return str(self._paths[position])

    def file(self, position: int) -> Path:
        """The path."""
        return self._paths[position]

    def _image(self, position: int) -> Images:
        path = self._paths[position]
        try:
            image = super()._image(position)
        except DataError as error:
            # a folder of images has no recipe that could leave one out
            raise DataError(error.found, allowed=error.allowed, next_step="repair or remove the file") from error
        if image.shape != self._shape:
            raise DataError(
                f"The image {path} has {'x'.join(map(str, image.shape))} (height x width x channels).",
                allowed=f"{'x'.join(map(str, self._shape))}: the artifact resizes nothing",
                next_step="resize the images as the training images were",
            )
        return image

    @staticmethod
    def _check_unique(digests: list[bytes], paths: list[Path]) -> None:
        """Refuse copies rather than drop them: which of them traffic really holds is not ours to guess."""
        twice = [row for row in range(1, len(digests)) if digests[row] == digests[row - 1]]
        if twice:
            pairs = "; ".join(f"{paths[row - 1]} and {paths[row]}" for row in twice[:_NAMED])
            raise DataError(
                f"{len(twice)} of {len(paths)} images are copies of another, to the pixel: {pairs}"
                + (", ..." if len(twice) > _NAMED else "."),
                allowed="each image once: a copy is no further evidence, and a certificate would count it as one",
                next_step="remove all but one of each",
            )


def _digests(samples: Samples, progress: Progress | None) -> Iterator[bytes]:
    for start in range(0, len(samples), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(samples)))
        for image in samples.examples(rows):
            yield hashlib.sha256(image.tobytes()).digest()
        if progress:
            progress(int(rows[-1]) + 1, len(samples))
