"""Ensembles of exits worked out by hand: their probabilities are square roots that come out even."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sdcompress.compression import outcomes
from sdcompress.compression.outcomes import ensemble_ms, ensembles_of, run_exits
from sdcompress.tasks.classification import Classification
from sdcompress.tasks.multilabel import MultiLabel

CLASSES = Classification(("a", "b"))


class Rows:
    """Samples whose examples are their positions."""

    def __init__(self, targets: np.ndarray) -> None:
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def examples(self, rows: np.ndarray) -> np.ndarray:
        return rows


def engine_of(task: Any, outputs: np.ndarray) -> SimpleNamespace:
    """An engine whose exits give these outputs, [E, N, K]."""
    modality = SimpleNamespace(varies=False, collate=lambda rows: rows)
    return SimpleNamespace(
        task=task, modality=modality, exit_names=("exit",) * len(outputs), exits=lambda rows: outputs[:, rows]
    )


def run(task: Any, outputs: np.ndarray, targets: np.ndarray, ensembles: list[tuple[int, ...]]) -> Any:
    """Return signals and losses of such an engine."""
    return run_exits(engine_of(task, outputs), Rows(targets), ensembles)  # type: ignore[arg-type]


def test_an_ensemble_is_the_geometric_mean_of_its_exits_alone() -> None:
    """0.9 : 0.1 and 0.2 : 0.8 are 0.18 : 0.08, whose root is 3 : 2; with 0.5 : 0.5 alone the first is 3 : 1."""
    p = np.array([[[0.9, 0.1], [0.5, 0.5]], [[0.2, 0.8], [0.1, 0.9]], [[0.5, 0.5], [0.9, 0.1]]])
    outputs = np.log(p).astype(np.float32) + np.float32([[[7], [0]], [[0], [-3]], [[1], [2]]])  # logits of these
    signals, loss = run(CLASSES, outputs, np.array([0, 0]), [(0,), (0, 1), (0, 2), (1, 2)])
    first = [one["max_prob"][0] for one in signals]
    assert first == pytest.approx([0.9, 0.8, 0.5, 0.9, 0.6, 0.75, 2 / 3], abs=1e-5)
    second = [one["max_prob"][1] for one in signals]  # 1 : 9 and 9 : 1 cancel out; 1 : 9 and 1 : 1 are 1 : 3
    assert second == pytest.approx([0.5, 0.9, 0.9, 0.5, 0.75, 0.75, 0.5], abs=1e-5)
    assert loss[:, 0].tolist() == [0, 1, 0, 0, 0, 0, 1]
    assert loss[[1, 2, 4, 5], 1].tolist() == [1, 0, 1, 0]


def test_labels_are_averaged_by_their_logits() -> None:
    outputs = np.array([[[3.0, -1.0]], [[-1.0, -1.0]], [[-5.0, 5.0]]], np.float32)
    signals, _ = run(MultiLabel(("a", "b")), outputs, np.array([[1, 0]], np.uint8), [(0, 1), (0, 1, 2)])
    assert [one.decision.shape for one in signals] == [(1,)] * 5  # where decisions are equal, not what they are
    assert signals[3].agrees(signals[0]).tolist() == [True]  # 1 and -1, as 3 and -1
    assert signals[4].agrees(signals[2]).tolist() == [True]  # -1 and 1, as -5 and 5
    assert signals[3].agrees(signals[1]).tolist() == [False]


def test_what_candidates_are_estimated_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three exits that take 1, 2 and 3 ms more than the one before; the network without heads takes 5 ms."""
    p = np.array([[[0.9, 0.1], [0.5, 0.5]], [[0.2, 0.8], [0.1, 0.9]], [[0.3, 0.7], [0.9, 0.1]]])
    told: Any = engine_of(CLASSES, np.log(p).astype(np.float32))
    whole: Any = SimpleNamespace()
    monkeypatch.setattr(outcomes, "stage_ms", lambda engine, _: (1.0, 2.0, 3.0) if engine is told else (5.0,))
    monkeypatch.setattr(outcomes, "decision_ms", lambda policy, _: (0.1 * len(type(policy).needs),) * 2)
    monkeypatch.setattr(outcomes, "ensemble_ms", lambda _: 0.25)
    policies = ["max_prob", "margin"]
    asked = {"source": 2, "label": "net", "precision": "uint8", "policies": policies, "threads": 1}
    found = outcomes.outcomes_of(told, whole, Rows(np.array([0, 0])), ensembles=True, **asked)  # type: ignore[arg-type]
    assert (found.source, found.label, found.precision, found.exits) == (2, "net", "uint8", ("exit",) * 3)
    assert (found.reach_ms.tolist(), found.whole_ms, found.ensemble_ms) == ([1, 3, 6], 5, 0.25)
    assert found.decision_ms == {"max_prob": (0.1, 0.1), "margin": (0.2, 0.2)}
    assert found.loss.tolist() == [[0, 0], [1, 1], [1, 0]]
    assert [one["max_prob"][0] for one in found.signals] == pytest.approx([0.9, 0.8, 0.7], rel=1e-5)
    assert set(found.ensembles) == {(0,), (1,), (0, 1), (0, 2), (1, 2), (0, 1, 2)}
    # 0.9 : 0.1 and 0.3 : 0.7 are 0.27 : 0.07, whose root is 1.96
    assert found.ensembles[0, 2].signals["max_prob"][0] == pytest.approx(1 / (1 + (0.07 / 0.27) ** 0.5), rel=1e-5)
    assert found.ensembles[0, 2].loss.tolist() == [0, 0]
    plain = outcomes.outcomes_of(told, whole, Rows(np.array([0, 0])), ensembles=False, **asked)  # type: ignore[arg-type]
    assert (plain.ensembles, plain.ensemble_ms, len(plain.signals)) == ({}, 0.0, 3)


def test_every_ensemble_of_several_cascades_is_computed_once() -> None:
    assert ensembles_of([(0, 3), (1, 3), (0, 1, 3)]) == [(0,), (0, 3), (1,), (1, 3), (0, 1), (0, 1, 3)]


def test_a_task_without_an_ensemble_has_no_time_of_one() -> None:
    without: Any = SimpleNamespace(output_shape=(2,), ensemble_terms=lambda _: None)
    assert ensemble_ms(without) is None
    assert (ensemble_ms(CLASSES) or 0) > 0
