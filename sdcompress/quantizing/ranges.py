"""The range of every activation on the calibration images, which 8-bit codes are spread over.

Measured image by image, so that neither the order of the images nor the size of a batch changes a range.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from sdcompress.quantizing.precisions._base import Feed

__all__ = ["GROUP", "Range", "Ranges", "expected_largest", "measured"]

GROUP = 32

Range = tuple[float, float]

_FARTHEST = float(np.finfo(np.float32).max)
_SMALLEST, _LARGEST = "/smallest", "/largest"


@dataclass(frozen=True)
class Ranges:
    """What tensors hold on the calibration images.

    Attributes:
        extremes: for each tensor the smallest and the largest finite value that are expected among ``GROUP`` images
            drawn at random. The extremes of all images would leave most codes to a few outliers.
        infinite: tensors that hold an infinity on some image, such as the scores of masked attention.
        fills: names of Pad nodes whose constant is no data: only maxima are taken of it, and it is never one.
    """

    extremes: dict[str, Range]
    infinite: frozenset[str]
    fills: frozenset[str]


def measured(model: onnx.ModelProto, names: Collection[str], feeds: Iterable[Feed], *, threads: int) -> Ranges:
    """The ranges of tensors over all images.

    Args:
        model: float32, with named nodes; it is run on one image at a time.
        names: of float32 tensors that it computes or is given.
        feeds: its inputs, batch by batch, the batch axis first; at least one image.
        threads: of ONNX Runtime; 0 leaves the choice to it.
    """
    wanted = sorted(names)
    raw = _Reductions(model, wanted, threads)
    finite: _Reductions | None = None  # seldom needed
    images: list[npt.NDArray[np.float64]] = []
    infinite: set[str] = set()
    for image in _one_by_one(feeds):
        found = raw(image)
        if np.isinf(found).any():
            infinite.update(np.array(wanted)[np.isinf(found).any(axis=1)].tolist())
            finite = finite or _Reductions(model, wanted, threads, finite=True)
            found = finite(image)
        images.append(found)
    values = np.stack(images, axis=1)  # [T, N, 2]
    extremes = {name: _range(*each.T) for name, each in zip(wanted, values, strict=True)}
    fills = {
        node.name
        for node, value in _constant_pads(model.graph)
        if node.input[0] in extremes and value <= extremes[node.input[0]][0]
    }
    return Ranges(extremes, frozenset(infinite), frozenset(fills))


def expected_largest(values: npt.NDArray[np.float64], group: int) -> float:
    """The mean of the largest value over all groups of so many values, drawn without replacement.

    The k-th smallest of N values is the largest of C(k-1, group-1) of the C(N, group) groups.

    Args:
        values: float64 [N], N at least 1.
        group: at least 1; where N is smaller, the result is the largest.
    """
    ordered = np.sort(values)[::-1]
    group = min(group, len(ordered))
    weight, total = group / len(ordered), 0.0
    for place, value in enumerate(ordered[: len(ordered) - group + 1]):
        total += weight * float(value)
        rank = len(ordered) - place
        weight *= (rank - group) / max(rank - 1, 1)
    return total


def _range(lows: npt.NDArray[np.float64], highs: npt.NDArray[np.float64]) -> Range:
    """Smallest and largest of a tensor, of those of each image; (0, 0) where no image has a finite value."""
    there = (lows <= highs) & np.isfinite(lows) & np.isfinite(highs)
    if not there.any():
        return 0.0, 0.0
    return -expected_largest(-lows[there], GROUP), expected_largest(highs[there], GROUP)


def _one_by_one(feeds: Iterable[Feed]) -> Iterator[Feed]:
    for feed in feeds:
        for row in range(len(next(iter(feed.values())))):
            yield {name: tensor[row : row + 1] for name, tensor in feed.items()}


def _constant_pads(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, float]]:
    """Each Pad with a stored constant that only MaxPool reads, and its constant."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    ends = {value.name for value in graph.output}
    for node in graph.node:
        if node.op_type != "Pad" or len(node.input) < 3 or node.input[2] not in stored:
            continue
        if any(each.name == "mode" and each.s != b"constant" for each in node.attribute):
            continue
        readers = {other.op_type for other in graph.node if node.output[0] in other.input}
        if readers == {"MaxPool"} and node.output[0] not in ends:
            yield node, float(numpy_helper.to_array(stored[node.input[2]]).item())


class _Reductions:
    """Gives the smallest and the largest value of each tensor, [T, 2], for one feed.

    Args:
        model: what computes the tensors.
        names: T names.
        threads: of ONNX Runtime.
        finite: leave infinities out; where there is nothing else, the smallest is above the largest.
    """

    def __init__(self, model: onnx.ModelProto, names: list[str], threads: int, *, finite: bool = False) -> None:
        extended = onnx.ModelProto()
        extended.CopyFrom(model)
        graph = extended.graph
        for name in names:
            for operator, ending, replaced in (
                ("ReduceMin", _SMALLEST, _FARTHEST),
                ("ReduceMax", _LARGEST, -_FARTHEST),
            ):
                result, given = f"{name}{ending}", name
                if finite:
                    given = f"{result}/finite"
                    graph.initializer.append(numpy_helper.from_array(np.float32(replaced), f"{result}/replaced"))
                    graph.node.append(helper.make_node("IsInf", [name], [f"{result}/infinite"]))
                    chosen = [f"{result}/infinite", f"{result}/replaced", name]
                    graph.node.append(helper.make_node("Where", chosen, [given]))
                graph.node.append(helper.make_node(operator, [given], [result], keepdims=0))
                graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, []))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors: warnings are for authors of graphs
        graphs = extended.SerializeToString()
        self._session = onnxruntime.InferenceSession(graphs, options, providers=["CPUExecutionProvider"])
        self._outputs = [f"{name}{ending}" for name in names for ending in (_SMALLEST, _LARGEST)]

    def __call__(self, feed: Feed) -> npt.NDArray[np.float64]:
        return np.array(self._session.run(self._outputs, feed), np.float64).reshape(-1, 2)
