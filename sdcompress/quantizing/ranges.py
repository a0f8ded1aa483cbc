"""Measure the ranges of activations, and put the largest absolute value of a tensor into a graph."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdcompress.onnx_graph.cpu_session import cpu_session
from sdcompress.onnx_graph.edit import copy_model
from sdcompress.quantizing.precisions._base import Feed

__all__ = ["GROUP", "Range", "Ranges", "abs_max", "abs_max_name", "expected_maximum", "measure_ranges", "with_abs_max"]

_ZERO = "largest/nothing"


def abs_max(
    model: onnx.ModelProto, names: Collection[str], feeds: Iterable[Feed], *, threads: int = 1
) -> dict[str, float]:
    """Return the largest finite absolute value of each tensor over all batches.

    Args:
        model: float32; it runs with ONNX Runtime's optimisations.
        names: of tensors in it.
        feeds: its inputs, batch by batch; at least one.
        threads: of ONNX Runtime; 0 leaves the choice to it.
    """
    session = cpu_session(with_abs_max(model, names).SerializeToString(), threads=threads)
    sorted_names = sorted(names)
    outputs = [abs_max_name(name) for name in sorted_names]
    batches = [[float(value) for value in session.run(outputs, feed)] for feed in feeds]
    return dict(zip(sorted_names, map(max, zip(*batches, strict=True)), strict=True))


def abs_max_name(name: str) -> str:
    """Return the output of ``with_abs_max`` that belongs to a tensor."""
    return f"{name}/largest"


def with_abs_max(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """Return a copy with the largest finite absolute value of each of these tensors as further outputs, float32 []."""
    extended = copy_model(model)
    extended.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), _ZERO))
    for name in sorted(names):
        absolute, infinite, finite = (f"{name}/{suffix}" for suffix in ("absolute", "infinite", "finite"))
        extended.graph.node.extend(
            [
                helper.make_node("Abs", [name], [absolute]),
                helper.make_node("IsInf", [absolute], [infinite]),
                helper.make_node("Where", [infinite, _ZERO, absolute], [finite]),
                helper.make_node("ReduceMax", [finite], [abs_max_name(name)], keepdims=0),
            ]
        )
        extended.graph.output.append(helper.make_tensor_value_info(abs_max_name(name), TensorProto.FLOAT, []))
    return extended


GROUP = 32

Range = tuple[float, float]

_FARTHEST = float(np.finfo(np.float32).max)
_FILL = 1e30  # transformers masks attention by the lowest number of float32, and adds scores to it
_SMALLEST, _LARGEST = "/smallest", "/largest"


@dataclass(frozen=True)
class Ranges:
    """The ranges of tensors on the calibration images.

    Attributes:
        extremes: for each tensor the expected smallest and largest finite value among ``GROUP`` images drawn at random.
            The extremes of all images would spend most codes on a few outliers.
        infinite: tensors with an infinity, or a number beyond 1e30, on some image: the scores of masked attention.
        fills: names of Pad nodes whose constant only a MaxPool reads and never returns.
    """

    extremes: dict[str, Range]
    infinite: frozenset[str]
    fills: frozenset[str]


def measure_ranges(model: onnx.ModelProto, names: Collection[str], feeds: Iterable[Feed], *, threads: int) -> Ranges:
    """Return the ranges of tensors over all images.

    Args:
        model: float32, with named nodes; it runs on one image at a time.
        names: of float32 tensors that it computes or that are its inputs.
        feeds: its inputs, batch by batch, the batch axis first; at least one image.
        threads: of ONNX Runtime; 0 leaves the choice to it.
    """
    sorted_names = sorted(names)
    raw = _Reductions(model, sorted_names, threads)
    finite: _Reductions | None = None  # seldom needed
    images: list[npt.NDArray[np.float64]] = []
    infinite: set[str] = set()
    for image in _one_by_one(feeds):
        extremes_of_image = raw(image)
        filled = (np.abs(extremes_of_image) >= _FILL).any(axis=1)
        if filled.any():
            infinite.update(np.array(sorted_names)[filled].tolist())
            finite = finite or _Reductions(model, sorted_names, threads, finite=True)
            extremes_of_image = finite(image)
        images.append(extremes_of_image)
    values = np.stack(images, axis=1)  # [T, N, 2]
    extremes = {name: _range(*per_image.T) for name, per_image in zip(sorted_names, values, strict=True)}
    fills = {
        node.name
        for node, value in _constant_pads(model.graph)
        if node.input[0] in extremes and value <= extremes[node.input[0]][0]
    }
    return Ranges(extremes, frozenset(infinite), frozenset(fills))


def expected_maximum(values: npt.NDArray[np.float64], group: int) -> float:
    """Return the expected maximum of ``group`` values that are drawn without replacement.

    The k-th smallest of N values is the largest of C(k-1, group-1) of the C(N, group) groups.

    Args:
        values: float64 [N], N at least 1.
        group: at least 1; where N is smaller, the result is the largest.
    """
    ordered = np.sort(values)[::-1]
    group = min(group, len(ordered))
    weight, total = group / len(ordered), 0.0
    for position, value in enumerate(ordered[: len(ordered) - group + 1]):
        total += weight * float(value)
        rank = len(ordered) - position
        weight *= (rank - group) / max(rank - 1, 1)
    return total


def _range(lows: npt.NDArray[np.float64], highs: npt.NDArray[np.float64]) -> Range:
    """The range of a tensor from the extremes of each image; (0, 0) where no image has a finite value."""
    finite = (lows <= highs) & np.isfinite(lows) & np.isfinite(highs)
    if not finite.any():
        return 0.0, 0.0
    return -expected_maximum(-lows[finite], GROUP), expected_maximum(highs[finite], GROUP)


def _one_by_one(feeds: Iterable[Feed]) -> Iterator[Feed]:
    for feed in feeds:
        for row in range(len(next(iter(feed.values())))):
            yield {name: tensor[row : row + 1] for name, tensor in feed.items()}


def _constant_pads(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, float]]:
    """Each Pad with a stored constant that only MaxPool nodes read, and the constant."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        if node.op_type != "Pad" or len(node.input) < 3 or node.input[2] not in stored:
            continue
        if any(attribute.name == "mode" and attribute.s != b"constant" for attribute in node.attribute):
            continue
        readers = {reader.op_type for reader in graph.node if node.output[0] in reader.input}
        if readers == {"MaxPool"} and node.output[0] not in outputs:
            yield node, float(numpy_helper.to_array(stored[node.input[2]]).item())


class _Reductions:
    """Computes the smallest and the largest value of each tensor, [T, 2], for one feed.

    Args:
        model: with the tensors.
        names: T names.
        threads: of ONNX Runtime.
        finite: skip infinities and fills; where nothing is left, the smallest is above the largest.
    """

    def __init__(self, model: onnx.ModelProto, names: list[str], threads: int, *, finite: bool = False) -> None:
        extended = copy_model(model)
        graph = extended.graph
        for name in names:
            for operator, ending, replaced in (
                ("ReduceMin", _SMALLEST, _FARTHEST),
                ("ReduceMax", _LARGEST, -_FARTHEST),
            ):
                result, source = f"{name}{ending}", name
                if finite:
                    source = f"{result}/finite"
                    graph.initializer.append(numpy_helper.from_array(np.float32(replaced), f"{result}/replaced"))
                    graph.initializer.append(numpy_helper.from_array(np.float32(_FILL), f"{result}/fill"))
                    graph.node.append(helper.make_node("Abs", [name], [f"{result}/absolute"]))
                    compared = [f"{result}/absolute", f"{result}/fill"]
                    graph.node.append(helper.make_node("GreaterOrEqual", compared, [f"{result}/infinite"]))
                    chosen = [f"{result}/infinite", f"{result}/replaced", name]
                    graph.node.append(helper.make_node("Where", chosen, [source]))
                graph.node.append(helper.make_node(operator, [source], [result], keepdims=0))
                graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, []))
        self._session = cpu_session(extended.SerializeToString(), threads=threads)
        self._outputs = [f"{name}{ending}" for name in names for ending in (_SMALLEST, _LARGEST)]

    def __call__(self, feed: Feed) -> npt.NDArray[np.float64]:
        return np.array(self._session.run(self._outputs, feed), np.float64).reshape(-1, 2)
