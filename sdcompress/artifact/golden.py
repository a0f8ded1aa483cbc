"""Golden samples: real examples with the checkpoint's outputs. Later steps are checked with them, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.npz import ANY, Expected, read_npz
from sdcompress.errors import ArtifactError
from sdcompress.untrusted import Refused

__all__ = ["MAX_BYTES", "MAX_SAMPLES", "Golden"]

Array = npt.NDArray[Any]

MAX_SAMPLES = 32
MAX_BYTES = 4 * 2**20

_ARRAYS = {"examples": ANY, "targets": ANY, "outputs": Expected("float32")}


@dataclass(frozen=True)
class Golden:
    """Examples, their targets, and the outputs of the checkpoint.

    Args:
        examples: [N, ...], as the modality collates them.
        targets: [N, ...], of the task.
        outputs: float32 [E, N, ...], the checkpoint's outputs at each exit of the artifact.
    """

    examples: Array
    targets: Array
    outputs: Array

    def capped(self) -> Golden:
        """Return at most 32 samples and 4 MiB of examples, evenly spread over these; at least one sample."""
        keep = max(1, min(len(self.targets), MAX_SAMPLES, MAX_BYTES // max(1, self.examples[0].nbytes)))
        chosen = np.linspace(0, len(self.targets) - 1, keep).round().astype(np.int64)
        return Golden(self.examples[chosen], self.targets[chosen], self.outputs[:, chosen])

    def save(self, path: Path) -> None:
        """Write the three arrays to an .npz. The same arrays give the same bytes."""
        np.savez(path, examples=self.examples, targets=self.targets, outputs=self.outputs)

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
        if min(self.examples.ndim, self.targets.ndim, self.outputs.ndim - 1) < 1:
            return "an array has no axis of samples"
        counts = (len(self.examples), len(self.targets), self.outputs.shape[1])
        return "" if len(set(counts)) == 1 and counts[0] else f"examples, targets and outputs count {counts} samples"


def _malformed(path: Path, why: str) -> ArtifactError:
    return ArtifactError(
        f"The golden samples '{path.name}' cannot be read: {why}.",
        allowed="numbers: examples [N, ...], targets [N, ...], and float32 outputs [E, N, ...]",
        next_step="copy or export the artifact again",
    )
