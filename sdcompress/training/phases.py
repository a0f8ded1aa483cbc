"""The parts of a training, in whole epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from sdcompress.errors import RecipeError
from sdcompress.methods._base import Phase

__all__ = ["Span", "span_at", "spans"]


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


def span_at(found: Sequence[Span], epoch: int) -> Span:
    """The phase that an epoch belongs to; after the last epoch still the last phase."""
    return next(span for span in reversed(found) if span.first <= epoch)
