"""Exit policies, one per file: each computes a score in [0, 1] for a sample at an exit. See docs/adding/policy.md."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress import registry
from sdcompress.errors import ArtifactError, UsageError
from sdcompress.policies._base import AGREEMENT, ExitPolicy, Float, Gate, Signals
from sdcompress.tasks import Task

__all__ = [
    "ROOM",
    "check_task",
    "compared_thresholds",
    "default_policy",
    "exit_index_of",
    "gates",
    "policy_class",
    "restore",
    "scores",
]

ROOM = "sdcompress.policies"
_DEFAULTS = ("max_prob", "entropy", "settled", "fixed")  # the last needs nothing


def policy_class(kind: str) -> type[ExitPolicy]:
    """Return the policy with this name.

    Raises:
        UnknownNameError: if there is none; it names the most similar.
    """
    policy: type[ExitPolicy] = registry.load(ROOM, kind, extra="all")
    return policy


def default_policy(task: Task) -> ExitPolicy:
    """Return the policy for a task where none was chosen: the first of ``_DEFAULTS`` that its signals allow."""
    kind = next(kind for kind in _DEFAULTS if not task.missing(policy_class(kind).needs))
    return policy_class(kind)()


def check_task(kind: str, task: Task) -> None:
    """Refuse a policy that judges by signals that a task does not give.

    Args:
        kind: the policy's name.
        task: of the outputs.

    Raises:
        UnknownNameError: if there is no such policy.
        UsageError: names what is missing, and the policies that fit.
    """
    if missing := task.missing(policy_class(kind).needs):
        given = ", ".join(name for name in (*task.signal_names, AGREEMENT) if not task.missing([name]))
        fitting = ", ".join(name for name in registry.names(ROOM) if not task.missing(policy_class(name).needs))
        raise UsageError(
            f"The exit policy '{kind}' judges by {', '.join(missing)}, which this task does not give.",
            allowed=f"policies that judge by {given or 'no signal'}",
            next_step=f"choose another one, by --policy or calibrate.policy: {fitting}",
        )


def restore(kind: str, parameters: Mapping[str, Any], task: Task, exits: int = 1) -> ExitPolicy:
    """Return the policy of a manifest, once it has scored a sample at every exit but the last.

    Args:
        kind: its name.
        parameters: as JSON has them; a stranger may have written them.
        task: of the artifact, whose signals it needs.
        exits: number of exits of the artifact.

    Raises:
        ArtifactError: if this version has no such policy, or it has other parameters, or the task lacks its signals.
    """
    try:
        policy = policy_class(kind)(**parameters)
        check_task(kind, task)
        _try(policy, task, exits)
    except (TypeError, ValueError, LookupError, ArithmeticError, UsageError) as error:
        raise ArtifactError(
            f"The artifact's exit policy '{kind}' with the parameters {', '.join(parameters) or '(none)'} cannot be "
            f"used here: {error}",
            allowed=", ".join(registry.names(ROOM)),
            next_step="install the version of sdcompress (or the package) that made it, or calibrate it again",
        ) from error
    return policy


def _try(policy: ExitPolicy, task: Task, exits: int) -> None:
    """Score one sample at every exit but the last, and apply its gate."""
    signals = [task.signals(np.zeros((1, *task.output_shape), np.float32))] * exits
    for exit_index in range(exits - 1):
        score = policy.score(exit_index, signals[: exit_index + 1])
        exits_here = policy.gate(exit_index, np.float32(1))(signals[: exit_index + 1])
        if np.shape(score) != (1,) or np.shape(exits_here) != (1,):
            raise ValueError(f"it gives a score of shape {list(np.shape(score))} for one sample")


def scores(policy: ExitPolicy, signals: Sequence[Signals]) -> Float:
    """Return the scores of every exit but the last, float32 [E-1, N].

    Args:
        policy: computes them.
        signals: of E exits on the same N samples; of one exit the result is empty.
    """
    result = np.empty((len(signals) - 1, len(signals[0])), np.float32)
    for exit_index in range(len(signals) - 1):
        result[exit_index] = policy.score(exit_index, signals[: exit_index + 1])
    return result


def exit_index_of(scores: npt.NDArray[np.float32], thresholds: Iterable[float]) -> npt.NDArray[np.int64]:
    """Return the exit index of each sample, int64 [N]: the first exit whose score reaches its threshold, both float32.

    Args:
        scores: float32 [E-1, N], of all exits but the last.
        thresholds: [E-1], compared as the gates compare them.
    """
    # one exit after the other: faster than to look for the first along an axis, and no [E-1, N] in memory
    exit_index, passes = np.zeros(scores.shape[1], np.int64), np.ones(scores.shape[1], np.bool_)
    for scores_here, threshold in zip(scores, compared_thresholds(thresholds), strict=True):
        passes &= ~(scores_here >= threshold)  # a score that is NaN reaches none
        exit_index += passes
    return exit_index


def gates(policy: ExitPolicy, thresholds: Sequence[float]) -> tuple[Gate, ...]:
    """Return one gate for each exit but the last.

    A row exits when its score reaches the threshold, both float32. A score that is NaN reaches none.
    """
    return tuple(policy.gate(exit_index, value) for exit_index, value in enumerate(compared_thresholds(thresholds)))


def compared_thresholds(thresholds: Iterable[float]) -> tuple[np.float32, ...]:
    """Return thresholds as scores are compared with them: in float32, infinite above 1."""
    # rounded to float32, a threshold just above 1 would become 1, which a score can reach
    return tuple(np.float32(threshold if threshold <= 1 else math.inf) for threshold in thresholds)
