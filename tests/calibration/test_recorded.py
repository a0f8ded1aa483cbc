"""Losses of 0 and 1 give the thresholds that counts of right answers gave, to the bit: recorded before the change."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest

from sdcompress.artifact.evidence import Evidence
from sdcompress.calibration.threshold_path import exit_path, threshold_path
from sdcompress.calibration.thresholds import choose_thresholds
from sdcompress.certification.certify import certified_drop, conformal_risk_control, excess_losses
from sdcompress.policies.learned import Learned
from sdcompress.policies.pcee import Pcee
from sdcompress.tasks import Signals

STAGE_MS = (1.0, 0.75, 1.25)
Array = np.ndarray


def uniform(seed: int, *shape: int) -> Array:
    """From raw output of PCG64, which every version of numpy gives alike."""
    raw = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    return (raw >> np.uint64(11)).astype(np.float64).reshape(shape) * 2.0**-53


def drawn(seed: int, count: int) -> tuple[Array, Array]:
    """Scores and losses of three exits; only arithmetic that every machine does alike."""
    ease = uniform(seed, 4, count).sum(axis=0) - 2
    sure = ease + np.array([[0.3], [0.7], [1.1]]) + 0.7 * (uniform(seed + 1, 3, 4, count).sum(axis=1) - 2)
    right = sure + 0.9 * (uniform(seed + 2, 3, 4, count).sum(axis=1) - 2) > 0
    scores = 0.5 + 0.5 * np.abs(sure) / (1 + np.abs(sure))
    return scores[:-1].astype(np.float32), (~right).astype(np.float32)


TUNING = drawn(1, 3000)
SCORES, LOSS = drawn(10, 6000)
EVIDENCE = Evidence(SCORES, LOSS, strata=(uniform(20, 6000) * 3).astype(np.int32))
PATHS = {"path": threshold_path(*TUNING, STAGE_MS), "exits": exit_path(*TUNING, 40)}


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("max_drop", "thresholds", "shared"),
    [
        (0.0, (0.781584620475769, 0.7379199862480164), 0.8173285126686096),
        (0.004, (0.7596626281738281, 0.735270619392395), 0.7597216367721558),
        (0.02, (0.7506916522979736, 0.6873745918273926), 0.7365105748176575),
        (0.1, (0.6918867826461792, 0.6049789786338806), 0.6643872857093811),
    ],
)
def test_thresholds(max_drop: float, thresholds: tuple[float, float], shared: float) -> None:
    assert choose_thresholds(*TUNING, STAGE_MS, max_drop) == thresholds
    assert choose_thresholds(*TUNING, STAGE_MS, max_drop, shared=True) == (shared, shared)


def test_paths() -> None:
    assert (len(PATHS["path"]), digest(PATHS["path"])) == (60, "d99b4f8e94046cfd")
    assert (len(PATHS["exits"]), digest(PATHS["exits"])) == (55, "23441cf0612edc4a")
    shared = threshold_path(*TUNING, STAGE_MS, shared=True)
    assert (len(shared), digest(shared)) == (621, "765e434ab483a411")


@pytest.mark.parametrize(
    ("group_by", "path", "drop", "certified", "p_values"),
    [
        (None, "path", 0.03, 30, (0.0493242234379783, 0.05902249560916647)),
        ("stratum", "path", 0.03, 27, (0.049844784805245144, 0.050117175877817846)),
        ("exit", "exits", 0.08, 0, (0.20573251853573074,)),
    ],
)
def test_certificates(group_by: Any, path: str, drop: float, certified: int, p_values: tuple[float, ...]) -> None:
    level = certified_drop(EVIDENCE, PATHS[path], "betting", drop, 0.05, group_by=group_by)
    assert level.certified == certified
    assert level.p_values[-2:] == pytest.approx(p_values, rel=1e-12)


def test_a_certificate_of_disagreement_and_a_drop_in_expectation() -> None:
    disagreement = Evidence(SCORES, (LOSS[-1] != LOSS).astype(np.float32))
    level = certified_drop(disagreement, PATHS["path"], "binomial", 0.06, 0.05)
    assert (level.certified, level.p_values[-2:]) == (32, pytest.approx((0.025428863878522105, 0.23263422163874284)))
    assert conformal_risk_control(np.stack([excess_losses(EVIDENCE, step) for step in PATHS["path"]]), 0.02) == 24


def test_fitted_policies() -> None:
    scores, loss = TUNING
    signals = [
        Signals(
            {"max_prob": p, "second_prob": np.float32(1) - p, "entropy": np.float32(4) * p * (np.float32(1) - p)},
            (p > np.float32(0.6)).astype(np.int64),
        )
        for p in (*scores, scores[-1])
    ]
    weights = Learned.fit(signals, loss).weights
    assert weights[0] == pytest.approx(
        [8.890207959625167, 1.4492707912070921, -8.641393951123593, -4.623068993742322, 0]
    )
    policy = Pcee.fit(signals, loss)
    assert digest([policy.edges, policy.levels]) == "409afc993da84659"
