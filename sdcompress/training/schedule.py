"""Schedule a training: its phases in whole epochs, and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from sdcompress.errors import RecipeError
from sdcompress.methods._base import Phase
from sdcompress.schema import recipe

__all__ = ["Clock", "Span", "Timeline", "rate", "spans"]


class Clock(NamedTuple):
    """When a step is: steps done, whole epochs done, the share of the training done, and the phase."""

    step: int
    epoch: int
    progress: float
    phase: int


@dataclass(frozen=True)
class Span:
    """A phase and its epochs.

    Attributes:
        number: of the phase, from 0.
        phase: what it is.
        first: its first epoch.
        epochs: how many it has.
    """

    number: int
    phase: Phase
    first: int
    epochs: int


class Timeline:
    """The phases and the learning rate of a training, by the number of steps done.

    Args:
        train: epochs, schedule and first rate.
        phases: of the method.
        steps_per_epoch: steps.

    Attributes:
        spans: the phases, each with its epochs.
        steps: of the whole training.

    Raises:
        RecipeError: if there are fewer epochs than phases.
    """

    def __init__(self, train: recipe.Train, phases: Sequence[Phase], steps_per_epoch: int) -> None:
        self.spans = spans(phases, train.epochs)
        self.steps = train.epochs * steps_per_epoch
        self._train, self._per_epoch = train, steps_per_epoch

    def span(self, step: int) -> Span:
        """Return the phase that a step belongs to; after the last step still the last phase."""
        return next(span for span in reversed(self.spans) if self.first_step(span) <= step)

    def first_step(self, span: Span) -> int:
        """Return the step with which a phase begins."""
        return span.first * self._per_epoch

    def generation_start(self, step: int) -> int:
        """Return the step with which the network started for the last time from random weights."""
        done = self.spans[: self.span(step).number + 1]
        return max((self.first_step(span) for span in done if span.phase.restart), default=0)

    def clock(self, step: int) -> Clock:
        """Return the time of a step: step, epoch, progress, phase."""
        return Clock(step, step // self._per_epoch, step / self.steps, self.span(step).number)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step; each phase has the schedule for itself."""
        span = self.span(step)
        return rate(
            self._train.schedule,
            lr=self._train.optimizer.lr,
            step=step - self.first_step(span),
            steps_per_epoch=self._per_epoch,
            epochs=span.epochs,
        )


def spans(phases: Sequence[Phase], epochs: int) -> tuple[Span, ...]:
    """Cut the epochs into phases, each as near to its share as whole epochs allow, and at least one long.

    Raises:
        RecipeError: if there are fewer epochs than phases.
    """
    if epochs < len(phases):
        raise RecipeError(
            f"train.epochs is {epochs}, but the method trains in {len(phases)} phases.",
            allowed=f"at least {len(phases)} epochs",
            next_step=f"--set train.epochs={len(phases)} or more",
        )
    ends, total = [0], sum(phase.share for phase in phases)
    for number, reached in enumerate(accumulate(phase.share for phase in phases), start=1):
        left = len(phases) - number  # which need an epoch each
        ends.append(min(max(round(epochs * reached / total), ends[-1] + 1), epochs - left))
    return tuple(
        Span(number, phase, first, last - first)
        for number, (phase, first, last) in enumerate(zip(phases, ends[:-1], ends[1:], strict=True))
    )


def rate(spec: recipe.Schedule, *, lr: float, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Return the learning rate of step ``step`` (from 0): linear warm-up, then the schedule over what is left.

    Cosine: Loshchilov & Hutter 2017 (SGDR), eq. 5, one cycle from ``lr`` to ``final * lr``.
    """
    epoch = step / steps_per_epoch
    if epoch < spec.warmup_epochs:
        return lr * (step + 1) / math.ceil(spec.warmup_epochs * steps_per_epoch)
    if spec.name == "multistep":
        return float(lr * spec.gamma ** sum(epoch >= milestone for milestone in spec.milestones))
    if spec.name == "cosine":
        share = (epoch - spec.warmup_epochs) / max(epochs - spec.warmup_epochs, 1e-12)
        return lr * (spec.final_lr_ratio + (1 - spec.final_lr_ratio) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))
    return lr
