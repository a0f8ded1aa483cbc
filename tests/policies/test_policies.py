"""Exit policies: scores worked out by hand, and what holds for all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signals import TASK, signals_of
from signals import signals as of_columns

from sdcompress import registry
from sdcompress.errors import ArtifactError
from sdcompress.policies import ROOM, default_policy, policy_class, restore, scores
from sdcompress.policies._base import Signals
from sdcompress.policies.learned import Learned
from sdcompress.policies.pcee import BINS, Pcee
from sdcompress.tasks.classification import Classification
from sdcompress.tasks.multilabel import MultiLabel

KINDS = registry.names(ROOM)


def signals(best: Sequence[float], answer: Sequence[int] | None = None) -> Signals:
    """Of given largest probabilities; the rest goes to the second class."""
    p = np.float32(best)
    rest = np.float32(1) - p
    entropy = -(p * np.log(p) + np.where(rest > 0, rest * np.log(np.maximum(rest, 1e-30)), 0))
    return of_columns(p, rest, entropy.astype(np.float32), np.array(answer if answer is not None else [0] * len(p)))


def changed(of: Signals, **columns: np.ndarray) -> Signals:
    return Signals({**of.columns, **columns}, of.decision)


def made(exits: int = 9, samples: int = 400) -> tuple[tuple[Signals, ...], np.ndarray]:
    """Exits that get better, and say so."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 5, samples)
    found, loss = [], []
    for exit_ in range(exits):
        logits = rng.normal(size=(samples, 5)).astype(np.float32)
        logits[np.arange(samples), labels] += 0.4 * (exit_ + 1)
        found.append(signals_of(logits))
        loss.append(np.float32(found[-1].decision != labels))
    return tuple(found), np.stack(loss)


def test_max_prob_entropy_and_margin_by_hand() -> None:
    now = [signals_of(np.log(np.float32([[0.7, 0.2, 0.1]])))]
    assert restore("max_prob", {}, TASK).score(0, now)[0] == pytest.approx(0.7)
    assert restore("margin", {}, TASK).score(0, now)[0] == pytest.approx(0.5)
    # 1 / perplexity = .7^.7 .2^.2 .1^.1
    assert restore("entropy", {}, TASK).score(0, now)[0] == pytest.approx(0.7**0.7 * 0.2**0.2 * 0.1**0.1, rel=1e-5)


def test_a_guess_among_k_has_a_perplexity_of_k() -> None:
    assert restore("entropy", {}, TASK).score(0, [signals_of(np.zeros((1, 8), np.float32))])[0] == pytest.approx(1 / 8)


def test_fixed_lets_everybody_leave_or_nobody() -> None:
    assert restore("fixed", {}, TASK).score(0, [signals([0.3, 0.9])]).tolist() == [1, 1]


def test_patience_counts_equal_answers_in_a_row() -> None:
    history = [signals([0.5] * 4, answer) for answer in ([1, 1, 2, 0], [1, 0, 2, 0], [1, 1, 1, 0])]
    policy = restore("patience", {}, TASK)
    # runs of 3, 1, 1 and 3 equal answers: r / (r + 1)
    np.testing.assert_allclose(policy.score(2, history), [3 / 4, 1 / 2, 1 / 2, 3 / 4])
    np.testing.assert_allclose(policy.score(0, history[:1]), [1 / 2] * 4)


def test_settled_looks_at_the_exit_before_alone() -> None:
    history = [signals([0.5] * 3, decisions) for decisions in ([1, 1, 1], [2, 1, 2], [2, 2, 1])]
    policy = restore("settled", {}, TASK)
    assert policy.score(0, history[:1]).tolist() == [0, 0, 0]
    assert policy.score(1, history[:2]).tolist() == [1 / 2, 1, 1 / 2]
    assert policy.score(2, history).tolist() == [1, 1 / 2, 1 / 2]


def test_label_sets_are_equal_as_a_whole() -> None:
    # 3 samples of 3 labels: sets that agree throughout, in their last two exits, and in two of three labels
    rows = ([[1, 0, 0], [1, 0, 0], [1, 1, 0]], [[1, 0, 0], [0, 1, 0], [1, 0, 0]], [[1, 0, 0], [0, 1, 0], [1, 1, 0]])
    task = MultiLabel(("sky", "road", "tree"))
    history = [task.signals(np.float32(logits) - np.float32(0.5)) for logits in rows]
    np.testing.assert_array_equal(history[2].agrees(history[1]), [True, True, False])
    np.testing.assert_allclose(restore("patience", {}, task).score(2, history), [3 / 4, 2 / 3, 1 / 2])
    gate = restore("learned", {"weights": [[0.0] * 5, [0.0] * 5, [0.0, 0.0, 0.0, 0.0, math.log(3)]]}, task, 4)
    np.testing.assert_allclose(gate.score(2, history), [3 / 4, 3 / 4, 1 / 2], rtol=1e-6)
    loss = np.stack([task.loss(exit_.decision, history[2].decision) for exit_ in history])
    assert scores(Learned.fit(history, loss), history).shape == (2, 3)


class Entropic(Classification):
    """A task with one signal."""

    signal_names = ("entropy",)

    def signals(self, outputs: Any, temperature: float = 1.0) -> Signals:
        whole = super().signals(outputs, temperature)
        return Signals({"entropy": whole["entropy"]}, whole.decision)


class Masking(Entropic):
    """A task whose one signal no policy knows, and whose exits hardly ever agree."""

    signal_names = ("sharpness",)
    exits_agree = False


def test_a_policy_meets_the_tasks_signals() -> None:
    task = Entropic(("a", "b"))
    now = [task.signals(np.float32([[0, 1], [0, np.nan]]))]
    np.testing.assert_array_equal(restore("fixed", {}, task, 3).score(0, now), [1, np.nan])
    assert [type(default_policy(each)).__name__ for each in (TASK, task)] == ["MaxProb", "Entropy"]
    assert type(default_policy(Masking(("a", "b")))).__name__ == "Fixed"
    with pytest.raises(ArtifactError, match="judges by max_prob, second_prob, which this task does not give"):
        restore("learned", {"weights": [[0.0] * 5]}, task, 2)


def test_pcee_by_hand() -> None:
    policy = Pcee(edges=[[0.5, 0.9]], levels=[[0.25, 0.5, 1.0]])
    np.testing.assert_allclose(policy.score(0, [signals([0.2, 0.5, 0.7, 0.9, 1.0])]), [0.25, 0.5, 0.5, 1.0, 1.0])


def test_pcee_pools_bins_that_fall() -> None:
    # confidences .30, .31, ...: in bins of 10, the accuracies .5, .2, .8 become .35, .35, .8
    best = 0.3 + 0.001 * np.arange(10 * BINS)
    hits = np.zeros(10 * BINS, bool)
    for bin_, count in enumerate([5, 2, 8, *[10] * (BINS - 3)]):
        hits[10 * bin_ : 10 * bin_ + count] = True
    policy = Pcee.fit([signals(best), signals(best)], 1 - np.float32([hits, hits]))
    # bins that were pooled are one: the accuracy rises at .32 and .33 only
    assert policy.levels[0] == pytest.approx([0.35, 0.8, 1.0])
    assert policy.edges[0] == pytest.approx([0.32, 0.33])


@pytest.mark.parametrize("samples", [8, 10])
def test_pcee_of_the_fewest_samples_that_a_calibration_tunes_on(samples: int) -> None:
    """A sixth of 50 is 8: fewer than half as many as there are bins, so that each sample has one."""
    best = np.linspace(0.3, 0.9, samples, dtype=np.float32)
    half = samples // 2
    correct = np.arange(samples) >= half
    policy = Pcee.fit([signals(best), signals(best)], 1 - np.float32([correct, correct]))
    assert policy == Pcee(edges=[[float(best[half])]], levels=[[0.0, 1.0]])


def test_pcee_with_confidences_that_are_all_equal_is_one_accuracy() -> None:
    same = signals([0.5] * 40)
    policy = Pcee.fit([same, same], np.float32([np.arange(40) >= 30, np.zeros(40)]))
    np.testing.assert_allclose(policy.score(0, [same]), 0.75)


def test_learned_by_hand() -> None:
    policy = Learned(weights=[[0.5, 1.0, 0.0, 2.0, -1.0]])
    # .5 + ln(.8 / .2) + 2 (.8 - .2) - 1: alone, an exit agrees with itself
    z = 0.5 + math.log(4) + 1.2 - 1
    assert policy.score(0, [signals([0.8])])[0] == pytest.approx(1 / (1 + math.exp(-z)), rel=1e-5)


def test_learned_lets_the_hopeless_go_where_max_prob_keeps_them() -> None:
    rng = np.random.default_rng(0)
    best = np.concatenate([rng.uniform(0.2, 0.3, 500), rng.uniform(0.45, 0.55, 500), rng.uniform(0.9, 1, 500)])
    final = np.repeat([False, True, True], 500)
    early = np.concatenate([np.zeros(500, bool), rng.random(500) < 0.4, np.ones(500, bool)])
    # the lowest confidences lose nothing, because nobody gets them right; entropy tells them apart: many classes
    now = changed(signals(best), entropy=np.float32(np.repeat([2.2, 0.7, 0.1], 500)))
    policy = Learned.fit([now, now], 1 - np.float32([early, final]))
    score = policy.score(0, [now])
    assert score[:500].mean() > 0.9
    assert score[500:1000].mean() < 0.6
    assert score[1000:].mean() > 0.9


def test_learned_stays_finite_where_all_are_alike() -> None:
    now = signals([0.9] * 100)
    policy = Learned.fit([now, now], np.zeros((2, 100), np.float32))
    assert np.isfinite(policy.score(0, [now])).all()
    assert policy.score(0, [now])[0] > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_every_policy_gives_float32_in_0_to_1_and_comes_back_from_its_parameters(kind: str) -> None:
    found, loss = made()
    policy = policy_class(kind).fit(found, loss)
    score = scores(policy, found)
    assert (score.shape, score.dtype) == ((8, 400), np.float32)
    assert ((score >= 0) & (score <= 1)).all()
    np.testing.assert_array_equal(scores(restore(kind, policy.parameters, TASK), found), score)
    for exit_ in range(8):  # what one row gets is its own affair
        alone = [earlier.map(itemgetter(slice(7, 8))) for earlier in found[: exit_ + 1]]
        assert policy.score(exit_, alone)[0] == score[exit_, 7]
        if not policy.history:
            np.testing.assert_array_equal(policy.score(exit_, [found[exit_]]), score[exit_])


@pytest.mark.parametrize("kind", KINDS)
def test_a_gate_is_the_score_at_its_threshold_to_the_bit(kind: str) -> None:
    found, loss = made()
    policy = policy_class(kind).fit(found, loss)
    nothing = [
        Signals({name: np.full_like(column, np.nan) for name, column in one.columns.items()}, one.decision)
        for one in found
    ]
    for exit_ in range(8):
        score = policy.score(exit_, found[: exit_ + 1])
        values = np.unique(score)
        beside = [np.nextafter(values, np.float32(towards)) for towards in (-1, 2)]
        for least in np.unique(np.concatenate([values, *beside, np.float32([-1, 0, 1, np.inf])])):
            gate = policy.gate(exit_, least)
            np.testing.assert_array_equal(gate(found[: exit_ + 1]), score >= least)
            with np.errstate(invalid="ignore"):
                unknown = policy.score(exit_, nothing[: exit_ + 1]) >= least
                np.testing.assert_array_equal(gate(nothing[: exit_ + 1]), unknown)


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(0, 1)), max_size=20),
    first=st.floats(0, 1),
    least=st.floats(-0.5, 1.5, width=32),
    rising=st.booleans(),
)
def test_pcees_gate_is_its_score_whatever_a_manifest_says(
    steps: list[tuple[float, float]], first: float, least: float, rising: bool
) -> None:
    edges, levels = [edge for edge, _ in steps], [first, *(level for _, level in steps)]
    if rising:
        edges, levels = sorted(edges), sorted(levels)
    policy = Pcee([edges], [levels])
    best = np.float32([0, 1, np.nan, *edges, *np.nextafter(np.float32(edges), np.float32(0)), 0.3, 0.7])
    now = [changed(signals([0.5] * len(best)), max_prob=best)]
    np.testing.assert_array_equal(policy.gate(0, np.float32(least))(now), policy.score(0, now) >= np.float32(least))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_a_number_scores_nan(kind: str) -> None:
    found, loss = made()
    policy = policy_class(kind).fit(found, loss)
    nothing = of_columns(*(np.full(1, np.nan, np.float32),) * 3, np.zeros(1, np.int64))
    with np.errstate(invalid="ignore"):
        assert np.isnan(policy.score(1, [nothing, nothing])).all()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"fixed", "patience", "settled"}])
def test_surer_exits_score_higher(kind: str) -> None:
    found, loss = made()
    policy = policy_class(kind).fit(found, loss)
    score = policy.score(0, found[:1])
    kept = loss[0] <= loss[-1]
    assert score[kept].mean() > score[~kept].mean()


def test_a_policy_of_another_version_is_refused() -> None:
    with pytest.raises(ArtifactError, match="no_such"):
        restore("no_such", {}, TASK)
    with pytest.raises(ArtifactError, match="slope"):
        restore("max_prob", {"slope": 2.0}, TASK)


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("learned", {"weights": "abc"}),
        ("learned", {"weights": []}),
        ("learned", {"weights": [[0.0] * 5]}),  # of one exit instead of two
        ("learned", {"weights": [[0.0] * 5, [0.0] * 4]}),
        ("learned", {"weights": [[0.0] * 5, [[0.0]] * 5]}),
        ("learned", {"weights": [[0.0] * 5, [0.0] * 4 + [None]]}),
        ("pcee", {"edges": [[0.5]] * 2, "levels": [[0.5, 0.9], []]}),
        ("pcee", {"edges": [[0.5]] * 2, "levels": 3}),
        ("pcee", {"edges": [["x"]] * 2, "levels": [[0.5, 0.9]] * 2}),
    ],
)
def test_parameters_that_no_fit_gave_are_refused(kind: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match=f"policy '{kind}'"):
        restore(kind, parameters, TASK, 3)
