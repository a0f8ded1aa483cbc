"""The contract of a precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx

from sdcompress.onnx_graph.resizes import is_interpolation

__all__ = ["PRODUCTS", "Feed", "FloatSegment", "Rewriter", "is_product"]

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def is_product(node: onnx.NodeProto) -> bool:
    """Return whether a node is a convolution or product of the network; the products of an interpolation are none."""
    return node.op_type in PRODUCTS and not is_interpolation(node)


Feed = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class FloatSegment:
    """A segment to be rewritten.

    Attributes:
        model: float32, checked, with inferred shapes, batch norm folded into convolutions; without the signals of its
            exit, which are appended again afterwards.
        output_layers: tensors from the last product with stored weights to the logits: the product's output, a bias
            that is added, and for ensembles of exits their log softmax and its mean. They are computed in float32.
        feeds: the segment's inputs for the calibration images, float32 [b, ...] by name, batch by batch. Each call
            starts again; a precision that needs no ranges does not call it.
        threads: of ONNX Runtime, if the precision runs the segment; 0 leaves the choice to it.
    """

    model: onnx.ModelProto
    output_layers: frozenset[str]
    feeds: Callable[[], Iterator[Feed]]
    threads: int = 1


class Rewriter(Protocol):
    """The one public name of a file in this folder; it is called for every segment.

    Rules:

    - inputs and outputs keep their names, shapes and float32;
    - tensors in ``segment.output_layers`` are float32 and not rounded, whatever their inputs were rounded to;
    - bilinear interpolation stays float32: of nodes that look like products only those of ``is_product`` are rounded;
    - a row of an output depends on the same row of the inputs only;
    - the same segment and the same feeds give the same bytes.
    """

    def __call__(self, segment: FloatSegment) -> onnx.ModelProto:
        """The segment in this precision; ``segment.model`` is not modified."""
