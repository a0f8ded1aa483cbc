"""The evidence of a certificate: what every exit did on the samples that were tested, without images or labels."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress.errors import ArtifactError

__all__ = ["EVIDENCE", "Evidence"]

EVIDENCE = "certificate.npz"


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
            with np.load(path, allow_pickle=False) as arrays:
                optional = {name: arrays.get(name) for name in ("labels", "against", "shape_confidences")}
                evidence = cls(arrays["confidences"], arrays["right"], **optional)
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise _malformed(path, str(error)) from error
        if wrong := evidence._problem():
            raise _malformed(path, wrong)
        return evidence

    def _problem(self) -> str:
        arrays: tuple[tuple[str, npt.NDArray[Any], str], ...] = (
            ("confidences", self.confidences, "float32"),
            ("right", self.right, "uint8"),
        )
        for name, array, dtype in arrays:
            if array.dtype != dtype or array.ndim != 2:
                return f"'{name}' is {array.dtype} {list(array.shape)}, not {dtype} of 2 axes"
        if self.right.size and self.right.max() > 1:
            return "'right' holds other numbers than 0 and 1"
        if self.labels is not None and (self.labels.dtype != "int32" or self.labels.shape != self.right.shape[1:]):
            return f"'labels' is {self.labels.dtype} {list(self.labels.shape)}, not int32 of one for each sample"
        shape = self.shape_confidences
        if shape is not None and (shape.dtype != "float32" or shape.ndim != 2 or len(shape) != len(self.confidences)):
            return f"'shape_confidences' is {shape.dtype} {list(shape.shape)}, not float32 [E-1, M]"
        other = self.against
        if other is not None and (
            other.dtype != "uint8" or other.shape != self.right.shape[1:] or other.max(initial=0) > 1
        ):
            return f"'against' is {other.dtype} {list(other.shape)}, not uint8, 0 or 1 for each sample"
        return ""


def _malformed(path: Path, why: str) -> ArtifactError:
    return ArtifactError(
        f"The certificate's evidence '{path.name}' cannot be read: {why}.",
        allowed="confidences float32 [E-1, N], right uint8 [E, N], optionally labels int32 [N], against uint8 [N], "
        "shape_confidences float32 [E-1, M]",
        next_step="copy the artifact again, or calibrate it again",
    )
