"""Golden samples: real examples with the checkpoint's outputs. Later steps are checked with them, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.npz import ANY, LIMIT, Expected, read_npz
from sdcompress.errors import ArtifactError, UsageError
from sdcompress.modalities import Modality
from sdcompress.untrusted import Refused

__all__ = ["MAX_BYTES", "MAX_SAMPLES", "Golden"]

Array = npt.NDArray[Any]

MAX_SAMPLES = 32
MAX_BYTES = 4 * 2**20

_OURS = {"targets": ANY, "outputs": Expected("float32")}


@dataclass(frozen=True)
class Golden:
    """Examples, their targets, and the outputs of the checkpoint.

    Args:
        examples: N of them, as the modality collates them.
        targets: [N, ...], of the task.
        outputs: float32 [E, N, ...], the checkpoint's outputs at each exit of the artifact.
    """

    examples: Any
    targets: Array
    outputs: Array

    def capped(self, modality: Modality) -> Golden:
        """Return at most 32 samples and 4 MiB of arrays, evenly spread over these; at least one sample.

        Raises:
            UsageError: if one sample is too large to be read again.
        """
        arrays = (*modality.pack(self.examples[:1]).values(), self.targets[:1], self.outputs[:, :1])
        nbytes = sum(array.nbytes for array in arrays)
        keep = max(1, min(len(self.targets), MAX_SAMPLES, MAX_BYTES // max(1, nbytes)))
        if nbytes > LIMIT // 2:
            raise UsageError(
                f"One golden sample has {nbytes / 2**20:.0f} MiB of examples, targets and outputs.",
                allowed=f"at most {LIMIT // 2**21} MiB, so that the artifact can be verified",
                next_step="train at a smaller size (modality.image_size), or keep fewer exits (--keep-exits)",
            )
        chosen = np.linspace(0, len(self.targets) - 1, keep).round().astype(np.int64)
        return Golden(self.examples[chosen], self.targets[chosen], self.outputs[:, chosen])

    def save(self, path: Path, modality: Modality) -> None:
        """Write the packed examples, the targets and the outputs to an .npz. The same arrays give the same bytes."""
        arrays: dict[str, Any] = {**modality.pack(self.examples), "targets": self.targets, "outputs": self.outputs}
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: Path, modality: Modality) -> Golden:
        """Read golden samples from an .npz. Nothing is unpickled.

        Raises:
            ArtifactError: if the file does not hold these arrays.
        """
        expected = {name: Expected(dtype, axes) for name, (dtype, axes) in modality.packed.items()}
        try:
            arrays = read_npz(path, {**expected, **_OURS})
        except (OSError, Refused) as error:
            raise _malformed(path, str(error)) from error
        if problem := _problem(arrays):
            raise _malformed(path, problem)
        packed = {name: arrays[name] for name in expected}
        return cls(modality.unpack(packed), arrays["targets"], arrays["outputs"])


def _problem(arrays: Mapping[str, Array]) -> str:
    shapes = {name: array.shape[1:] if name == "outputs" else array.shape for name, array in arrays.items()}
    if not all(shapes.values()):
        return "an array has no axis of samples"
    counts = {name: shape[0] for name, shape in shapes.items()}
    return "" if len(set(counts.values())) == 1 and min(counts.values()) else f"its arrays count {counts} samples"


def _malformed(path: Path, why: str) -> ArtifactError:
    return ArtifactError(
        f"The golden samples '{path.name}' cannot be read: {why}.",
        allowed="the arrays of the modality's examples, targets [N, ...], and float32 outputs [E, N, ...]",
        next_step="copy or export the artifact again",
    )
