"""What a search tests, against what, at which level and on which samples; and which finalist is the best."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sdcompress.artifact.evidence import Evidence
from sdcompress.calibration.thresholds import NEVER
from sdcompress.certification.calibration_split import CalibrationSplit
from sdcompress.certification.p_values import betting_p_value
from sdcompress.compression import compress as room
from sdcompress.compression.best import best_of
from sdcompress.data.samples import ArraySamples
from sdcompress.options import Options
from sdcompress.pipeline.steps import no_step_progress
from sdcompress.schema.compression import Candidate, Finalist
from sdcompress.schema.recipe import Compress
from sdcompress.tasks.classification import Classification

EXITS = ("exit1", "exit2", "final")


def candidate(**fields: Any) -> Candidate:
    usual = {"name": "net", "source": 0, "layout": "cascade", "exits": EXITS, "precision": "fp32"}
    return Candidate(**{**usual, "policy": "max_prob", "max_drop": 0.01, "ms": 1.0, "drop": 0.0, **fields})


def search_with(settings: Compress, known: dict[str, Any], models: Any = ()) -> room._Search:
    search = room._Search(models, settings, Path(), Options(), no_step_progress)
    vars(search).update(known)
    return search


def artifact(**fields: Any) -> Any:
    manifest = SimpleNamespace(segments=(), digest="a" * 64, **fields)
    return SimpleNamespace(path=Path("part"), manifest=manifest)


def test_every_validation_sample_either_estimates_or_certifies() -> None:
    val = ArraySamples(np.zeros((60, 1, 1, 1), np.uint8), np.arange(60))
    train = ArraySamples(np.zeros((60, 1, 1, 1), np.uint8), np.arange(100, 160))
    data = SimpleNamespace(train=train, val=val, split=lambda name: {"train": train, "validation": val}[name])
    model = SimpleNamespace(data_fingerprint="f" * 64, dataset=lambda: data)
    search = search_with(Compress(), {}, [model])
    estimating, certifying = search._search_samples.targets, search._certify_samples.targets
    assert (len(estimating), len(certifying)) == (10, 50)
    assert sorted([*estimating, *certifying]) == list(range(60))
    # of the 50 a sixth is for the thresholds, so that a test may count on 42
    assert search._budget.certify_samples == 42


def test_every_test_that_is_made_has_a_share_of_what_may_go_wrong() -> None:
    """One of each finalist; three where a time is the target, because a finalist is tested at up to three drops."""
    assert search_with(Compress(confidence=0.9, finalists=4), {})._delta == pytest.approx(0.1 / 4)
    assert search_with(Compress(confidence=0.9, finalists=4, target_ms=2), {})._delta == pytest.approx(0.1 / 12)


@pytest.mark.parametrize(
    ("target_ms", "certified", "tested", "state"),
    [
        (2.0, 0.01, [0.01], "certified"),
        (2.0, 0.05, [0.01, 0.02, 0.05], "certified"),
        (2.0, 0.1, [0.01, 0.02, 0.05], "not certified"),  # which is one drop too many
        (None, 0.02, [0.01], "not certified"),
    ],
)
def test_larger_drops_are_tested_until_one_is_certified(
    monkeypatch: pytest.MonkeyPatch, target_ms: float | None, certified: float, tested: list[float], state: str
) -> None:
    drops: list[float] = []

    def build(_: Any, one: Candidate) -> Finalist:
        drops.append(one.max_drop)
        return Finalist(candidate=one, state="certified" if one.max_drop >= certified else "not certified")

    monkeypatch.setattr(room._Search, "_build", build)
    search = search_with(Compress(target_ms=target_ms), {"_certify_samples": range(600)})
    built = search._best_drop(candidate())
    assert drops == tested
    assert (built.state, built.candidate.max_drop) == (state, tested[-1])


@pytest.mark.parametrize(("lost", "gained", "state"), [(4, 40, "certified"), (40, 4, "not certified")])
def test_a_truncated_network_is_tested_by_what_it_loses_against_the_reference(
    monkeypatch: pytest.MonkeyPatch, lost: int, gained: int, state: str
) -> None:
    ours, reference = np.zeros((2, 400), np.float32)
    ours[:lost], reference[lost : lost + gained] = 1, 1
    order = np.random.default_rng(0).permutation(400)
    monkeypatch.setattr(room, "split_of", lambda *_: (CalibrationSplit(order[:60], order[60:]), ""))
    monkeypatch.setattr(room._Search, "_losses", lambda *_: ours)
    known = {
        "_parts": SimpleNamespace(part=lambda *_: artifact()),
        "_certify_samples": range(400),
        "_reference_losses": reference,
        "_data": SimpleNamespace(task=Classification(("a", "b"))),
        "_delta": 0.05,
    }
    built = search_with(Compress(), known)._build(candidate(layout="single", exits=("exit2",), policy=None))
    assert (built.state, built.drop) == (state, pytest.approx((lost - gained) / 400))
    assert built.p_value == betting_p_value((ours - reference)[order].astype(np.float64), 0.01, 0.05)


@pytest.mark.parametrize(
    ("fields", "own"),
    [
        ({}, True),
        ({"exits": ("exit1", "final")}, True),
        ({"exits": ("exit1", "exit2")}, False),
        ({"precision": "uint8"}, False),
        ({"source": 1}, False),
        ({"ensemble": "geometric"}, False),
    ],
)
@pytest.mark.parametrize(("guarantee", "state"), [("certified", "certified"), ("no certificate", "not certified")])
def test_a_cascade_counts_its_drop_from_the_reference_where_its_last_exit_is_another(
    fields: dict[str, Any], own: bool, guarantee: str, state: str
) -> None:
    asked: list[tuple[Any, ...]] = []

    def calibrated(*arguments: Any, joint_confidence: float) -> Any:
        asked.append((*arguments, joint_confidence))
        made = artifact(policy=SimpleNamespace(guarantee=guarantee, thresholds=(0.5, NEVER)))
        evidence = Evidence(np.float32([[0.9, 0.4], [0, 0]]), np.float32([[1, 1], [0, 0], [0, 0]]))
        return SimpleNamespace(**vars(made), evidence=lambda: evidence)

    known = {
        "_parts": SimpleNamespace(calibrated=calibrated),
        "_certify_samples": range(2),
        "_reference": "the reference",
        "_exits": [EXITS, EXITS],
        "_delta": 0.02,
    }
    built = search_with(Compress(confidence=0.9), known)._build(candidate(**fields))
    ((one, confidence, samples, reference, joint_confidence),) = asked
    assert (one, samples) == (candidate(**fields), range(2))
    assert (confidence, joint_confidence) == (pytest.approx(0.98), 0.9)
    assert reference == (None if own else "the reference")
    assert (built.state, built.drop) == (state, 0.5)  # one of two exits early, and is wrong there


def searched(times: dict[str, float], finalists: list[Finalist], target_ms: float | None = None) -> Any:
    """A record with these measured times, of which only ``slow`` is not faster than the reference."""
    records = tuple(SimpleNamespace(name=name, latency=SimpleNamespace(mean_ms=ms)) for name, ms in times.items())
    comparisons = tuple(
        SimpleNamespace(name=name, verdict="no difference" if name == "slow" else "faster") for name in times
    )
    return SimpleNamespace(
        bench=SimpleNamespace(records=records, comparisons=comparisons),
        finalists=tuple(finalists),
        reference="whole",
        settings=Compress(target_ms=target_ms),
    )


def finalist(name: str, state: Any = "certified", max_drop: float = 0.01, drop: float = 0.0, **fields: Any) -> Finalist:
    return Finalist(candidate=candidate(name=name, max_drop=max_drop, **fields), state=state, drop=drop)


def test_the_best_is_the_fastest_that_is_certified_and_surely_faster() -> None:
    times = {"whole": 4.0, "uncertified": 1.0, "slow": 1.5, "merged (one graph)": 2.0, "plain": 3.0}
    built = [finalist("plain"), finalist("uncertified", "not certified"), finalist("slow")]
    assert best_of(searched(times, built)) == "plain"
    merged = finalist("merged", layout="if", merged_from="plain")
    assert best_of(searched(times, [*built, merged])) == "merged"
    assert best_of(searched(times, [finalist("slow")])) is None
    assert best_of(searched(times, [finalist("broken", "failed")])) is None  # which was not measured


def test_with_a_target_the_best_loses_least_of_those_that_keep_it() -> None:
    times = {"whole": 4.0, "quick": 1.0, "slow": 2.5, "even": 3.0, "late": 3.1}
    built = [
        finalist("quick", max_drop=0.05),
        finalist("slow", drop=0.002),
        finalist("even", drop=0.001),
        finalist("late", max_drop=0.0025),
    ]
    assert best_of(searched(times, built, 3.0)) == "even"
    assert best_of(searched(times, built, 2.9)) == "slow"
    assert best_of(searched(times, built, 2.0)) == "quick"
    assert best_of(searched(times, built, 0.9)) is None
    assert best_of(searched(times, built, 4.0)) is None  # the reference keeps it as it is
