"""Ensembles of exits worked out by hand: their probabilities are square roots that come out even."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sdcompress.compression.outcomes import ensemble_ms, ensembles_of, run_exits
from sdcompress.tasks.classification import Classification
from sdcompress.tasks.multilabel import MultiLabel

CLASSES = Classification(("a", "b"))


def run(task: Any, outputs: np.ndarray, targets: np.ndarray, ensembles: list[tuple[int, ...]]) -> Any:
    """Return signals and losses of an engine whose exits give these outputs, [E, N, K]."""
    modality = SimpleNamespace(varies=False, collate=lambda rows: rows)
    engine: Any = SimpleNamespace(
        task=task, modality=modality, exit_names=("exit",) * len(outputs), exits=lambda rows: outputs[:, rows]
    )

    class Rows:
        def __init__(self) -> None:
            self.targets = targets

        def __len__(self) -> int:
            return len(targets)

        def examples(self, rows: np.ndarray) -> np.ndarray:
            return rows

    return run_exits(engine, Rows(), ensembles)  # type: ignore[arg-type]


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


def test_every_ensemble_of_several_cascades_is_computed_once() -> None:
    assert ensembles_of([(0, 3), (1, 3), (0, 1, 3)]) == [(0,), (0, 3), (1,), (1, 3), (0, 1), (0, 1, 3)]


def test_a_task_without_an_ensemble_has_no_time_of_one() -> None:
    without: Any = SimpleNamespace(output_shape=(2,), ensemble_terms=lambda _: None)
    assert ensemble_ms(without) is None
    assert (ensemble_ms(CLASSES) or 0) > 0
