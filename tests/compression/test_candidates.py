"""Estimates worked out by hand, on losses and scores whose thresholds are known."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from signals import signals

from sdcompress.compression.candidates import Budget, Decided, Outcomes, candidates, finalists, subsets
from sdcompress.compression.parts import Parts, labels_of
from sdcompress.options import Options
from sdcompress.pipeline.steps import Record, no_step_progress
from sdcompress.schema.compression import Candidate

N = 6000


def outcomes(wrong_at_first: int, *, precision: str = "fp32", source: int = 0) -> Outcomes:
    """Three exits; the first errs on its least confident samples, the second never, the last never."""
    confidence = np.linspace(0.5, 1, N, dtype=np.float32)  # the higher the confidence, the later the row
    columns = signals(confidence, 1 - confidence, np.zeros(N, np.float32), np.zeros(N, np.int64))
    loss = np.zeros((3, N), np.float32)
    loss[0, :wrong_at_first] = 1
    return Outcomes(
        source=source,
        label="net",
        exits=("exit1", "exit2", "final"),
        precision=precision,
        signals=(columns,) * 3,
        loss=loss,
        reach_ms=np.array([1.0, 3.0, 6.0]),
        whole_ms=5.0,
        decision_ms={"max_prob": (0.1, 0.1)},
    )


def budget(*drops: float, target_ms: float | None = None) -> Budget:
    return Budget(drops, target_ms, delta=0.05, certify_samples=N)


def test_a_cascade_decides_by_its_policy_and_a_truncated_network_does_not() -> None:
    """Two heads cost 6 - 5 = 1 ms, one of them half of that."""
    network = replace(outcomes(0), decision_ms={"max_prob": (0.1, 0.1), "entropy": (0.2, 0.3)})
    assert network.cost([2], None) == pytest.approx([5.0])
    assert network.cost([1], None) == pytest.approx([2.5])
    assert network.cost([0, 2], "max_prob") == pytest.approx([1.1, 5.6])
    assert network.cost([0, 1, 2], "max_prob") == pytest.approx([1.1, 3.2, 6.2])
    assert network.cost([0, 1], "max_prob") == pytest.approx([1.1, 3.1])
    assert network.cost([0, 1, 2], "entropy") == pytest.approx([1.2, 3.5, 6.5])


def test_a_cascade_may_end_at_any_exit_but_the_first() -> None:
    assert set(subsets(4)) == {chosen for count in (2, 3, 4) for chosen in combinations(range(4), count)}
    assert len(list(subsets(4))) == 11
    # of nine exits: all subsets that end at one of the first seven; of the others three early exits at most, and all
    chosen, few = list(subsets(9)), (7 + 21 + 35 + 1) + (8 + 28 + 56 + 1)
    assert len(chosen) == len(set(chosen)) == sum(2**last - 1 for last in range(1, 7)) + few


def test_every_choice_of_exits_is_a_candidate_and_the_fastest_comes_first() -> None:
    network = outcomes(wrong_at_first=N // 2)  # no drop of a point: half of the samples are lost at the first exit
    ranked = candidates([network], network.loss[-1], ["max_prob"], budget(0.01))
    by_name = {one.name: one for one in ranked}
    assert set(by_name) == {
        "net-exit2",
        "net-final",
        "net-exit1+final-max_prob",
        "net-exit2+final-max_prob",
        "net-exit1+exit2+final-max_prob",
        "net-exit1+exit2-max_prob",  # truncated at the second exit
    }
    assert ranked[0].name == "net-exit1+exit2-max_prob"
    # the half that the first exit knows leaves there, some wrong ones too; all others end at the second, which decides
    # nothing if the network is truncated there
    assert ranked[0].ms == pytest.approx((1.1 + 3.1) / 2, abs=0.05)
    assert by_name["net-exit1+exit2+final-max_prob"].ms == pytest.approx((1.1 + 3.2) / 2, abs=0.05)
    assert 0 <= ranked[0].drop < 0.01
    assert by_name["net-exit2"].ms == pytest.approx(2.5)
    assert by_name["net-final"].drop == 0


def test_an_ensemble_counts_the_exits_up_to_each_kept_one_and_what_they_cost() -> None:
    """The half that the first exit gets wrong is right in its mean with the second, which by itself never helps."""
    network = outcomes(wrong_at_first=N // 2)
    network.loss[1] = network.loss[0]
    first, others = network.signals[0], network.loss[2]
    ensembles = {members: Decided(first, others) for members in [(0, 1), (0, 1, 2), (0, 2), (1,), (1, 2)]}
    network = replace(network, ensembles={(0,): Decided(first, network.loss[0]), **ensembles}, ensemble_ms=0.05)
    assert network.cost([0, 1, 2], "max_prob", "geometric") == pytest.approx([1.15, 3.3, 6.35])
    _, loss = network.at([0, 1, 2], "geometric")
    assert loss.mean(axis=1).tolist() == [0.5, 0, 0]
    _, loss = network.at([0, 1, 2])
    assert loss.mean(axis=1).tolist() == [0.5, 0.5, 0]

    ranked = candidates([network], network.loss[-1], ["max_prob"], budget(0.01))
    by_name = {one.name: one for one in ranked}
    ensemble = by_name["net-exit1+exit2+final-ensemble-max_prob"]
    assert (ensemble.ensemble, by_name["net-exit1+exit2+final-max_prob"].ensemble) == ("geometric", None)
    # half leaves at the first exit, the other half at the second, or without the ensemble at the last
    assert ensemble.ms == pytest.approx((1.15 + 3.3) / 2, abs=0.05)
    assert by_name["net-exit1+exit2+final-max_prob"].ms == pytest.approx((1.1 + 6.2) / 2, abs=0.05)
    # by itself it is given as always right here: all leave at 3 ms, less half a ms of a head, with a decision
    assert by_name["net-exit2+final-ensemble-max_prob"].ms == pytest.approx(2.5 + 0.1 + 0.05)
    assert "net-exit2-ensemble" not in by_name
    assert len(finalists(ranked, 50)) == len(by_name)  # an ensemble takes no place of the same exits without one


def test_a_precision_that_loses_too_much_has_no_candidates() -> None:
    good, broken = outcomes(0), outcomes(0, precision="uint8")
    broken.loss[:, : N // 10] = 1
    ranked = candidates([good, broken], good.loss[-1], ["max_prob"], budget(0.01))
    assert ranked
    assert {one.precision for one in ranked} == {"fp32"}


def test_too_few_samples_certify_nothing() -> None:
    network = outcomes(N // 2)
    few = Budget((0.01,), None, delta=0.05, certify_samples=200)
    assert candidates([network], network.loss[-1], ["max_prob"], few) == []


def test_with_a_target_the_smallest_drop_comes_first_and_what_is_too_slow_last() -> None:
    network = outcomes(wrong_at_first=N // 2)
    ranked = candidates([network], network.loss[-1], ["max_prob"], budget(0.01, 0.05, 0.2, target_ms=2.4))
    quick = [one for one in ranked if one.ms <= 0.95 * 2.4]
    assert ranked[: len(quick)] == quick
    assert [one.max_drop for one in quick] == sorted(one.max_drop for one in quick)
    assert quick[0].name == "net-exit1+exit2-max_prob"
    assert quick[0].max_drop == 0.01
    assert "net-final" not in {one.name for one in quick}


def named(name: str, layout: str, ms: float) -> Candidate:
    exits = ("exit1", "final") if layout == "cascade" else ("final",)
    policy = name if layout == "cascade" else None
    return Candidate(
        name=name, source=0, layout=layout, exits=exits, precision="fp32", policy=policy, max_drop=0.01, ms=ms, drop=0
    )


def test_of_two_policies_for_the_same_exits_one_is_built_and_one_place_is_kept_for_a_plain_network() -> None:
    margin, entropy = named("margin", "cascade", 1.0), named("entropy", "cascade", 1.1)
    other = margin.model_copy(update={"name": "uint8", "precision": "uint8", "ms": 1.2})
    plain = named("plain", "single", 3.0)
    ranked = [margin, entropy, other, plain]
    assert [one.name for one in finalists(ranked, 3)] == ["margin", "uint8", "plain"]
    assert [one.name for one in finalists(ranked, 2)] == ["margin", "plain"]
    assert [one.name for one in finalists(ranked, 1)] == ["margin"]
    assert finalists([], 3) == []


def test_two_sources_of_one_name_get_a_number(tmp_path) -> None:
    folders = [tmp_path / one for one in ("a/run", "b/run", "pruned")]
    assert list(labels_of([SimpleNamespace(path=path) for path in folders])) == ["run1", "run2", "pruned"]
    folders = [tmp_path / one for one in ("a/run", "b/run", "run1")]  # that has the number already
    assert list(labels_of([SimpleNamespace(path=path) for path in folders])) == ["run2", "run3", "run1"]


def test_a_choice_of_exits_is_exported_once_whatever_its_precisions(monkeypatch, tmp_path) -> None:
    seen: list[str] = []
    monkeypatch.setattr(
        "sdcompress.compression.parts.export_all",
        lambda _model, targets, *_, **__: seen.extend(one.out.name for one in targets),
    )
    network = SimpleNamespace(digest="d")
    parts = Parts(tmp_path, [network], ["net"], Options(), Record(tmp_path / "steps.json"), no_step_progress)
    parts.exported(0, [("exit1", "final"), ("final",), ("exit1", "final")])
    assert seen == ["net-exit1+final", "net-final"]
