"""One exit policy per file: how sure an exit is of its answer, as a number in [0, 1]. See docs/adding/policy.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress import registry
from sdcompress.errors import ArtifactError, UsageError
from sdcompress.policies._base import ExitPolicy, Float, Gate, Signals
from sdcompress.tasks import Task

__all__ = ["ROOM", "gates", "leave", "policy_class", "restore", "scores", "usual"]

ROOM = "sdcompress.policies"
_DEFAULT = "max_prob"


def policy_class(kind: str) -> type[ExitPolicy]:
    """The policy of that name.

    Raises:
        UnknownNameError: if there is none; it names the nearest.
    """
    policy: type[ExitPolicy] = registry.load(ROOM, kind, extra="all")
    return policy


def usual(task: Task) -> ExitPolicy:
    """What judges where no policy was chosen: the default, else the first without parameters that the task serves."""
    for kind in (_DEFAULT, *registry.names(ROOM)):
        policy = policy_class(kind)
        if not fields(policy) and set(policy.needs) <= set(task.signal_names):
            break
    return policy()


def restore(kind: str, parameters: Mapping[str, Any], task: Task, exits: int = 1) -> ExitPolicy:
    """A policy as a manifest wrote it.

    Args:
        kind: its name.
        parameters: as JSON has them; anybody may have written them.
        task: of the artifact, by whose signals it judges.
        exits: how many the artifact has: the score of every one but the last is tried.

    Raises:
        ArtifactError: if this version has no such policy, it has other parameters, or the task lacks its signals.
    """
    try:
        policy = policy_class(kind)(**parameters)
        task.check_names(policy.needs, kind)
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
    """Score one sample at every exit but the last, and make its gate."""
    seen = [task.signals(np.zeros((1, *task.output_shape), np.float32))] * exits
    for exit_ in range(exits - 1):
        score = policy.score(exit_, seen[: exit_ + 1])
        left = policy.gate(exit_, np.float32(1))(seen[: exit_ + 1])
        if np.shape(score) != (1,) or np.shape(left) != (1,):
            raise ValueError(f"it gives a score of shape {list(np.shape(score))} for one sample")


def scores(policy: ExitPolicy, signals: Sequence[Signals]) -> Float:
    """The scores of every exit but the last, float32 [E-1, N], of the signals of E exits on the same N samples."""
    by_exit = [policy.score(exit_, signals[: exit_ + 1]) for exit_ in range(len(signals) - 1)]
    return np.stack([np.asarray(score, np.float32) for score in by_exit])


def leave(scores: npt.NDArray[np.float32], thresholds: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The exit of each sample, int64 [N]: the first whose score is at least its threshold, both float32.

    Args:
        scores: float32 [E-1, N], of all exits but the last.
        thresholds: [E-1].
    """
    fires = scores >= np.asarray(thresholds, np.float32)[:, None]
    return np.where(fires.any(axis=0), fires.argmax(axis=0), len(fires))


def gates(policy: ExitPolicy, thresholds: Sequence[float]) -> tuple[Gate, ...]:
    """One gate for each exit but the last.

    A row leaves when its score is at least the threshold, both float32. NaN is not at least anything.
    """
    # rounded to float32, a threshold just above 1 would become 1 and fire
    least = [np.float32(threshold if threshold <= 1 else math.inf) for threshold in thresholds]
    return tuple(policy.gate(exit_, threshold) for exit_, threshold in enumerate(least))
