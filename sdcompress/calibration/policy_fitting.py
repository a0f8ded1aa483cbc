"""Fit an exit policy and the temperatures of the exits on samples."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdcompress.artifact.evidence import Evidence
from sdcompress.calibration.thresholds import choose_thresholds
from sdcompress.data.samples import Samples, Subset
from sdcompress.evaluation.exit_outcomes import exit_losses, exit_outcomes, exit_outputs
from sdcompress.policies import exit_index_of, policy_class, scores
from sdcompress.policies._base import ExitPolicy, Float, Signals
from sdcompress.progress import Progress
from sdcompress.runtime.engine import Engine
from sdcompress.schema import recipe
from sdcompress.tasks import Array, Task

__all__ = ["MAX_TEMPERATURE", "MIN_TEMPERATURE", "FittedPolicy", "fit_policy", "fit_temperature"]

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.1, 10.0

_TEMPERATURE_SAMPLES = 4096  # whose outputs are in memory; one number per exit needs no more
_TEMPERATURE_VALUES = 2**24  # of one exit; fewer samples where each has many
_MIN_GAIN = 0.01  # share of the mean cost that a temperature must save
_RELATIVE_STEP = 1e-4  # of the difference quotients: rounding and truncation errors are then both about 1e-8


@dataclass(frozen=True)
class FittedPolicy:
    """Temperatures and policy, fixed before anything is tested.

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


def fit_policy(
    engine: Engine,
    samples: Samples,
    settings: recipe.Calibrate,
    stage_ms: tuple[float, ...],
    progress: Progress | None = None,
) -> tuple[FittedPolicy, tuple[Signals, ...], Float]:
    """Choose temperatures and fit the policy, and return both with the signals and losses that they were fitted on.

    Args:
        engine: runs the artifact's graphs.
        samples: tuning samples. Without targets (``settings.unlabelled``) the temperatures are 1. They are fitted on
            4,096 samples at most, and on fewer where outputs are large, such as masks; a warning says so.
        settings: of the calibration.
        stage_ms: [E], from one exit to the next.
        progress: called with (samples done, all samples).

    Raises:
        UnknownNameError: if there is no such policy.
    """
    kind, task = policy_class(settings.policy), engine.task
    temperatures = (1.0,) * len(engine.exit_names)
    if settings.fit_temperature and task.scaled_by_temperature and not settings.unlabelled:
        subset = _for_temperatures(samples, math.prod(task.output_shape))
        outputs = exit_outputs(engine, subset)
        temperatures = _temperatures(kind, outputs, subset.targets, stage_ms, settings.max_drop, task=task)
    signals, loss, _ = exit_outcomes(engine, samples, temperatures, unlabelled=settings.unlabelled, progress=progress)
    return FittedPolicy(temperatures, kind.fit(signals, loss)), signals, loss


def _for_temperatures(samples: Samples, values: int) -> Subset:
    """Return the samples that temperatures are fitted on, as many as memory allows; a warning says where few are left.

    Args:
        samples: tuning samples.
        values: of the outputs of one sample at one exit.
    """
    wanted = min(len(samples), _TEMPERATURE_SAMPLES)
    count = min(wanted, max(1, _TEMPERATURE_VALUES // values))
    if count < wanted:
        warnings.warn(
            f"Temperatures are fitted and compared on {count} of {len(samples)} samples, because the outputs of each "
            f"have {values:,} values. Thresholds are chosen on all; calibrate.fit_temperature=false leaves "
            "temperatures at 1.",
            stacklevel=2,
        )
    # evenly spread, because data is often sorted by stratum
    return Subset(samples, np.linspace(0, len(samples) - 1, count).astype(np.int64))


def _temperatures(
    kind: type[ExitPolicy],
    outputs: Float,
    targets: Array,
    stage_ms: tuple[float, ...],
    max_drop: float,
    *,
    task: Task,
) -> tuple[float, ...]:
    """Return fitted temperatures of the exits where they lower the mean cost at this drop, and 1 elsewhere.

    A temperature that lowers the NLL need not rank the samples better ("Failure Prediction Is a Better Performance
    Proxy for Early-Exit Networks Than Calibration", arXiv:2508.21495). So it must save cost to be kept.
    """
    signals = [task.signals(exit_) for exit_ in outputs]
    loss = exit_losses(task, signals, targets)

    def cost(signals: Sequence[Signals]) -> float:
        policy = kind.fit(signals, loss)
        exit_scores = scores(policy, signals)
        thresholds = choose_thresholds(exit_scores, loss, stage_ms, max_drop, shared=policy.shared)
        return float(np.cumsum(stage_ms)[exit_index_of(exit_scores, thresholds)].mean())

    temperatures = [1.0] * len(outputs)
    lowest_cost = cost(signals)
    for k in range(len(outputs) - 1):
        fitted = fit_temperature(task, outputs[k], targets)
        scaled = [*signals[:k], task.signals(outputs[k], fitted), *signals[k + 1 :]]
        if fitted != 1 and (scaled_cost := cost(scaled)) < (1 - _MIN_GAIN) * lowest_cost:
            temperatures[k], signals, lowest_cost = fitted, scaled, scaled_cost
    return tuple(temperatures)


def fit_temperature(task: Task, outputs: Array, targets: Array) -> float:
    """Return the T that minimises the task's NLL of outputs / T, or 1.0 where none lowers it.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. The NLL of logits is convex in
    1 / T; Newton's method finds its minimum, with difference quotients as derivatives. Without a mistake the optimum is
    T = 0, which makes all confidences equal; for a guess it is infinite. So a minimum outside [0.1, 10] counts as none.

    Args:
        task: with ``scaled_by_temperature``.
        outputs: [N, ...], N > 0, finite.
        targets: [N, ...].
    """

    def nll(inverse: float) -> float:
        return task.nll(outputs, targets, 1 / inverse)

    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    inverse = 1.0
    for _ in range(60):
        below, at, above = (nll(inverse * factor) for factor in (1 - _RELATIVE_STEP, 1.0, 1 + _RELATIVE_STEP))
        slope, curvature = (above - below) / 2, above - 2 * at + below
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        newton = inverse * (1 - _RELATIVE_STEP * slope / curvature) if curvature > 0 else math.inf
        following = newton if low < newton < high else math.sqrt(low * high)
        if abs(following - inverse) < 1e-7 * inverse:
            break
        inverse = following
    temperature = 1 / inverse
    inside = MIN_TEMPERATURE * 1.001 < temperature < MAX_TEMPERATURE / 1.001
    return temperature if inside and nll(inverse) < nll(1.0) else 1.0
