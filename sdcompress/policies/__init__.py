"""One exit policy per file: how sure an exit is of its answer, as a number in [0, 1]. See docs/adding/policy.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sdcompress import registry
from sdcompress.errors import ArtifactError, UnknownNameError
from sdcompress.policies._base import ExitPolicy, Float, Signals

__all__ = ["ROOM", "policy_class", "restore", "scores"]

ROOM = "sdcompress.policies"


def policy_class(kind: str) -> type[ExitPolicy]:
    """The policy of that name.

    Raises:
        UnknownNameError: if there is none; it names the nearest.
    """
    found: type[ExitPolicy] = registry.load(ROOM, kind, extra="all")
    return found


def restore(kind: str, parameters: Mapping[str, Any]) -> ExitPolicy:
    """A policy as a manifest wrote it.

    Raises:
        ArtifactError: if this version has no such policy, or it has other parameters.
    """
    try:
        return policy_class(kind)(**parameters)
    except (TypeError, UnknownNameError) as error:
        raise ArtifactError(
            f"The artifact's exit policy '{kind}' with the parameters {', '.join(parameters) or '(none)'} cannot be "
            f"used here: {error}",
            allowed=", ".join(registry.names(ROOM)),
            next_step="install the version of sdcompress (or the package) that made it, or calibrate it again",
        ) from error


def scores(policy: ExitPolicy, signals: Sequence[Signals]) -> Float:
    """The scores of every exit but the last, float32 [E-1, N], of the signals of E exits on the same N samples."""
    found = [policy.score(exit_, signals[: exit_ + 1]) for exit_ in range(len(signals) - 1)]
    return np.stack([np.asarray(score, np.float32) for score in found])
