"""Trace an exit policy's score into ONNX nodes by recording the numpy ufuncs that it calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from sdcompress.errors import UsageError
from sdcompress.onnx_graph.edit import NewNodes
from sdcompress.policies._base import ExitPolicy, Signals
from sdcompress.policies._symbolic import Symbol, symbolic_score
from sdcompress.schema.manifest import ExitSignals
from sdcompress.tasks import Task

__all__ = ["trace_score"]

_OPERATORS = {
    np.add: "Add",
    np.subtract: "Sub",
    np.multiply: "Mul",
    np.divide: "Div",
    np.negative: "Neg",
    np.absolute: "Abs",
    np.exp: "Exp",
    np.log: "Log",
    np.sqrt: "Sqrt",
    np.minimum: "Min",
    np.maximum: "Max",
    np.equal: "Equal",
    np.greater: "Greater",
    np.greater_equal: "GreaterOrEqual",
    np.less: "Less",
    np.less_equal: "LessOrEqual",
    np.logical_and: "And",
    np.logical_or: "Or",
    np.logical_not: "Not",
}
_LOGICAL = {np.logical_and, np.logical_or, np.logical_not}
_COMPARISONS = {np.equal, np.greater, np.greater_equal, np.less, np.less_equal}
_NUMBERS = {np.dtype(kind) for kind in (np.int64, np.float32, np.float64)}
_AXES_ARE_AN_INPUT = 18  # the first opset, of ReduceMax and ReduceMin
_BOOL, _INT64 = np.dtype(np.bool_), np.dtype(np.int64)


def trace_score(
    policy: ExitPolicy, exit_: int, signals: Sequence[ExitSignals], task: Task, prefix: str, *, opset: int
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], str]:
    """Return the nodes that compute an exit's score, their constants, and the name of the score, float32 [batch].

    Args:
        policy: with its fitted parameters.
        exit_: the exit's position.
        signals: names of the signals of the exits so far, the last of them this exit's; as ``ExitPolicy.score`` has it.
        task: whose signals they are.
        prefix: of all new names.
        opset: of the graph.

    Raises:
        UsageError: if the policy computes with anything but ``_OPERATORS``.
    """
    trace = _Trace(type(policy).__name__, task, prefix, opset)
    exits = [trace.columns(exit_signals) for exit_signals in signals]
    score = symbolic_score(policy, exit_, exits, _Symbol, trace.refused)
    name = trace.cast(score, np.dtype(np.float32))
    return trace.new.nodes, trace.new.constants, name


class _Symbol(Symbol):
    """A tensor [batch, ...] of the graph, passed to the score in place of an array."""

    def __init__(self, trace: _Trace, name: str, dtype: np.dtype[Any], ndim: int = 1) -> None:
        super().__init__(ndim)
        self.trace, self.name, self.dtype = trace, name, dtype

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> _Symbol:
        if method == "reduce" and options == {"axis": tuple(range(1, self.ndim))}:
            if ufunc is np.logical_and:
                return self.trace.all_of_each(self)
            if ufunc is np.maximum:
                return self.trace.largest_of_each(self)
        if method != "__call__" or options:
            raise self.trace.refused(f"it calls {ufunc.__name__} with {', '.join(options) or method}")
        return self.trace.apply(ufunc, inputs)


class _Trace:
    """Records the operations on symbols as nodes, with the types that numpy would compute in."""

    def __init__(self, policy: str, task: Task, prefix: str, opset: int) -> None:
        self.new = NewNodes(prefix)
        self._policy, self._task, self._opset = policy, task, opset

    def columns(self, names: ExitSignals) -> Signals:
        """Return an exit's signals as symbols."""
        columns: dict[str, Any] = {
            name: _Symbol(self, self.new.node("Gather", names.values, self.new.constant(at), axis=1), np.dtype("f4"))
            for at, name in enumerate(self._task.signal_names)
        }
        task = self._task
        decision: Any = _Symbol(self, names.decision, task.decision_dtype, 1 + len(task.decision_shape))
        return Signals(columns, decision, task.resolution)

    def largest_of_each(self, numbers: _Symbol) -> _Symbol:
        """The largest number of each row of float32 [batch, ...], float32 [batch]."""
        rows = self.new.node("Flatten", numbers.name, axis=1)
        return _Symbol(self, self._reduced("ReduceMax", rows), numbers.dtype)

    def all_of_each(self, flags: _Symbol) -> _Symbol:
        """Whether all flags of each row are set: of bool [batch, ...] those of one row, bool [batch]."""
        rows = self.new.node("Flatten", self.cast(flags, _INT64), axis=1)
        return _Symbol(self, self.new.node("Cast", self._reduced("ReduceMin", rows), to=TensorProto.BOOL), _BOOL)

    def _reduced(self, operator: str, rows: str) -> str:
        """Reduce a tensor [batch, n] to [batch]; the axes are an attribute before they are an input."""
        if self._opset < _AXES_ARE_AN_INPUT:
            return self.new.node(operator, rows, axes=[1], keepdims=0)
        return self.new.node(operator, rows, self.new.constant([1]), keepdims=0)

    def apply(self, ufunc: np.ufunc, inputs: Sequence[Any]) -> _Symbol:
        """Return the result of a ufunc, as numpy would have it."""
        if ufunc not in _OPERATORS:
            raise self.refused(f"it uses numpy's {ufunc.__name__}")
        kinds = [_kind(value, self._task.resolution) for value in inputs]
        *loop, result = ufunc.resolve_dtypes((*kinds, None))
        ranks = {value.ndim for value in inputs if isinstance(value, _Symbol)}
        if len(ranks) > 1:
            raise self.refused(f"it uses numpy's {ufunc.__name__} of {' and '.join(map(str, sorted(ranks)))} axes")
        input_dtypes = [_BOOL] * len(loop) if ufunc in _LOGICAL else loop
        if ufunc in _COMPARISONS:  # runtimes do not compare small integers
            input_dtypes = [_INT64 if np.can_cast(dtype, _INT64) else dtype for dtype in loop]
        # numpy's add of two booleans is an "or"; a policy that counts them must multiply them by 1 first
        if not set(input_dtypes) <= (_NUMBERS if ufunc not in _LOGICAL else {_BOOL}):
            raise self.refused(f"it uses numpy's {ufunc.__name__} of {', '.join(map(str, loop))}")
        return _Symbol(self, self.new.node(_OPERATORS[ufunc], *map(self.cast, inputs, input_dtypes)), result, *ranks)

    def cast(self, value: Any, dtype: np.dtype[Any]) -> str:
        """Return the name of a symbol or a constant, converted to a type."""
        if not isinstance(value, _Symbol):
            return self.new.constant(value, dtype)
        if value.dtype == dtype:
            return value.name
        return self.new.node("Cast", value.name, to=helper.np_dtype_to_tensor_dtype(dtype))

    def refused(self, reason: str) -> UsageError:
        """Return the error for a policy that cannot be recorded."""
        return UsageError(
            f"The score of the exit policy {self._policy} cannot be put into a graph: {reason}.",
            allowed=f"numpy's {', '.join(ufunc.__name__ for ufunc in _OPERATORS)} of signals and numbers",
            next_step="write ExitPolicy.score with these, or calibrate with another --policy",
        )


def _kind(value: Any, resolution: Any) -> Any:
    """What numpy resolves dtypes by; Python's numbers have no dtype of their own."""
    if isinstance(value, _Symbol):
        return value.dtype
    if type(value) in {int, float}:
        return type(value)
    array = np.asarray(value)
    if array.ndim and not np.array_equal(array, resolution):
        raise TypeError(f"an array of shape {array.shape} among the constants")
    return array.dtype
