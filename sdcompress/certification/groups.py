"""The groups in each of which a drop is certified, and the p-value of all of them together."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.evidence import Evidence
from sdcompress.certification.p_values import binomial_p_value
from sdcompress.errors import DataError, UsageError
from sdcompress.policies import leave
from sdcompress.tasks import Array, Task

__all__ = [
    "GroupBy",
    "check_strata",
    "group_masks",
    "group_name",
    "in_every_group",
    "loss_name",
    "strata_of",
    "warn_of_strata",
]

Mask = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Strata = npt.NDArray[np.integer]
GroupBy = Literal["exit", "stratum"] | None

_CHANCE = 0.05  # of naming a stratum, among all, that loses no more than is allowed
_LEAST_LOST = 2  # samples: one is no loss of a stratum


def group_masks(evidence: Evidence, thresholds: Sequence[float], group_by: GroupBy) -> Iterator[Mask]:
    """Return the mask of each group under these thresholds, bool [N]; None: one group of all samples.

    ``"stratum"``: the samples of each stratum. That it holds for all samples follows: the whole is a mean of strata.
    ``"exit"``: the samples that have left by exit t, for every t, and all samples (Ringel et al., "Early Time
    Classification with Accumulated Accuracy Gap Control", arXiv:2402.00857). Where no threshold up to t can fire there
    is no such sample anywhere and so no group. Where one can fire but none of these samples has left, the group is
    there and has no member: nothing is known of it.

    Args:
        evidence: of N samples; with strata for ``"stratum"``.
        thresholds: [E-1].
        group_by: what makes a group.
    """
    if group_by == "stratum":
        assert evidence.strata is not None
        yield from (evidence.strata == stratum for stratum in np.unique(evidence.strata))
        return
    if group_by == "exit":
        left = leave(evidence.scores, thresholds)
        first = next((exit_ for exit_, threshold in enumerate(thresholds) if threshold <= 1), len(thresholds))
        yield from (left <= exit_ for exit_ in range(first, len(thresholds)))
    yield np.ones(len(evidence), np.bool_)


def in_every_group(losses: Float64, groups: Iterator[Mask], p_value: Callable[[Float64], float]) -> float:
    """Return the p-value of "in some group the mean loss is above alpha": the largest of the groups' p-values.

    delta is not split over the groups. The hypothesis is a union; where it is true, it is true of some group g. To
    reject it p_g <= delta is needed too, which has a probability of at most delta, however many other groups there are
    and however they depend on each other (intersection-union test; Berger, "Multiparameter Hypothesis Testing and
    Acceptance Sampling", Technometrics 1982). So each step is tested at delta, as fixed-sequence testing asks.

    Membership may depend on a sample's own scores and target: given who belongs to a group, its losses are
    independent draws of what the group loses. A group without a member has the p-value 1 (nothing is known of it).

    Args:
        losses: [N] in the order of the tests.
        groups: from ``group_masks``, each bool [N].
        p_value: of the losses of a group, in their order; 1 for none.
    """
    return max(p_value(losses[mask]) for mask in groups)


def group_name(group_by: GroupBy, task: Task) -> str | None:
    """Return the name of a group in tables: ``exit``, or the task's word for a stratum; None: there are none."""
    return task.stratum if group_by == "stratum" else group_by


def loss_name(loss: str, task: Task) -> str:
    """Return the name of a certificate's loss in tables, for example ``accuracy drop``."""
    return f"{task.metric} drop" if loss == "drop" else loss


def strata_of(task: Task, targets: Array) -> Strata:
    """Return the stratum of each target, [N], for a certificate that holds in every stratum.

    Raises:
        UsageError: if the task has no strata.
    """
    strata = task.strata(targets)
    if strata is None:
        raise UsageError(
            "The samples of this task have no strata in which a drop could be certified.",
            allowed="group_by: exit, or null",
            next_step="leave --group-by stratum out",
        )
    return strata


def check_strata(strata: Strata, task: Task, least: int, target: str) -> None:
    """Refuse a stratum with fewer samples than a certificate takes even without a single loss.

    Args:
        strata: [N] of the samples that certify.
        task: names the strata.
        least: samples that a stratum needs.
        target: what is asked for, for the error.

    Raises:
        DataError: naming the smallest stratum, how many samples it has and how many it takes.
    """
    names, word = task.strata_names, task.stratum
    counts = np.bincount(strata, minlength=len(names))
    smallest = int(counts.argmin())
    if counts[smallest] >= least:
        return
    few = int((counts < least).sum())
    raise DataError(
        f"The {word} '{names[smallest]}' has {counts[smallest]} of the {len(strata)} samples that certify: too few "
        f"to certify {target} in it, even if nothing is lost"
        + (f"; {few} of {len(names)} have too few." if few > 1 else "."),
        allowed=f"at least {least} of every {word} among those that certify",
        next_step="calibrate on more samples of it, ask for a larger drop or less confidence, or leave "
        "--group-by stratum out (sdcompress calibrate --plan --group-by stratum shows what is within reach)",
    )


def warn_of_strata(
    evidence: Evidence, strata: Strata | None, thresholds: Sequence[float], *, task: Task, max_drop: float
) -> None:
    """Warn where a stratum loses more than the drop that is allowed over all samples, and more than chance explains.

    A drop over all says little of a rare stratum: it weighs as little as it has samples. A stratum is named where so
    many losses would be too unlikely (binomial, 5 % over all strata) if it lost what is allowed.

    Args:
        evidence: of N samples.
        strata: [N], of the task; None: it has none, and nothing is done.
        thresholds: [E-1], of the policy.
        task: names the strata.
        max_drop: the drop that is allowed.
    """
    if strata is None:
        return
    left, names = leave(evidence.scores, thresholds), task.strata_names
    counts = np.bincount(strata, minlength=len(names))
    after, before = (
        np.bincount(strata, weights=1 - loss.astype(np.float64), minlength=len(names))
        for loss in (evidence.loss[left, np.arange(len(left))], evidence.reference)
    )
    lost = before - after
    chance = _CHANCE / len(names)
    hit = [
        k
        for k, (losses, count) in enumerate(zip(lost, counts.tolist(), strict=True))
        if losses >= max(_LEAST_LOST, max_drop * count)
        and 1 - binomial_p_value(math.ceil(losses - 1e-9) - 1, count, max_drop) < chance
    ]
    if not hit:
        return
    worst = max(hit, key=lambda k: lost[k] / counts[k])
    share = 100 / counts[worst]
    figures = f"{before[worst] * share:.1f} to {after[worst] * share:.1f} % of {counts[worst]} samples"
    others = f" {len(hit)} of {len(names)} do, this one most." if len(hit) > 1 else ""
    warnings.warn(
        f"Leaving early costs the {task.stratum} '{names[worst]}' {lost[worst] * share:.1f} points ({figures}), more"
        f" than the {max_drop:.2%} that may be lost over all.{others} To keep the drop in every"
        f" {task.stratum}: --confidence 95% --group-by stratum.",
        stacklevel=2,
    )
