"""Write an exit policy's score as Python source, by recording the numpy ufuncs that it calls."""

from __future__ import annotations

from typing import Any

import numpy as np

from sdcompress.errors import UsageError
from sdcompress.policies._base import ExitPolicy, Signals
from sdcompress.policies._symbolic import Symbol, symbolic_score
from sdcompress.tasks import Task

__all__ = ["DECISION", "score_source"]

DECISION = "decision"  # key of the decision beside the names of the signals


def score_source(policy: ExitPolicy, exit_index: int, task: Task, name: str) -> tuple[str, frozenset[str]]:
    """Return a function that computes an exit's score to the same bit, and the keys of the signals that it reads.

    The function takes a list of the exits so far, each a mapping of the signals' names, and ``DECISION``, to arrays
    [rows]; with ``policy.history`` unset only the last one is read. It needs ``np``.

    Args:
        policy: with its fitted parameters.
        exit_index: of the exit.
        task: whose signals they are.
        name: of the function.

    Raises:
        UsageError: if the policy computes with anything but ufuncs of signals and numbers.
    """
    recorder = _Recorder(type(policy).__name__)
    exits = [recorder.signals(task, back) for back in range(-exit_index - 1, 0)]
    seen = exits if policy.history else exits[-1:]
    score = symbolic_score(policy, exit_index, seen, _Symbol, recorder.refused)
    body = "".join(f"    {line}\n" for line in [*recorder.lines, f"return {score.source}"])
    return f"def {name}(exits):\n{body}", frozenset(recorder.keys)


class _Symbol(Symbol):
    """An array [rows, ...] of the function, passed to the score in place of one."""

    def __init__(self, recorder: _Recorder, source: str, ndim: int, key: str = "") -> None:
        super().__init__(ndim)
        self.recorder, self._source, self._key = recorder, source, key

    @property
    def source(self) -> str:
        """Return the expression; what it reads is recorded."""
        if self._key:
            self.recorder.keys.add(self._key)
        return self._source

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> _Symbol:
        if method not in {"__call__", "reduce"} or options.keys() - {"axis"}:
            raise self.recorder.refused(f"it calls {ufunc.__name__} with {', '.join(options) or method}")
        if getattr(np, ufunc.__name__, None) is not ufunc:  # the program has no other module
            raise self.recorder.refused(f"{ufunc.__name__} is not numpy's")
        return self.recorder.call(ufunc, method, inputs, options)


class _Recorder:
    """Records calls on symbols as lines of source."""

    def __init__(self, policy: str) -> None:
        self.lines: list[str] = []
        self.keys: set[str] = set()
        self._policy = policy

    def signals(self, task: Task, back: int) -> Signals:
        """Return the signals of an exit as symbols; ``back`` counts from the last, -1."""

        def symbol(key: str, ndim: int) -> Any:
            return _Symbol(self, f"exits[{back}][{key!r}]", ndim, key)

        columns = {name: symbol(name, 1) for name in task.signal_names}
        return Signals(columns, symbol(DECISION, 1 + len(task.decision_shape)), task.resolution)

    def call(self, ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], options: dict[str, Any]) -> _Symbol:
        """Record a call of a ufunc and return its result."""
        arguments = [self._argument(value) for value in inputs]
        arguments += [f"{name}={value!r}" for name, value in options.items()]
        function = f"np.{ufunc.__name__}" + (".reduce" if method == "reduce" else "")
        self.lines.append(f"v{len(self.lines)} = {function}({', '.join(arguments)})")
        ndim = max(value.ndim for value in inputs if isinstance(value, _Symbol))
        if method == "reduce":
            axis = options.get("axis", 0)
            ndim -= len(axis) if isinstance(axis, tuple) else 1
        return _Symbol(self, f"v{len(self.lines) - 1}", ndim)

    def _argument(self, value: Any) -> str:
        if isinstance(value, _Symbol):
            return value.source
        if type(value) in {bool, int, float}:
            return repr(value)
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"a constant of the type {array.dtype}")
        return f"np.array({array.tolist()!r}, '{array.dtype.name}')"

    def refused(self, reason: str) -> UsageError:
        """Return the error for a policy that cannot be recorded."""
        return UsageError(
            f"The score of the exit policy {self._policy} cannot be written as a program: {reason}.",
            allowed="numpy's ufuncs of signals and numbers",
            next_step="write ExitPolicy.score with these, or calibrate with another --policy",
        )
