"""Golden samples: real images with the logits of the checkpoint. Later steps are checked with them, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdcompress.artifact.npz import Expected, read_npz
from sdcompress.errors import ArtifactError
from sdcompress.untrusted import Refused

__all__ = ["MAX_BYTES", "MAX_SAMPLES", "Golden"]

MAX_SAMPLES = 32
MAX_BYTES = 4 * 2**20

_ARRAYS = {"images": Expected("uint8", 4), "labels": Expected("int64", 1), "logits": Expected("float32", 3)}


@dataclass(frozen=True)
class Golden:
    """Images, their labels, and the logits of the checkpoint.

    Args:
        images: uint8 [N, H, W, C], at the network's geometry (after resize and crop).
        labels: int64 [N].
        logits: float32 [E, N, K], the checkpoint's logits at each exit of the artifact.
    """

    images: np.ndarray
    labels: np.ndarray
    logits: np.ndarray

    def capped(self) -> Golden:
        """Return at most 32 samples and 4 MiB of pixels, evenly spread over these; at least one sample."""
        keep = max(1, min(len(self.labels), MAX_SAMPLES, MAX_BYTES // self.images[0].nbytes))
        chosen = np.linspace(0, len(self.labels) - 1, keep).round().astype(np.int64)
        return Golden(self.images[chosen], self.labels[chosen], self.logits[:, chosen])

    def save(self, path: Path) -> None:
        """Write the three arrays to an .npz. The same arrays give the same bytes."""
        np.savez(path, images=self.images, labels=self.labels, logits=self.logits)

    @classmethod
    def load(cls, path: Path) -> Golden:
        """Read golden samples from an .npz. Nothing is unpickled.

        Raises:
            ArtifactError: if the file does not hold the three arrays.
        """
        try:
            golden = cls(**read_npz(path, _ARRAYS))
        except (OSError, Refused) as error:
            raise _malformed(path, str(error)) from error
        wrong = golden._problem()
        if wrong:
            raise _malformed(path, wrong)
        return golden

    def _problem(self) -> str:
        counts = (len(self.images), len(self.labels), self.logits.shape[1])
        return "" if len(set(counts)) == 1 and counts[0] else f"images, labels and logits count {counts} samples"


def _malformed(path: Path, why: str) -> ArtifactError:
    return ArtifactError(
        f"The golden samples '{path.name}' cannot be read: {why}.",
        allowed="images uint8 [N, H, W, C], labels int64 [N], logits float32 [E, N, K]",
        next_step="copy or export the artifact again",
    )
