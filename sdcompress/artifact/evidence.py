"""The evidence of a certificate: what every exit did on the samples that were tested, without images or labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.npz import Expected, read_npz
from sdcompress.errors import ArtifactError
from sdcompress.untrusted import Refused

__all__ = ["EVIDENCE", "Evidence"]

EVIDENCE = "certificate.npz"

_ARRAYS = {
    "confidences": Expected("float32", 2),
    "right": Expected("uint8", 2),
    "labels": Expected("int32", 1, optional=True),
    "against": Expected("uint8", 1, optional=True),
    "shape_confidences": Expected("float32", 2, optional=True),
}


@dataclass(frozen=True)
class Evidence:
    """Enough to compute the losses of any thresholds again, in the order in which they were tested.

    Attributes:
        confidences: float32 [E-1, N], of all exits but the last.
        right: uint8 [E, N], 0 or 1: whether each exit's answer is the label; for disagreement, the last exit's answer.
        labels: int32 [N], the class of each sample; only where the bounds hold in every class.
        against: uint8 [N], 0 or 1: whether the answer of another network is right; only where that is what is measured
            against. For disagreement it is right by definition, and ``right`` says who agrees with it.
        shape_confidences: float32 [E-1, M], of the samples that shaped the path: every threshold on it is one of them.
            None: made by a version that did not keep them.
    """

    confidences: npt.NDArray[np.float32]
    right: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32] | None = None
    against: npt.NDArray[np.uint8] | None = None
    shape_confidences: npt.NDArray[np.float32] | None = None

    @property
    def reference(self) -> npt.NDArray[np.uint8]:
        """What the exits are measured against, uint8 [N]: the other network, else the last exit."""
        return self.right[-1] if self.against is None else self.against

    def save(self, path: Path) -> None:
        """Write an .npz of the arrays that there are; the same arrays give the same bytes."""
        optional = {"labels": self.labels, "against": self.against, "shape_confidences": self.shape_confidences}
        there: dict[str, Any] = {name: array for name, array in optional.items() if array is not None}
        np.savez(path, confidences=self.confidences, right=self.right, **there)

    @classmethod
    def load(cls, path: Path) -> Evidence:
        """Read evidence; nothing is unpickled.

        Raises:
            ArtifactError: if the file does not hold the arrays.
        """
        try:
            evidence = cls(**read_npz(path, _ARRAYS))
        except (OSError, Refused) as error:
            raise _malformed(path, str(error)) from error
        if wrong := evidence._problem():
            raise _malformed(path, wrong)
        return evidence

    def _problem(self) -> str:
        samples = self.right.shape[1:]
        for name, array in (("labels", self.labels), ("against", self.against)):
            if array is not None and array.shape != samples:
                return f"'{name}' has the shape {list(array.shape)}, not one value for each of {samples[0]} samples"
        for name, array in (("right", self.right), ("against", self.against)):
            if array is not None and array.max(initial=0) > 1:
                return f"'{name}' holds other numbers than 0 and 1"
        tuning = self.shape_confidences
        if tuning is not None and len(tuning) != len(self.confidences):
            return f"'shape_confidences' has the shape {list(tuning.shape)}, not [{len(self.confidences)}, M]"
        return ""


def _malformed(path: Path, why: str) -> ArtifactError:
    return ArtifactError(
        f"The certificate's evidence '{path.name}' cannot be read: {why}.",
        allowed="confidences float32 [E-1, N], right uint8 [E, N], optionally labels int32 [N], against uint8 [N], "
        "shape_confidences float32 [E-1, M]",
        next_step="copy the artifact again, or calibrate it again",
    )
