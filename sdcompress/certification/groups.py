"""Groups in each of which a drop is certified: their masks, their joint p-value, their checks and names."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.evidence import Evidence
from sdcompress.certification.p_values import binomial_p_value
from sdcompress.errors import DataError, UsageError
from sdcompress.policies import exit_index_of
from sdcompress.tasks import Array, Task

__all__ = [
    "GroupBy",
    "check_strata",
    "group_masks",
    "group_name",
    "intersection_union_p_value",
    "loss_name",
    "strata_of",
    "warn_of_strata",
]

Mask = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Strata = npt.NDArray[np.integer]
GroupBy = Literal["exit", "stratum"] | None

_CHANCE = 0.05  # of naming a stratum, among all, that loses no more than is allowed
_MIN_LOST = 2.0  # summed loss; a single sample is no evidence about a stratum


def group_masks(evidence: Evidence, thresholds: Sequence[float], group_by: GroupBy) -> Iterator[Mask]:
    """Yield the mask of each group under these thresholds, bool [N]; None: one group of all samples.

    ``"stratum"``: the samples of each stratum. A bound in every stratum holds for all samples too, as their mean.
    ``"exit"``: the samples with an exit index of at most t, for every t, and all samples (Ringel et al., "Early Time
    Classification with Accumulated Accuracy Gap Control", arXiv:2402.00857). If no threshold up to t can be reached,
    the group does not exist. If one can be reached, but by none of these samples, the group exists and is empty:
    nothing is known of it.

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
        exit_index = exit_index_of(evidence.scores, thresholds)
        first = next((k for k, threshold in enumerate(thresholds) if threshold <= 1), len(thresholds))
        yield from (exit_index <= k for k in range(first, len(thresholds)))
    yield np.ones(len(evidence), np.bool_)


def intersection_union_p_value(groups: Iterable[Float64], p_value: Callable[[Float64], float]) -> float:
    """Return the p-value of "in some group the mean loss is above alpha": the largest of the groups' p-values.

    delta is not split over the groups. The hypothesis is a union; where it is true, it is true of some group g. To
    reject it p_g <= delta is needed too, which has a probability of at most delta, however many other groups there are
    and however they depend on each other (intersection-union test; Berger, "Multiparameter Hypothesis Testing and
    Acceptance Sampling", Technometrics 1982). So each step is tested at delta, as fixed-sequence testing asks.

    Membership may depend on a sample's own scores and target: given the members of a group, their losses are
    independent draws from the group. An empty group has the p-value 1.

    Args:
        groups: the losses of each group of ``group_masks``, in the order of the tests.
        p_value: of the losses of a group; 1 for none.
    """
    return max(map(p_value, groups))


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
    """Refuse a stratum with fewer samples than a certificate needs without a single loss.

    Args:
        strata: [N], of the certification samples.
        task: names the strata.
        least: samples that a stratum needs.
        target: drop and confidence in words, for the error.

    Raises:
        DataError: names the smallest stratum, the number of its samples and the number that it needs.
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

    A drop over all samples says little about a rare stratum. A stratum is named if its losses less its gains would be
    too unlikely (5 % over all strata) if it lost what is allowed.

    Args:
        evidence: of N samples.
        strata: [N], of the task; None: it has none, and there is no warning.
        thresholds: [E-1], of the policy.
        task: names the strata.
        max_drop: the drop that is allowed.
    """
    if strata is None:
        return
    exit_index, names = exit_index_of(evidence.scores, thresholds), task.strata_names
    counts = np.bincount(strata, minlength=len(names))
    loss = evidence.loss[exit_index, np.arange(len(exit_index))].astype(np.float64)
    reference = evidence.reference.astype(np.float64)
    after, before, gained = (
        np.bincount(strata, weights=values, minlength=len(names))
        for values in (1 - loss, 1 - reference, np.maximum(reference - loss, 0))
    )
    lost = before - after
    affected = [
        k
        for k, count in enumerate(counts.tolist())
        if _is_beyond_chance(lost[k], gained[k], count, max_drop, _CHANCE / len(names))
    ]
    if not affected:
        return
    worst = max(affected, key=lambda k: lost[k] / counts[k])
    share = 100 / counts[worst]
    figures = f"{before[worst] * share:.1f} to {after[worst] * share:.1f} % on {counts[worst]} samples"
    others = f" {len(affected)} of {len(names)} do, this one most." if len(affected) > 1 else ""
    cause = "Early exit" if evidence.reference_loss is None else "Compared with the reference, this network"
    warnings.warn(
        f"{cause} costs the {task.stratum} '{names[worst]}' {lost[worst] * share:.1f} points of {task.metric}"
        f" ({figures}), more than the {max_drop:.2%} that may be lost over all.{others} To keep the drop in every"
        f" {task.stratum}: --confidence 95% --group-by stratum.",
        stacklevel=2,
    )


def _is_beyond_chance(lost: float, gained: float, count: int, max_drop: float, chance: float) -> bool:
    """Whether chance does not explain what a stratum loses, if its mean loss is ``max_drop``.

    Args:
        lost: sum of the losses less the gains.
        gained: sum of the gains, where an exit is better than the reference.
        count: samples.
        max_drop: the drop that is allowed.
        chance: probability that counts as too small.
    """
    allowed = max_drop * count
    if lost < max(_MIN_LOST, allowed):
        return False
    if 1 - binomial_p_value(math.ceil(lost - 1e-9) - 1, count, max_drop) >= chance:
        return False
    # gains spread the sum wider than a binomial one: of x in [-1, 1], E x^2 <= E |x| = E x + 2 E max(-x, 0)
    deviation = math.sqrt(allowed * (1 - max_drop) + 2 * gained)
    return lost - allowed >= NormalDist().inv_cdf(1 - chance) * deviation
