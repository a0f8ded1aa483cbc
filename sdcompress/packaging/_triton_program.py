"""Write model.py, the program that lets samples exit early over the segments, for Triton's python backend."""

from __future__ import annotations

import re
import shlex
from importlib.resources import files
from typing import Any

from sdcompress.artifact.read import Artifact
from sdcompress.errors import UsageError
from sdcompress.packaging._score_source import DECISION, score_source
from sdcompress.policies import restore
from sdcompress.policies._base import ExitPolicy
from sdcompress.schema.graphs import EXIT_INDEX, Tensor
from sdcompress.schema.manifest import Exit, Manifest, Policy

__all__ = ["CANDIDATES", "EXIT_INDEX_TENSOR", "cascade_program"]

CANDIDATES = 1024
"""Sequences that Triton may join, and so the most that the program has to remember; further ones wait."""

EXIT_INDEX_TENSOR = Tensor(name=EXIT_INDEX, dtype="int64", shape=("batch", 1))


def cascade_program(artifact: Artifact, models: tuple[str, ...], *, stepwise: bool) -> str:
    """Return the source of model.py; it gives ``outputs`` [rows, ...] and ``exit_index`` int64 [rows, 1].

    Scores are computed as the engine computes them: of the signals in the graphs where they hold for the exit's
    temperature, else of those that the task's card code computes.

    Args:
        artifact: a cascade with a policy.
        models: names of the models of its segments, in order.
        stepwise: for an iterative sequence, which Triton calls once for each segment.

    Raises:
        UsageError: if there is no policy, no threshold that fires, or something that the program cannot compute.
    """
    policy = _policy(artifact)
    _check_tensors(artifact.manifest)
    exits = _Exits(artifact, models, policy)
    rows = "".join(f"    {row},\n" for row in exits.rows())
    constants = [
        f"ARTIFACT = {artifact.manifest.digest!r}  # digest",
        f"POLICY = {policy.name!r}",
        f"INPUTS = {tuple(tensor.name for tensor in artifact.manifest.inputs)!r}",
        f"SIGNALS = {artifact.task.signal_names!r}",
        f"DECISION_SHAPE = {artifact.task.decision_shape!r}",
        f"LOOKS_BACK = {exits.looks_back}  # whether the policy judges by earlier exits too",
    ]
    if stepwise:
        constants.append(f"CANDIDATES = {CANDIDATES}  # requests that Triton schedules again at a time")
    # the functions stand before EXITS, which names them
    functions = [*exits.functions, f"EXITS = (\n{rows})\n"]
    parts = {
        "#CONSTANTS#": "\n".join(constants),
        "#FUNCTIONS#": "\n" + "\n\n".join(functions),
        "#MODEL#": "\n" + _text("_triton_sequence.py.in" if stepwise else "_triton_bls.py.in").rstrip(),
    }
    # in one pass: a name in the artifact may look like a mark
    program = re.sub("|".join(parts), lambda mark: parts[mark[0]], _text("_triton_model.py.in"))
    compile(program, "model.py", "exec")
    return program


class _Exits:
    """The exits as rows of a table of the program, and the functions that they name."""

    def __init__(self, artifact: Artifact, models: tuple[str, ...], policy: Policy) -> None:
        self._manifest, self._task, self._models = artifact.manifest, artifact.task, models
        self._thresholds = policy.thresholds
        self._policy: ExitPolicy = restore(policy.name, policy.parameters, self._task, len(self._manifest.exits))
        self.looks_back = self._policy.history
        self.functions: list[str] = []

    def rows(self) -> list[str]:
        """Return one dictionary for each exit, as source; see the template."""
        rows, first = [], 0
        for index, exit_ in enumerate(self._manifest.exits):
            row = self._row(index, exit_)
            needed = {*row["kept"], *(row[name] for name in ("values", "decision") if row[name])}
            if row["score"] or row["needs_outputs"] or index == len(self._manifest.exits) - 1:
                needed.add(exit_.outputs)
            row["models"] = tuple(
                (
                    self._models[number],
                    tuple(tensor.name for tensor in segment.inputs),
                    [t.name for t in segment.outputs if t.name in needed | self._inside(number, exit_.segment)],
                )
                for number, segment in enumerate(self._manifest.segments)
                if first <= number <= exit_.segment
            )
            first = exit_.segment + 1
            del row["needs_outputs"]
            score = row.pop("score")
            written = "".join(f"        {name!r}: {value!r},\n" for name, value in row.items())
            rows.append(f"{{\n{written}        'score': {score},\n    }}")
        return rows

    def _row(self, index: int, exit_: Exit) -> dict[str, Any]:
        last = index == len(self._manifest.exits) - 1
        threshold = None if last or self._thresholds[index] > 1 else self._thresholds[index]
        judged = not last and (threshold is not None or self.looks_back)
        row: dict[str, Any] = {
            "name": exit_.name,
            "outputs": exit_.outputs,
            "kept": () if last else tuple(tensor.name for tensor in self._manifest.live_tensors(index)),
            "judged": judged,
            "values": None,
            "decision": None,
            "temperature": exit_.temperature,
            "threshold": threshold,
            "score": None,
            "needs_outputs": False,
        }
        if judged:
            source, keys = score_source(self._policy, index, self._task, f"score_{index}")
            self._judge(row, exit_, keys)
            if threshold is not None:
                self.functions.append(source)
                row["score"] = f"score_{index}"
        return row

    def _judge(self, row: dict[str, Any], exit_: Exit, keys: frozenset[str]) -> None:
        """Say where the signals of an exit come from."""
        if exit_.signals is not None and exit_.temperature == 1:
            row["values"] = exit_.signals.values
        else:
            row["needs_outputs"] = True
            self._add_signals_function()
        if DECISION in keys or self.looks_back:
            if exit_.signals is None:
                raise UsageError(
                    f"The policy compares decisions, which the graph of '{exit_.name}' does not give.",
                    allowed="segments that sdcompress has exported as a cascade",
                    next_step="export the cascade again, or calibrate with a policy that judges each exit alone",
                )
            row["decision"] = exit_.signals.decision

    def _add_signals_function(self) -> None:
        """Add the task's own code for signals, once."""
        code = self._task.card_code()
        if not code:
            raise UsageError(
                f"The task '{self._task.record.name}' has no program that computes signals at another temperature.",
                allowed="a task with card_code, or temperatures of 1",
                next_step="calibrate with --set calibrate.fit_temperature=false",
            )
        if code.strip() not in self.functions:
            self.functions.insert(0, code.strip())

    def _inside(self, number: int, last: int) -> set[str]:
        """Return the names of the tensors that the segments behind one, up to an exit, read."""
        return {t.name for segment in self._manifest.segments[number + 1 : last + 1] for t in segment.inputs}


def _policy(artifact: Artifact) -> Policy:
    policy = artifact.manifest.policy
    if policy is None:
        raise UsageError(
            f"'{artifact.path}' is a cascade without an exit policy: every sample would run to the end.",
            allowed="a calibrated cascade, or an artifact of one graph",
            next_step=f"sdcompress calibrate {shlex.quote(str(artifact.path))} --out FOLDER, and package that; or "
            "export --layout single",
        )
    if not policy.exits_early:
        raise UsageError(
            f"By the policy of '{artifact.path}' no sample exits early (guarantee: {policy.guarantee}).",
            allowed="at least one threshold that a score can reach",
            next_step="package the network itself (export --layout single), or calibrate with a larger --max-drop",
        )
    return policy


def _check_tensors(manifest: Manifest) -> None:
    tensors = [tensor for segment in manifest.segments for tensor in (*segment.inputs, *segment.outputs)]
    names = sorted({tensor.name for tensor in tensors if tensor.dtype == "bfloat16"})
    if names:
        raise UsageError(
            f"The segments hand on bfloat16, which numpy lacks: {', '.join(names)}.",
            allowed="tensors between segments of another type",
            next_step="quantise to fp16 or int8 instead, or export the layout single",
        )


def _text(name: str) -> str:
    return files("sdcompress.packaging").joinpath(name).read_text(encoding="utf-8")
