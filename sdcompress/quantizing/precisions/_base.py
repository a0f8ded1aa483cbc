"""The contract of a precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx

__all__ = ["PRODUCTS", "Feed", "FloatSegment", "Precision"]

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

Feed = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class FloatSegment:
    """A segment to be rewritten.

    Attributes:
        model: float32, checked, with inferred shapes, batch norm folded into convolutions; without the signals of its
            exit, which are appended again afterwards.
        tail: tensors from the last product with stored weights on to the logits: the product's own, a bias that is
            added, for exits that hear each other their log softmax and its mean. They are computed in float32.
        feeds: the segment's inputs for the calibration images, float32 [b, ...] by name, batch by batch: training
            images as the float32 chain hands them on. Each call starts again; a precision that needs no ranges does
            not call it.
        threads: of ONNX Runtime, for what a precision runs; 0 leaves the choice to it.
    """

    model: onnx.ModelProto
    tail: frozenset[str]
    feeds: Callable[[], Iterator[Feed]]
    threads: int = 1


class Precision(Protocol):
    """The one public name of a file in this folder, which is called for every segment.

    To obey:

    - inputs and outputs keep their names, shapes and float32: what is between segments, and the signals, never changes;
    - what is in ``segment.tail`` is computed in float32, whatever its inputs were rounded to;
    - a row of an output depends on the same row of the inputs only;
    - the same segment and the same feeds give the same bytes.
    """

    def __call__(self, segment: FloatSegment) -> onnx.ModelProto:
        """The segment in this precision; ``segment.model`` is left as it is."""
