"""Which exits pay, by hand; and no early exit where the whole network is faster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sdcompress.artifact.evidence import Evidence
from sdcompress.artifact.read import open_artifact
from sdcompress.calibration import exit_choice
from sdcompress.calibration.calibrate import calibrate
from sdcompress.calibration.exit_choice import ExitCosts, KeptExits, faster_form, paying_exits
from sdcompress.calibration.thresholds import NEVER
from sdcompress.certification.recompute import verify_certificate
from sdcompress.runtime.open import open_engine
from sdcompress.schema.manifest import Policy
from sdcompress.schema.recipe import Calibrate

N = 100


@pytest.fixture(autouse=True)
def _usual_gain(monkeypatch: pytest.MonkeyPatch, every_exit_pays: float) -> None:
    monkeypatch.setattr(exit_choice, "_LEAST_GAIN", every_exit_pays)


def evidence(first: int, second: int) -> Evidence:
    """Two early exits that know so many samples and say so; the last exit knows all."""
    scores, loss = np.zeros((2, N), np.float32), np.zeros((3, N), np.float32)
    for exit_, known in enumerate((first, second)):
        scores[exit_, :known], loss[exit_, known:] = 0.9, 1
    return Evidence(scores, loss)


def test_an_exit_that_is_left_out_costs_neither_its_head_nor_its_decision() -> None:
    """Two heads cost 6 - 5 = 1 ms, one of them half of that."""
    costs = ExitCosts(np.array([1.0, 3.0, 6.0]), 5.0, (0.1, 0.3))
    assert costs.head_ms == 0.5
    assert costs.to([2]) == pytest.approx([5.0])
    assert costs.to([0, 2]) == pytest.approx([1.1, 5.6])
    assert costs.to([1, 2]) == pytest.approx([2.8, 5.8])
    assert costs.to([0, 1, 2]) == pytest.approx([1.1, 3.4, 6.4])
    # heads that seem to cost as much as all stages: no exit is reached before an earlier one, nor in no time
    dear = ExitCosts(np.array([2.0, 2.1, 2.2]), 0.0, (0.0, 0.0))
    assert dear.to([0, 2]) == pytest.approx([2.0, 2.0])
    assert dear.to([2]) == pytest.approx([1e-3])


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (50, 52, (0, 2)),  # the second exit saves 2 samples 3 ms, and costs all that reach it 0.5 ms
        (2, 60, (1, 2)),
        (40, 80, (0, 1, 2)),
        (50, 57, (0, 2)),  # 3.29 ms with the second exit, 3.25 without it
        (50, 58, (0, 1, 2)),  # 3.26 ms, of which a saving of 0.01 may be noise
        (50, 59, (0, 1, 2)),  # 3.23 ms: it would be slower by as little
    ],
)
def test_an_exit_is_kept_that_saves_more_than_it_costs(first: int, second: int, kept: tuple[int, ...]) -> None:
    costs = ExitCosts(np.array([1.0, 3.0, 6.0]), 5.0, (0.0, 0.0))
    assert paying_exits(evidence(first, second), costs, 0.001) == kept


def test_of_many_samples_a_part_that_is_spread_over_them_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exit_choice, "_MOST_SAMPLES", N // 2)
    sizes, choose = set[int](), exit_choice.choose_thresholds

    def counted(scores: Any, *args: Any) -> tuple[float, ...]:
        sizes.add(scores.shape[1])
        return choose(scores, *args)

    monkeypatch.setattr(exit_choice, "choose_thresholds", counted)
    costs = ExitCosts(np.array([1.0, 3.0, 6.0]), 5.0, (0.0, 0.0))
    assert paying_exits(evidence(2, 60), costs, 0.001) == (1, 2)
    assert sizes == {N // 2}


def test_one_early_exit_stays_so_that_it_can_be_measured() -> None:
    assert len(paying_exits(evidence(0, 0), ExitCosts(np.array([1.0, 3.0, 6.0]), 5.0, (0.0, 0.0)), 0.001)) == 2


def test_thresholds_of_the_kept_exits_are_never_at_the_others() -> None:
    kept = KeptExits((1, 3), (1.0, 2.0), 4)
    assert kept.widened(((NEVER,), (0.5,))) == ((NEVER, NEVER, NEVER), (NEVER, 0.5, NEVER))
    assert kept.of(Evidence(np.eye(3, 5, dtype=np.float32), np.eye(4, 5, dtype=np.float32))).scores.tolist() == [
        [0, 1, 0, 0, 0]
    ]


def policy(threshold: float) -> Policy:
    shares = (0.5, 0.5) if threshold <= 1 else (0.0, 1.0)
    return Policy(
        thresholds=(threshold,), max_drop=0.01, samples=N, metric=0.9, reference_metric=0.9, shares=shares,
        stage_ms=(1.0, 3.0), decision_ms=(0.5,), overhead=1.2,
    )  # fmt: skip


def formed(monkeypatch: pytest.MonkeyPatch, early: float, whole: float, **settings: Any) -> Policy:
    monkeypatch.setattr(exit_choice, "compared_ms", lambda *_, **__: np.array([early, whole]))
    engine: Any = SimpleNamespace(with_policy=lambda *_: None)
    never: Any = None
    return faster_form(
        policy(0.8), policy(NEVER), engine, never, (1.0, 1.0), exit_index=never, settings=Calibrate(**settings)
    )


def test_where_the_whole_network_is_faster_no_sample_exits_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the samples take 1.5 ms, half 4.5: 3 ms, by an overhead of 1.2 they are 3.6."""
    with pytest.warns(UserWarning, match=r"whole network is faster .* 1\.800 ms against 3\.600 ms"):
        chosen = formed(monkeypatch, early=2.0, whole=1.0)
    assert chosen.thresholds == (NEVER,)
    assert (chosen.rejected_ms, chosen.whole_ms, chosen.mean_ms) == pytest.approx((3.6, 1.8, 1.8))
    assert chosen.shares == (0.0, 1.0)


def test_otherwise_the_time_of_the_whole_network_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = formed(monkeypatch, early=1.0, whole=2.0)
    assert (kept.thresholds, kept.whole_ms, kept.rejected_ms) == ((0.8,), pytest.approx(7.2), None)
    forced = formed(monkeypatch, early=2.0, whole=1.0, drop_slow_exits=False)
    assert (forced.thresholds, forced.whole_ms) == ((0.8,), pytest.approx(1.8))


WISH = Calibrate(max_drop=0.05, confidence=0.9)


def test_exits_are_left_out_on_tuning_samples_and_the_certificate_covers_the_others(
    tiny_artifact: Callable[..., Path], tiny_network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[int]()

    def second_pays(evidence: Evidence, *_: Any) -> tuple[int, ...]:
        seen.append(len(evidence))
        return (1, 2)

    monkeypatch.setattr(exit_choice, "paying_exits", second_pays)
    monkeypatch.setattr(exit_choice, "_LEAST_GAIN", 1.0)
    manifest = calibrate(tiny_artifact(), tmp_path / "out", samples=tiny_network.samples(4000), settings=WISH)
    certificate, chosen = manifest.certificate, manifest.policy
    assert certificate is not None
    assert chosen is not None
    assert seen == [certificate.tuning_samples]
    assert {step[0] for step in certificate.path} == {NEVER}
    assert chosen.thresholds[0] == NEVER
    assert chosen.thresholds[1] <= 1
    assert (chosen.guarantee, chosen.shares[0]) == ("certified", 0)
    assert verify_certificate(open_artifact(tmp_path / "out")) == certificate


def test_the_whole_network_in_the_place_of_certified_thresholds_is_certified_too(
    tiny_artifact: Callable[..., Path], tiny_network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exit_choice, "compared_ms", lambda *_, **__: np.array([2.0, 1.0]))
    with pytest.warns(UserWarning, match="the whole network is faster"):
        calibrate(tiny_artifact(), tmp_path / "out", samples=tiny_network.samples(4000), settings=WISH)
    artifact = open_artifact(tmp_path / "out")
    assert artifact.manifest.policy is not None
    assert (artifact.manifest.policy.guarantee, artifact.manifest.policy.metric) == (
        "certified",
        artifact.manifest.policy.reference_metric,
    )
    assert verify_certificate(artifact) is not None
    assert set(open_engine(artifact, threads=1)(np.zeros((3, 1, 4, 4), np.float32)).exit_index) == {2}
