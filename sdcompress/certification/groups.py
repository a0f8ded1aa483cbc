"""The groups in each of which a wish must hold, and what the tests of all of them say together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.evidence import Evidence
from sdcompress.errors import DataError
from sdcompress.policies import leave

__all__ = ["Per", "check_classes", "in_every_group", "members", "warn_of_classes"]

Mask = npt.NDArray[np.bool_]
Per = Literal["exit", "class"] | None

_TIMES = 3  # the allowed drop, beyond which the loss of a class is named
_LEAST_LOST = 2  # images: one is no loss of a class


def members(evidence: Evidence, thresholds: Sequence[float], per: Per) -> Iterator[Mask]:
    """Which samples each group has under these thresholds, bool [N]; None: one group, everybody.

    ``"class"``: the samples of each label. That it holds for everybody follows: the whole is a mean of classes.
    ``"exit"``: the samples that have left by exit t, for every t, and everybody (Ringel et al., "Early Time
    Classification with Accumulated Accuracy Gap Control", arXiv:2402.00857). Where no threshold up to t can fire there
    is no such sample anywhere and so no group. Where one can fire but nobody of these samples has left, the group is
    there and has no member: nothing is known of it.

    Args:
        evidence: of N samples; with labels for ``"class"``.
        thresholds: [E-1].
        per: what makes a group.
    """
    if per == "class":
        assert evidence.labels is not None
        yield from (evidence.labels == label for label in np.unique(evidence.labels))
        return
    if per == "exit":
        left = leave(evidence.confidences, thresholds)
        first = next((exit_ for exit_, threshold in enumerate(thresholds) if threshold <= 1), len(thresholds))
        yield from (left <= exit_ for exit_ in range(first, len(thresholds)))
    yield np.ones(evidence.right.shape[1], np.bool_)


def in_every_group(
    losses: npt.NDArray[np.int8], groups: Iterator[Mask], p_value: Callable[[npt.NDArray[np.int8]], float]
) -> float:
    """The p-value of "in some group the mean loss is above alpha": the largest of the groups' p-values.

    delta is not split over the groups. The hypothesis is a union; where it is true, it is true of some group g. To
    reject it p_g <= delta is needed too, which has a probability of at most delta, however many other groups there are
    and however they depend on each other (intersection-union test; Berger, "Multiparameter Hypothesis Testing and
    Acceptance Sampling", Technometrics 1982). So each step is tested at delta, as fixed-sequence testing asks.

    Membership may depend on a sample's own confidences and label: given who belongs to a group, its losses are
    independent draws of what the group loses. A group without a member has the p-value 1 (nothing is known of it).

    Args:
        losses: [N] in the order of the tests.
        groups: from ``members``, each bool [N].
        p_value: of the losses of a group, in their order; 1 for none.
    """
    return max(p_value(losses[mask]) for mask in groups)


def check_classes(labels: npt.NDArray[np.int64], classes: Sequence[str], least: int, wish: str) -> None:
    """Refuse a class with fewer samples than a certificate takes even without a single loss.

    Args:
        labels: [N] of the samples that certify, in 0..K-1.
        classes: K names.
        least: samples that a class needs.
        wish: what is asked for, for the error.

    Raises:
        DataError: naming the smallest class, how many samples it has and how many it takes.
    """
    counts = np.bincount(labels, minlength=len(classes))
    smallest = int(counts.argmin())
    if counts[smallest] >= least:
        return
    few = int((counts < least).sum())
    raise DataError(
        f"The class '{classes[smallest]}' has {counts[smallest]} of the {len(labels)} samples that certify: too few "
        f"to certify {wish} in it, even if not one answer is lost"
        + (f"; {few} of {len(classes)} classes have too few." if few > 1 else "."),
        allowed=f"at least {least} of every class among those that certify",
        next_step="calibrate on more samples of it, ask for a larger drop or less confidence, or leave --per-class out "
        "(sdcompress calibrate --plan --per-class shows what is within reach)",
    )


def warn_of_classes(
    evidence: Evidence,
    labels: npt.NDArray[np.int64],
    thresholds: Sequence[float],
    *,
    classes: Sequence[str],
    max_drop: float,
) -> None:
    """Warn where a class loses more than three times the drop that is allowed over all samples.

    A drop over all says little of a rare class: it weighs as little as it has samples.

    Args:
        evidence: of N samples.
        labels: [N], in 0..K-1.
        thresholds: [E-1], of the policy.
        classes: K names.
        max_drop: the drop that is allowed.
    """
    left = leave(evidence.confidences, thresholds)
    kept = evidence.right[left, np.arange(len(left))].astype(np.bool_)
    counts, after, before = (
        np.bincount(labels[mask], minlength=len(classes))
        for mask in (np.ones(len(labels), np.bool_), kept, evidence.reference.astype(np.bool_))
    )
    lost = before - after
    hit = np.flatnonzero((lost > _TIMES * max_drop * counts + 1e-9) & (lost >= _LEAST_LOST))
    if len(hit) == 0:
        return
    worst = int(hit[(lost[hit] / counts[hit]).argmax()])
    share = 100 / counts[worst]
    figures = f"{before[worst] * share:.1f} to {after[worst] * share:.1f} % of {counts[worst]} images"
    others = f" {len(hit)} of {len(classes)} classes do, this one most." if len(hit) > 1 else ""
    warnings.warn(
        f"Leaving early costs the class '{classes[worst]}' {lost[worst] * share:.1f} points ({figures}), more than"
        f" {_TIMES} times the {max_drop:.2%} that may be lost over all.{others} To keep the drop in every class:"
        " --confidence 95% --per-class.",
        stacklevel=2,
    )
