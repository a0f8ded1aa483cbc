"""Compute signals, scores and losses of all exits on samples, from which thresholds are chosen and tested."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdcompress.artifact.evidence import Evidence
from sdcompress.calibration.temperature import fit_temperature
from sdcompress.calibration.thresholds import choose_thresholds
from sdcompress.data.samples import Samples, Subset
from sdcompress.evaluation.evaluate import exit_outputs, exit_signals
from sdcompress.policies import leave, policy_class, scores
from sdcompress.policies._base import ExitPolicy, Float, Signals
from sdcompress.progress import Progress
from sdcompress.runtime.engine import Engine
from sdcompress.schema import recipe
from sdcompress.tasks import Array, Task

__all__ = ["FittedPolicy", "fit_policy", "losses_of", "observe"]


_TEMPERATURE_SAMPLES = 4096  # whose outputs are in memory; one number per exit needs no more
_TEMPERATURE_VALUES = 2**24  # of one exit; fewer samples where each has many
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

    def evidence(self, signals: Sequence[Signals], loss: Float) -> Evidence:
        """Return the policy's scores and the losses of N samples.

        Args:
            signals: of the E exits, at these temperatures.
            loss: float32 [E, N].
        """
        return Evidence(scores(self.policy, signals), loss)


def observe(
    engine: Engine,
    samples: Samples,
    temperatures: Sequence[float],
    *,
    unlabelled: bool,
    progress: Progress | None = None,
) -> tuple[tuple[Signals, ...], Float]:
    """Return the signals of all exits, and the losses of their decisions, float32 [E, N].

    Args:
        engine: runs the artifact's graphs.
        samples: N of them, in the order in which they are wanted.
        temperatures: of every exit.
        unlabelled: the losses are against the last exit's decisions; no target is looked at.
        progress: called with (samples done, all samples).
    """
    signals = exit_signals(engine, samples, temperatures, labelled=not unlabelled, progress=progress)
    against = signals[-1].decision if unlabelled else samples.targets
    return signals, losses_of(engine.task, signals, against)


def losses_of(task: Task, signals: Sequence[Signals], against: Array) -> Float:
    """Return the losses of all exits' decisions, float32 [E, N].

    Args:
        task: of the network.
        signals: of the E exits.
        against: targets [N, ...], or the decisions of a reference.
    """
    return np.stack([task.loss(exit_.decision, against) for exit_ in signals])


def fit_policy(
    engine: Engine,
    samples: Samples,
    settings: recipe.Calibrate,
    stage_ms: tuple[float, ...],
    progress: Progress | None = None,
) -> tuple[FittedPolicy, tuple[Signals, ...], Float]:
    """Choose temperatures, fit the policy, and return it with the signals and losses that it was fitted on.

    Args:
        engine: runs the artifact's graphs.
        samples: none of which will be tested. Without targets (``settings.unlabelled``) the temperatures are 1.
        settings: of the calibration.
        stage_ms: [E], from one exit to the next.
        progress: called with (samples done, all samples).

    Raises:
        UnknownNameError: if there is no such policy; UsageError: if it is of no use with these exits.
    """
    kind, task = policy_class(settings.policy), engine.task
    temperatures = (1.0,) * len(engine.exit_names)
    if settings.fit_temperature and task.scaled_by_temperature and not settings.unlabelled:
        # spread: data often lies sorted by stratum
        count = min(len(samples), _TEMPERATURE_SAMPLES, max(1, _TEMPERATURE_VALUES // math.prod(task.output_shape)))
        few = Subset(samples, np.linspace(0, len(samples) - 1, count).astype(np.int64))
        temperatures = _temperatures(
            kind, exit_outputs(engine, few), few.targets, stage_ms, settings.max_drop, task=task
        )
    signals, loss = observe(engine, samples, temperatures, unlabelled=settings.unlabelled, progress=progress)
    return FittedPolicy(temperatures, kind.fit(signals, loss)), signals, loss


def _temperatures(
    kind: type[ExitPolicy],
    outputs: Float,
    targets: Array,
    stage_ms: tuple[float, ...],
    max_drop: float,
    *,
    task: Task,
) -> tuple[float, ...]:
    """Fitted temperatures of the exits where they lower the mean cost at this drop, 1 elsewhere.

    A temperature that lowers the NLL need not order the samples better ("Failure Prediction Is a Better Performance
    Proxy for Early-Exit Networks Than Calibration", arXiv:2508.21495): it must earn its place by what it saves.
    """
    signals = [task.signals(exit_) for exit_ in outputs]
    loss = losses_of(task, signals, targets)

    def cost(signals: Sequence[Signals]) -> float:
        policy = kind.fit(signals, loss)
        columns = scores(policy, signals)
        thresholds = choose_thresholds(columns, loss, stage_ms, max_drop, shared=policy.shared)
        return float(np.cumsum(stage_ms)[leave(columns, thresholds)].mean())

    kept = [1.0] * len(outputs)
    least = cost(signals)
    for exit_ in range(len(outputs) - 1):
        fitted = fit_temperature(task, outputs[exit_], targets)
        scaled = [*signals[:exit_], task.signals(outputs[exit_], fitted), *signals[exit_ + 1 :]]
        if fitted != 1 and (tried := cost(scaled)) < (1 - _GAIN) * least:
            kept[exit_], signals, least = fitted, scaled, tried
    return tuple(kept)
