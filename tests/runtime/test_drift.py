"""The tests for drift: bounds against scipy, alarms by simulation, and the levels of a real certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

import sdcompress
from sdcompress.artifact.read import open_artifact
from sdcompress.certification.p_values import binomial_p_value, upper_bound
from sdcompress.errors import UsageError
from sdcompress.policies import exit_index_of
from sdcompress.runtime.drift import AuditTest, DriftMonitor, ShareTest
from sdcompress.runtime.levels import Level, certified_levels
from sdcompress.schema.manifest import Manifest

LEVEL = Level(0.01, (0.9, 0.9), 4000, (0.6, 0.3, 0.1), 0.01)


def drawn(shares: tuple[float, ...], rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(len(shares), rows, p=shares)


@pytest.mark.parametrize(("errors", "samples", "delta"), [(0, 300, 0.05), (7, 90, 0.01), (2400, 4000, 0.001)])
def test_the_bound_of_losses_of_0_and_1_is_that_of_clopper_and_pearson(errors: int, samples: int, delta: float) -> None:
    expected = scipy.stats.beta.ppf(1 - delta, errors + 1, samples - errors)
    assert upper_bound(errors, samples, delta, binary_loss=True) == pytest.approx(expected, rel=1e-5)


def test_the_bound_of_graded_losses_is_that_of_bentkus() -> None:
    bound = upper_bound(12.3, 400, 0.05, binary_loss=False)
    assert np.e * binomial_p_value(13, 400, bound) == pytest.approx(0.05, rel=1e-3)
    assert upper_bound(40, 40, 0.05, binary_loss=True) == 1


def test_shares_as_calibrated_give_no_alarm_and_others_do() -> None:
    test = ShareTest([LEVEL])
    test.answered(drawn((0.6, 0.3, 0.1), 20_000))
    assert test.evidence < 1
    test.answered(drawn((0.45, 0.3, 0.25), 1000))
    assert test.evidence >= 1
    assert test.rows == 21_000


def test_a_share_is_only_as_certain_as_the_calibration_was_large() -> None:
    few, many = (ShareTest([Level(0.01, (0.9, 0.9), n, (0.6, 0.3, 0.1))]) for n in (100, 10_000))
    for test in (few, many):
        test.answered(drawn((0.53, 0.36, 0.11), 4000))
    assert few.evidence < 1 <= many.evidence
    tolerant = ShareTest([Level(0.01, (0.9, 0.9), 10_000, (0.6, 0.3, 0.1))], tolerance=0.08)
    tolerant.answered(drawn((0.53, 0.36, 0.11), 4000))
    assert tolerant.evidence < 1


def test_rows_are_counted_in_blocks_however_they_come() -> None:
    exits = drawn((0.5, 0.4, 0.1), 320)
    whole, single = ShareTest([LEVEL]), ShareTest([LEVEL])
    whole.answered(exits)
    for row in exits:
        single.answered(np.array([row]))
    assert single.evidence == pytest.approx(whole.evidence)
    assert single.evidence != 0


def test_each_level_is_compared_with_its_own_shares() -> None:
    loose = Level(0.02, (0.8, 0.8), 4000, (0.8, 0.15, 0.05), 0.02)
    test = ShareTest([LEVEL, loose])
    for seed in range(20):
        test.answered(drawn(LEVEL.shares, 500, seed), 0)
        test.answered(drawn(loose.shares, 500, seed + 100), 1)
    assert test.evidence < 1
    test.answered(drawn(loose.shares, 1000), 0)
    assert test.evidence >= 1


def test_a_block_ends_after_as_many_rows_whatever_their_levels() -> None:
    """If each level had blocks of its own, the level would decide which rows are counted first, and rows decide it."""
    loose = Level(0.02, (0.8, 0.8), 4000, (0.8, 0.15, 0.05), 0.02)
    mixed = ShareTest([LEVEL, loose])
    for _ in range(31):
        mixed.answered(np.array([2]), 0)
    assert mixed.evidence == 0
    mixed.answered(np.array([0]), 1)
    assert mixed.evidence > 0
    # 31 of 32 at the last exit, and the alternative with odds of 4: its stake grows by 4^31 / (1 + 3 m)^31 / (1 + 3 n),
    # with m and n the bounds of the two levels, each at a fifth of delta for two levels with six bounds each
    m, n = (upper_bound(4000 * level.shares[2], 4000, 0.2 * 0.025 / 12, binary_loss=True) for level in (LEVEL, loose))
    stake = 0.5 / 18 * 4**31 / (1 + 3 * m) ** 31 / (1 + 3 * n)
    assert mixed.evidence * np.log(50) == pytest.approx(np.log(stake), rel=1e-3)


def test_audits_at_the_bound_of_their_level_give_no_alarm_and_twice_of_it_does() -> None:
    loose = Level(0.05, (0.8, 0.8), 4000, (), 0.05)
    test, rng = AuditTest([LEVEL, loose]), np.random.default_rng(3)
    test.audited(rng.random(2000) < 0.01, 0)
    test.audited(rng.random(2000) < 0.05, 1)
    assert test.evidence < 1
    assert (test.audits, test.loss) == (4000, pytest.approx(120, abs=40))
    twice = AuditTest([LEVEL])
    twice.audited(rng.random(3000) < 0.02)
    assert twice.evidence >= 1


def test_a_level_without_a_bound_is_not_tested() -> None:
    test = AuditTest([Level(0.01, (0.9, 0.9), 4000)])
    test.audited(np.ones(1000))
    assert (test.evidence, test.audits) == (0, 0)
    shares = ShareTest([Level(0.01, (0.9, 0.9), 4000)])
    shares.answered(np.zeros(1000, np.int64))
    assert shares.evidence == 0


def test_an_alarm_stays_until_it_is_reset() -> None:
    monitor = DriftMonitor([LEVEL], seed=0)
    assert monitor.alarm is None
    monitor.audited(np.ones(5))
    assert monitor.alarm == "disagreement"
    monitor.audited(np.zeros(1000))
    assert (monitor.alarm, monitor.audits.audits) == ("disagreement", 5)
    monitor.reset()
    assert (monitor.alarm, monitor.audits.audits) == (None, 0)
    monitor.answered(np.full(320, 2))
    assert monitor.alarm == "exit shares"


def test_a_hundredth_of_the_rows_is_audited_whatever_they_are() -> None:
    monitor = DriftMonitor([LEVEL], audit_share=0.01, seed=0)
    chosen = np.concatenate([monitor.choose(rows) for rows in (1, 7, 64, 20_000)])
    assert chosen.mean() == pytest.approx(0.01, abs=0.003)


def at_the_smaller_drop(manifest: Manifest) -> Manifest:
    """The artifact as if it had been calibrated for the smaller of its drops."""
    assert manifest.certificate is not None
    assert manifest.policy is not None
    small = manifest.certificate.levels[0]
    policy = manifest.policy.model_copy(
        update={
            "max_drop": small.max_drop,
            "thresholds": manifest.certificate.path[small.certified],
            "shares": small.shares,
            "disagreement": small.disagreement,
        }
    )
    return manifest.model_copy(update={"policy": policy})


def test_the_levels_of_a_certificate_begin_with_the_policys(certified_once: Path) -> None:
    artifact = open_artifact(certified_once)
    manifest, evidence = artifact.manifest, artifact.evidence()
    assert [level.max_drop for level in certified_levels(manifest)] == [0.05]  # the smaller drop is no step down
    small, large = certified_levels(at_the_smaller_drop(manifest))
    assert (small.max_drop, large.max_drop) == (0.02, 0.05)
    assert manifest.policy is not None
    assert large.thresholds == manifest.policy.thresholds
    for level in (small, large):
        exit_index = exit_index_of(evidence.scores, level.thresholds)
        assert level.shares == tuple(np.bincount(exit_index, minlength=3) / len(evidence))
        assert level.disagreement is not None
        assert level.disagreement >= level.max_drop
    assert evidence.disagreement is not None
    exit_index = exit_index_of(evidence.scores, large.thresholds)
    early = np.flatnonzero(exit_index < 2)
    errors = int(evidence.disagreement[exit_index[early], early].sum())
    expected = scipy.stats.beta.ppf(1 - 0.005 / 2, errors + 1, len(evidence) - errors)  # of two levels
    assert large.disagreement == pytest.approx(max(0.05, expected), rel=1e-5)


def test_a_certificate_of_disagreement_is_its_own_bound(certified_once: Path) -> None:
    manifest = open_artifact(certified_once).manifest
    assert manifest.certificate is not None
    unlabelled = manifest.certificate.model_copy(update={"loss": "disagreement"})
    (level,) = certified_levels(manifest.model_copy(update={"certificate": unlabelled}))
    assert level.disagreement == 0.05


def test_an_engine_without_a_certificate_cannot_be_watched(tiny_artifact, certified_once: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="no certificate"):
        DriftMonitor.for_engine(sdcompress.open(tiny_artifact(policy=(0.9, 0.9))))
    assert DriftMonitor.for_engine(sdcompress.open(certified_once)).alarm is None


def test_the_example_of_the_page_watches_an_engine(certified_once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs/drift.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0].replace("artifacts/early-exit", str(certified_once))
    names: dict[str, Any] = {}
    exec(compile(code, "drift.md", "exec"), names)
    monitor, engine, answer = names["monitor"], names["engine"], names["answer"]
    inputs = np.random.default_rng(0).normal(size=(64, 1, 4, 4)).astype(np.float32)
    monkeypatch.setattr(monitor, "choose", lambda rows: np.arange(rows) % 2 == 0)
    assert answer(inputs).exit_index.tolist() == engine(inputs).exit_index.tolist()
    assert (monitor.shares.rows, monitor.audits.audits) == (64, 32)
    monitor.audited(np.ones(20))
    assert answer(inputs).exit_index.tolist() == [2] * 64
