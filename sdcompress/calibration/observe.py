"""Run exits over samples, and judge them by a policy: what thresholds are chosen and tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.evidence import Evidence
from sdcompress.calibration.temperature import fit_temperature
from sdcompress.calibration.thresholds import choose_thresholds
from sdcompress.data.samples import Samples, Subset
from sdcompress.evaluation.evaluate import exit_logits, exit_signals
from sdcompress.policies import leave, policy_class, scores
from sdcompress.policies._base import ExitPolicy, Float, Signals
from sdcompress.progress import Progress
from sdcompress.runtime.engine import Engine
from sdcompress.schema import recipe
from sdcompress.tasks import Task

__all__ = ["FittedPolicy", "fit_policy", "observe"]

Right = npt.NDArray[np.bool_]

_TEMPERATURE_SAMPLES = 4096  # whose logits are in memory; one number per exit needs no more
_GAIN = 0.01  # of the mean cost, below which a temperature is not worth having


@dataclass(frozen=True)
class FittedPolicy:
    """How exits are judged: fixed before anything is tested.

    Attributes:
        temperatures: of every exit.
        policy: with its fitted parameters.
    """

    temperatures: tuple[float, ...]
    policy: ExitPolicy

    def evidence(self, signals: Sequence[Signals], right: Right) -> Evidence:
        """The policy's scores and the right answers of N samples.

        Args:
            signals: of the E exits, at these temperatures.
            right: bool [E, N].
        """
        return Evidence(scores(self.policy, signals), right.astype(np.uint8))


def observe(
    engine: Engine,
    samples: Samples,
    temperatures: Sequence[float],
    *,
    unlabelled: bool,
    progress: Progress | None = None,
) -> tuple[tuple[Signals, ...], Right]:
    """The signals of all exits, and which of their answers are right, bool [E, N].

    Args:
        engine: runs the artifact's graphs.
        samples: N of them, in the order in which they are wanted.
        temperatures: of every exit.
        unlabelled: right is what the last exit says; no label is looked at.
        progress: called with (images done, all images).
    """
    signals = exit_signals(engine, samples, temperatures, labelled=not unlabelled, progress=progress)
    truth = signals[-1].decision if unlabelled else samples.targets
    return signals, np.stack([exit_.decision == truth for exit_ in signals])


def fit_policy(
    engine: Engine,
    samples: Samples,
    settings: recipe.Calibrate,
    stage_ms: tuple[float, ...],
    progress: Progress | None = None,
) -> tuple[FittedPolicy, tuple[Signals, ...], Right]:
    """Choose temperatures, fit the policy, and return it with what it was fitted on.

    Args:
        engine: runs the artifact's graphs.
        samples: none of which will be tested. Without labels (``settings.unlabelled``) the temperatures are 1.
        settings: of the calibration.
        stage_ms: [E], from one exit to the next.
        progress: called with (images done, all images).

    Raises:
        UnknownNameError: if there is no such policy; UsageError: if it is of no use with these exits.
    """
    kind = policy_class(settings.policy)
    temperatures = (1.0,) * len(engine.exit_names)
    if settings.temperature and not settings.unlabelled:
        # spread: a folder of images lies there class by class
        few = Subset(
            samples, np.linspace(0, len(samples) - 1, min(_TEMPERATURE_SAMPLES, len(samples))).astype(np.int64)
        )
        logits = exit_logits(engine, few)
        temperatures = _temperatures(kind, logits, few.targets, stage_ms, settings.max_drop, task=engine.task)
    signals, right = observe(engine, samples, temperatures, unlabelled=settings.unlabelled, progress=progress)
    return FittedPolicy(temperatures, kind.fit(signals, right)), signals, right


def _temperatures(
    kind: type[ExitPolicy],
    logits: Float,
    labels: npt.NDArray[np.int64],
    stage_ms: tuple[float, ...],
    max_drop: float,
    *,
    task: Task,
) -> tuple[float, ...]:
    """Fitted temperatures of the exits where they lower the mean cost at this drop, 1 elsewhere.

    A temperature that lowers the NLL need not order the samples better ("Failure Prediction Is a Better Performance
    Proxy for Early-Exit Networks Than Calibration", arXiv:2508.21495): it must earn its place by what it saves.
    """
    right: Right = logits.argmax(axis=2) == labels
    plain = [task.signals(exit_) for exit_ in logits]

    def cost(signals: Sequence[Signals]) -> float:
        policy = kind.fit(signals, right)
        found = scores(policy, signals)
        thresholds = choose_thresholds(found, right, stage_ms, max_drop, shared=policy.shared)
        return float(np.cumsum(stage_ms)[leave(found, thresholds)].mean())

    kept = [1.0] * len(logits)
    least = cost(plain)
    for exit_ in range(len(logits) - 1):
        fitted = fit_temperature(logits[exit_], labels)
        tried = [*plain[:exit_], task.signals(logits[exit_], fitted), *plain[exit_ + 1 :]]
        if fitted != 1 and (found := cost(tried)) < (1 - _GAIN) * least:
            kept[exit_], plain, least = fitted, tried, found
    return tuple(kept)
