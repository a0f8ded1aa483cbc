"""A drop that holds in every group: in every stratum, or for what has left by an exit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from sdcompress.artifact.evidence import Evidence
from sdcompress.artifact.read import open_artifact
from sdcompress.calibration.calibrate import calibrate
from sdcompress.calibration.plan_sample_size import plan
from sdcompress.calibration.threshold_path import exit_path, threshold_path
from sdcompress.calibration.thresholds import NEVER
from sdcompress.certification.certify import certified_drop, excess_losses
from sdcompress.certification.groups import check_strata, group_masks, intersection_union_p_value, warn_of_strata
from sdcompress.certification.p_values import betting_p_value, binomial_p_value
from sdcompress.certification.power_analysis import samples_for_betting
from sdcompress.certification.recompute import verify_certificate
from sdcompress.data.samples import ArraySamples, Subset
from sdcompress.errors import CertificateError, DataError
from sdcompress.evaluation.exit_outcomes import exit_outcomes
from sdcompress.policies import exit_index_of
from sdcompress.runtime.open import open_engine
from sdcompress.schema import recipe
from sdcompress.tasks.classification import Classification

Build = Callable[..., Path]
RUNS, DELTA, DROP = 50, 0.1, 0.04


def evidence(scores: Sequence[Sequence[float]], strata: Sequence[int] | None = None) -> Evidence:
    found = np.array(scores, np.float32)
    loss = np.zeros((len(found) + 1, found.shape[1]), np.float32)
    return Evidence(found, loss, None if strata is None else np.array(strata, np.int32))


def as_lists(found: Evidence, thresholds: Sequence[float], group_by: Any) -> list[list[int]]:
    return [np.flatnonzero(mask).tolist() for mask in group_masks(found, thresholds, group_by)]


def test_members_by_hand() -> None:
    found = evidence([[0.9, 0.5, 0.1], [0.2, 0.8, 0.3]], [2, 0, 2])
    assert as_lists(found, (0.6, 0.7), None) == [[0, 1, 2]]
    assert as_lists(found, (0.6, 0.7), "stratum") == [[1], [0, 2]]
    assert as_lists(found, (0.6, 0.7), "exit") == [[0], [0, 1], [0, 1, 2]]
    # where no threshold can fire there is no group; where one can, but does not, there is an empty one
    assert as_lists(found, (NEVER, 0.7), "exit") == [[1], [0, 1, 2]]
    assert as_lists(found, (NEVER, NEVER), "exit") == [[0, 1, 2]]
    assert as_lists(found, (0.95, 0.7), "exit") == [[], [1], [0, 1, 2]]


def test_the_worst_group_decides_and_nothing_is_known_of_an_empty_one() -> None:
    lost = np.array([0, 0, 0, 1.0])
    masks = [np.array(mask, bool) for mask in ([1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1])]

    def p_value(found: np.ndarray) -> float:
        return binomial_p_value(int(found.sum()), len(found), 0.5)

    groups = [lost[mask] for mask in masks]
    assert intersection_union_p_value(groups[:1], p_value) == pytest.approx(0.25)
    assert intersection_union_p_value(groups, p_value) == pytest.approx(0.75)  # one of two, against one half
    assert intersection_union_p_value([groups[0], lost[:0]], p_value) == 1.0


def test_a_group_at_alpha_among_good_ones_is_passed_no_more_often_than_delta() -> None:
    """Five groups that split no delta, of which one loses exactly alpha, or two: then it is rarer still."""
    rng = np.random.default_rng(0)
    passed = {1: 0, 2: 0}
    for bad in passed:
        rates = np.array([DROP] * bad + [0.0] * (5 - bad))
        for _ in range(1000):
            labels = rng.integers(0, 5, 1000)
            lost = (rng.random(1000) < rates[labels]).astype(np.float64)
            groups = (lost[labels == label] for label in range(5))
            p_value = intersection_union_p_value(groups, lambda x: binomial_p_value(int(x.sum()), len(x), DROP))
            passed[bad] += p_value <= DELTA
    assert 1000 * DELTA * 0.3 < passed[1] <= scipy.stats.binom.ppf(0.9999, 1000, DELTA)
    assert passed[2] < passed[1]


@pytest.fixture(scope="module")
def population() -> Evidence:
    """Three exits; of four classes one is harder for the exits than for the whole network."""
    rng, count = np.random.default_rng(0), 100_000
    labels = rng.integers(0, 4, count).astype(np.int32)
    ease = rng.normal(size=count)
    handicap = np.where(labels == 3, 0.5, 0.0)
    sure = [ease + depth + 0.7 * rng.normal(size=count) for depth in (0.9, 1.5, 2.4)]
    right = [
        value - penalty + 0.7 * rng.normal(size=count) > 0
        for value, penalty in zip(sure, (handicap, 0, 0), strict=True)
    ]
    confidences = [1 / (1 + np.exp(-1.5 * np.abs(value))) for value in sure[:2]]
    return Evidence(np.array(confidences, np.float32), 1 - np.array(right, np.float32), labels)


def some(whole: Evidence, rows: np.ndarray) -> Evidence:
    assert whole.strata is not None
    return Evidence(whole.scores[:, rows], whole.loss[:, rows], whole.strata[rows])


@pytest.mark.parametrize("group_by", ["stratum", "exit"])
def test_calibrations_that_break_their_promise_in_a_group_are_as_rare_as_they_say(
    population: Evidence, group_by: Any
) -> None:
    rng = np.random.default_rng(1)
    broken = useful = over_all = 0
    for _ in range(RUNS):
        rows = rng.integers(0, 100_000, 4000)
        tuning, rest = some(population, rows[:700]), some(population, rows[700:])
        paths = {None: threshold_path(tuning.scores, tuning.loss, (1.0, 1.0, 1.0))}
        paths["stratum"], paths["exit"] = paths[None], exit_path(tuning.scores, tuning.loss, 40)
        for groups in (group_by, None):
            level = certified_drop(rest, paths[groups], "betting", DROP, DELTA, group_by=groups)
            used = paths[groups][level.certified]
            lost = excess_losses(population, used)
            worst = max(float(lost[mask].mean()) for mask in group_masks(population, used, group_by))
            if groups is None:
                over_all += worst > DROP
            else:
                broken += worst > DROP
                useful += level.certified > 0
    assert broken <= scipy.stats.binom.ppf(0.9999, RUNS, DELTA)
    assert useful > RUNS * 0.6
    assert over_all > RUNS * 0.4  # what a promise about the mean is worth to a group


def test_what_holds_up_to_each_exit_leaves_a_single_later_exit_open() -> None:
    """9,000 samples lose nothing at the first exit, so that 40 of 1,000 at the second are 0.4 % up to it."""
    scores = np.zeros((2, 15_000), np.float32)
    scores[0, :9000] = scores[1, 9000:10_000] = 1
    loss = np.zeros((3, 15_000), np.float32)
    loss[1, 9000:9040] = 1
    order = np.random.default_rng(0).permutation(15_000)
    found = Evidence(scores[:, order], loss[:, order])
    level = certified_drop(found, ((NEVER, NEVER), (0.5, 0.5)), "betting", 0.01, 0.05, group_by="exit")
    assert level.certified == 1
    second = exit_index_of(found.scores, (0.5, 0.5)) == 1
    assert excess_losses(found, (0.5, 0.5))[second].mean() == pytest.approx(0.04)


def test_a_path_for_single_exits_opens_an_exit_only_where_enough_leave() -> None:
    rng = np.random.default_rng(2)
    sure = rng.beta(4, 1, (3, 2000))
    right = rng.random((3, 2000)) < sure**0.3
    confidences = sure[:2].astype(np.float32)
    path = exit_path(confidences, 1 - right.astype(np.float32), 150)
    assert path[0] == (NEVER, NEVER)
    assert len(path) > 20
    mistakes = right[-1] & ~right
    for before, step in pairwise(path):
        assert all(late <= early for late, early in zip(step, before, strict=True))
        left = exit_index_of(confidences, step)
        for exit_ in range(2):
            gone = left <= exit_
            if step[exit_] <= 1:
                assert gone.sum() >= 150
    first = exit_index_of(confidences, path[1])
    assert not mistakes[first, np.arange(2000)].any()  # it starts where nothing is lost


def test_a_path_for_single_exits_by_hand() -> None:
    confidences = np.array([[0.9, 0.8, 0.8, 0.7, 0.6, np.nan], [0.1, 0.1, 0.1, 0.1, 0.5, 0.4]], np.float32)
    loss = np.zeros((3, 6), np.float32)
    loss[0, 3] = 1  # the mistake at 0.7
    path = exit_path(confidences, loss, 2)
    eight, six, one = (float(np.float32(value)) for value in (0.8, 0.6, 0.1))
    # without a mistake: three leave at 0.8, all others one exit later; with one in five, five leave at 0.6
    assert path == ((NEVER, NEVER), (eight, one), (six, one))
    assert exit_path(confidences, loss, 4)[1] == (NEVER, one)  # three are too few: the first exit stays shut


def grouped(build: Build, samples: Any, group_by: str, **settings: Any) -> Path:
    cascade = build(name=f"cascade-{group_by}")
    wish = recipe.Calibrate(**{"max_drop": 0.08, "confidence": 0.9, "group_by": group_by, **settings})
    calibrate(cascade, cascade.parent / group_by, samples=samples, settings=wish)
    return cascade.parent / group_by


@pytest.mark.parametrize("group_by", ["stratum", "exit"])
def test_an_artifact_holds_what_its_groups_are_computed_from(
    tiny_artifact: Build, tiny_network: Any, group_by: str
) -> None:
    out = grouped(tiny_artifact, tiny_network.samples(6000), group_by)
    opened = open_artifact(out)
    certificate, policy, found = opened.manifest.certificate, opened.manifest.policy, opened.evidence()
    assert certificate is not None
    assert policy is not None
    assert (certificate.group_by, policy.guarantee) == (group_by, "certified")
    assert verify_certificate(opened) == certificate
    assert (found.strata is not None) == (group_by == "stratum")
    lost = excess_losses(found, policy.thresholds)
    assert all(lost[mask].mean() <= 0.08 for mask in group_masks(found, policy.thresholds, certificate.group_by))
    text = (out / "README.md").read_text(encoding="utf-8")
    by_exit = "like them that leave at an exit or before it, whichever exit, and of all of them"
    assert ("of each class like them" if group_by == "stratum" else by_exit) in text
    assert ("of single classes or exits after the first" in text) == (group_by == "exit")


def test_without_labels_single_exits_are_certified_too(tiny_artifact: Build, tiny_network: Any) -> None:
    out = grouped(tiny_artifact, tiny_network.samples(6000), "exit", unlabelled=True)
    certificate = verify_certificate(open_artifact(out))
    assert certificate is not None
    assert (certificate.test, certificate.group_by) == ("binomial", "exit")
    assert certificate.levels[0].certified > 0


def test_other_labels_or_other_groups_are_found(tiny_artifact: Build, tiny_network: Any) -> None:
    out = grouped(tiny_artifact, tiny_network.samples(6000), "stratum")
    opened = open_artifact(out)
    certificate, found = opened.manifest.certificate, opened.evidence()
    assert certificate is not None
    assert found.strata is not None
    for edit, words in (
        ({"group_by": None}, "p-value|tests"),
        ({"group_by": "exit"}, "p-value|tests"),
    ):
        forged = opened.manifest.model_copy(update={"certificate": certificate.model_copy(update=edit)})
        with pytest.raises(CertificateError, match=words):
            verify_certificate(type(opened)(opened.path, forged))
    for strata, words in ((found.strata[::-1].copy(), "p-value|tests"), (found.strata // 2, "samples of 2 strata")):
        Evidence(found.scores, found.loss, strata).save(out / "certificate.npz")
        with pytest.raises(CertificateError, match=words):
            verify_certificate(opened)


def few_of_one_class(network: Any, count: int, few: int) -> ArraySamples:
    """Samples of which only so many have the class 'disc'."""
    whole = network.samples(count)
    rows = np.concatenate([np.flatnonzero(whole.targets != 1), np.flatnonzero(whole.targets == 1)[:few]])
    return ArraySamples(whole.examples(rows), whole.targets[rows])


@pytest.mark.parametrize("few", [0, 20])
def test_a_class_with_too_few_samples_is_named(tiny_artifact: Build, tiny_network: Any, few: int) -> None:
    samples = few_of_one_class(tiny_network, 3000, few)
    with pytest.raises(DataError, match=r"class 'disc' has \d+ of the \d+ samples that certify") as caught:
        grouped(tiny_artifact, samples, "stratum")
    assert "at least 31 of every class" in caught.value.allowed
    assert "--plan --group-by stratum" in caught.value.next_step


def test_the_smallest_class_is_told_with_how_many_there_are() -> None:
    labels = np.repeat([0, 1, 2], [300, 20, 40])
    with pytest.raises(DataError, match=r"'b' has 20 of the 360 .*; 2 of 3 have too few"):
        check_strata(labels, Classification(("a", "b", "c")), 50, "a drop of 5 %")
    check_strata(labels, Classification(("a", "b", "c")), 20, "a drop of 5 %")


def test_a_plan_speaks_of_the_smallest_class(tiny_artifact: Build, tiny_network: Any) -> None:
    samples, cascade = few_of_one_class(tiny_network, 3000, 300), tiny_artifact()
    wish = recipe.Calibrate(max_drop=0.08, confidence=0.9)
    whole = plan(cascade, samples=samples, settings=wish)
    found = plan(cascade, samples=samples, settings=wish.model_copy(update={"group_by": "stratum"}))
    assert found.smallest_stratum == f"'disc', 300 of {len(samples)}"
    share = 300 / len(samples)
    # all three classes have to pass: each is planned with the third root of 80 %, so that the product is 80 %
    planned = [samples_for_betting((1, 0), (0.02, 0.98), 0.08, 0.1, power) for power in (0.8, 0.8 ** (1 / 3))]
    for one, needed, of_all in zip((whole, found), planned, (1.0, share), strict=True):
        assert one.assumed[1].samples_needed == pytest.approx((needed or 0) / of_all * 6 / 5, rel=0.01)
    # 31 of the class certify 8 % at 90 %, since 1.08 ** 30 > 10 > 1.08 ** 29 and the last bet is not a whole one
    assert found.minimum_samples - found.minimum_samples // 6 == np.ceil(31 / share)
    exits = plan(cascade, samples=samples, settings=wish.model_copy(update={"group_by": "exit"}))
    assert (exits.group_by, exits.smallest_stratum, exits.assumed) == ("exit", None, ())
    assert exits.observed


def test_with_the_planned_number_ten_equal_classes_pass_together_as_often_as_one() -> None:
    rng = np.random.default_rng(0)

    def passed(power: float, classes: int, runs: int = 50) -> float:
        needed = samples_for_betting((1, 0), (0.01, 0.99), 0.02, 0.05, power)
        assert needed is not None
        drawn = rng.random((runs, classes, needed)) < 0.01
        p_values = [[betting_p_value(lost.astype(np.int8), 0.02, 0.05) for lost in one] for one in drawn]
        return float((np.max(p_values, axis=1) <= 0.05).mean())

    assert passed(0.8 ** (1 / 10), 10) >= 0.8
    assert passed(0.8, 10) < 0.5


def unbalanced(lost: int, rare: int = 40) -> tuple[Evidence, np.ndarray]:
    """960 images of one class and some of a rare one; all leave at once, and so many of the rare are then wrong."""
    labels = np.repeat([0, 1], [960, rare])
    loss = np.zeros((2, len(labels)), np.float32)
    loss[0, 960 : 960 + lost] = 1
    return Evidence(np.ones((1, len(labels)), np.float32), loss), labels


def test_a_class_that_loses_more_than_the_drop_is_named() -> None:
    # 10 of 40 are 25 points; over all 1,000 it is the one point that was allowed
    found, labels = unbalanced(10)
    said = r"class 'rare' 25\.0 points of accuracy \(100\.0 to 75\.0 % on 40 samples\), more than the 1\.00%"
    with pytest.warns(UserWarning, match=f"{said}.*--group-by stratum"):
        warn_of_strata(found, labels, (0.5,), task=Classification(("common", "rare")), max_drop=0.01)


def test_two_images_of_five_are_named() -> None:
    found, labels = unbalanced(2, rare=5)
    with pytest.warns(UserWarning, match=r"class 'rare' 40\.0 points of accuracy \(100\.0 to 60\.0 % on 5 samples\)"):
        warn_of_strata(found, labels, (0.5,), task=Classification(("common", "rare")), max_drop=0.01)


@pytest.mark.parametrize(
    ("lost", "rare", "drop"),
    [
        (5, 40, 0.09),  # 12.5 points for 9: chance gives 5 or more of 40 in 3 of 10 such classes
        (3, 100, 0.01),  # and 3 or more of 100 in 8 of 100
        (1, 5, 0.01),  # one image is no loss of a class
        (0, 40, 0.0),
    ],
)
def test_a_class_that_loses_little_or_one_image_is_not(lost: int, rare: int, drop: float) -> None:
    found, labels = unbalanced(lost, rare)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_strata(found, labels, (0.5,), task=Classification(("common", "rare")), max_drop=drop)
        warn_of_strata(
            unbalanced(40)[0], unbalanced(40)[1], (NEVER,), task=Classification(("common", "rare")), max_drop=0
        )


def test_gains_make_the_same_loss_less_unlikely() -> None:
    # 15 of 1,000 for 5 allowed are beyond chance if 15 are lost, and not if 60 are lost and 45 gained
    labels = np.repeat([0, 1], 1000)
    for lost, gained, named in ((15, 0, True), (60, 45, False)):
        loss = np.zeros((2, 2000), np.float32)
        loss[0, :lost] = 1
        loss[1, lost : lost + gained] = 1
        found = Evidence(np.ones((1, 2000), np.float32), loss)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warn_of_strata(found, labels, (0.5,), task=Classification(("a", "b")), max_drop=0.005)
        assert bool(caught) == named


def test_a_loss_from_a_reference_is_not_blamed_on_early_exit() -> None:
    found, labels = unbalanced(0)
    loss = np.ones_like(found.loss)
    against = Evidence(found.scores, loss, reference_loss=np.zeros(len(labels), np.float32))
    with pytest.warns(UserWarning, match=r"Compared with the reference, this network costs the class"):
        warn_of_strata(against, labels, (NEVER,), task=Classification(("common", "rare")), max_drop=0.01)


def test_the_worst_of_several_classes_is_named_with_their_number() -> None:
    labels = np.repeat([0, 1, 2], [100, 20, 10])
    loss = np.zeros((2, 130), np.float32)
    loss[0, 100:104], loss[0, 120:125] = 1, 1
    found = Evidence(np.ones((1, 130), np.float32), loss)
    with pytest.warns(UserWarning, match=r"class 'c' 50\.0 points.* 2 of 3 do, this one most\."):
        warn_of_strata(found, labels, (0.5,), task=Classification(("a", "b", "c")), max_drop=0.05)


@pytest.mark.parametrize("wish", [{}, {"confidence": 0.9}, {"in_expectation": True}])
def test_every_calibration_with_labels_warns_of_a_class_that_pays(
    tiny_artifact: Build, tiny_network: Any, wish: dict[str, Any]
) -> None:
    samples, artifact = tiny_network.samples(3000), tiny_artifact()
    found, _, _ = exit_outcomes(open_engine(artifact, threads=1), samples)
    right = np.stack([exit_.decision == samples.targets for exit_ in found])
    certain = found[0]["max_prob"] > np.quantile(found[0]["max_prob"], 0.3)
    rare = np.flatnonzero((samples.targets == 2) & right[-1] & ~right[0] & certain)[:40]
    chosen = Subset(
        samples, np.sort(np.concatenate([np.flatnonzero((samples.targets != 2) & right.all(axis=0)), rare]))
    )
    settings = recipe.Calibrate(max_drop=0.02, fit_temperature=False, **wish)
    with pytest.warns(UserWarning, match=r"class '\w+' .* more than the 2\.00%") as caught:
        calibrate(artifact, artifact.parent / "out", samples=chosen, settings=settings)
    assert len(rare) >= 10
    assert sum("--group-by stratum" in str(one.message) for one in caught) == 1
