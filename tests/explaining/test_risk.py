"""The bound of each step of a certificate's path, against what it must be by other means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta

from sdcompress.artifact.read import open_artifact
from sdcompress.calibration.calibrate import calibrate
from sdcompress.certification.certify import excess_losses
from sdcompress.certification.p_values import betting_p_value, binomial_p_value
from sdcompress.explaining.risk import risk, upper_bound
from sdcompress.schema import recipe
from sdcompress.tasks import task_of


@pytest.mark.parametrize(("errors", "samples"), [(0, 300), (7, 300), (250, 300)])
def test_of_the_binomial_test_the_bound_is_clopper_and_pearsons(errors: int, samples: int) -> None:
    bound = upper_bound(lambda alpha: binomial_p_value(errors, samples, alpha), 0.05)
    assert bound == pytest.approx(beta.ppf(0.95, errors + 1, samples - errors), abs=1e-6)


def test_of_the_betting_test_the_bound_is_where_it_begins_to_reject() -> None:
    losses = np.random.default_rng(0).choice([-1, 0, 1], 2000, p=[0.01, 0.97, 0.02])
    bound = upper_bound(lambda alpha: betting_p_value(losses, alpha, 0.05), 0.05)
    assert losses.mean() < bound < 0.05
    assert betting_p_value(losses, bound - 1e-5, 0.05) > 0.05 >= betting_p_value(losses, bound + 1e-5, 0.05)


def test_few_samples_bound_nothing() -> None:
    assert upper_bound(lambda alpha: betting_p_value(np.zeros(2), alpha, 1e-9), 1e-9) == 1


def test_the_certified_steps_are_the_first_whose_bound_is_below_the_target(certified_artifact: Path) -> None:
    opened = open_artifact(certified_artifact)
    certificate, policy = opened.manifest.certificate, opened.manifest.policy
    assert certificate is not None
    assert policy is not None
    figures = risk(certificate, policy, opened.evidence(), [1.0, 2.0, 4.0], task_of(opened.manifest))
    kept = [step.bound < figures.max_drop for step in figures.steps]
    assert (figures.max_drop, figures.loss, figures.test) == (0.05, "accuracy drop", "betting")
    assert figures.certified > 0
    assert kept[: figures.certified + 1] == [True] * (figures.certified + 1)
    assert kept[figures.certified + 1 :] in ([], [False])
    assert figures.steps[figures.chosen].thresholds == policy.thresholds
    assert figures.chosen == figures.certified
    assert policy.metric is not None
    assert policy.reference_metric is not None
    assert figures.steps[figures.chosen].loss == pytest.approx(policy.reference_metric - policy.metric)
    assert (figures.steps[0].loss, figures.steps[0].bound, figures.steps[0].mean_ms) == (0, 0, 4)
    assert figures.steps[figures.chosen].mean_ms == pytest.approx(policy.shares @ np.array([1, 2, 4]))


def test_with_groups_the_worst_one_is_shown(tiny_artifact: Callable[..., Path], tiny_network: Any) -> None:
    cascade = tiny_artifact()
    settings = recipe.Calibrate(max_drop=0.08, confidence=0.9, group_by="stratum")
    calibrate(cascade, cascade.parent / "out", samples=tiny_network.samples(3000), settings=settings)
    opened = open_artifact(cascade.parent / "out")
    certificate, policy, evidence = opened.manifest.certificate, opened.manifest.policy, opened.evidence()
    assert certificate is not None
    assert policy is not None
    assert evidence.strata is not None
    figures = risk(certificate, policy, evidence, [1.0, 2.0, 4.0], task_of(opened.manifest))
    lost = excess_losses(evidence, policy.thresholds)
    worst = max(float(lost[evidence.strata == label].mean()) for label in range(3))
    assert figures.group_by == "class"
    assert figures.steps[figures.chosen].loss == pytest.approx(worst)
    assert lost.mean() < worst < figures.steps[figures.chosen].bound < 0.08
