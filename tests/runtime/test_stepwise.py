"""Stages one by one: rows take the exits that they take in the cascade, whatever rows they are joined with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdcompress.errors import UsageError
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.open import open_cascade
from sdcompress.runtime.stepwise import Carried

Write = Callable[..., Path]


def inputs_of(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, 1, 4, 4)).astype(np.float32)


def stepped(engine: CascadeEngine, batches: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs, exits and scores of all rows: each batch runs the first stage, what goes on shares all later ones."""
    stages, rows = engine.stepwise(), sum(map(len, batches))
    outputs, exits, scores = np.zeros((rows, 3), np.float32), np.full(rows, -1), np.full(rows, np.nan)
    starts = np.cumsum([0, *map(len, batches)])
    waiting = [
        (Carried({"input": batch}), np.arange(len(batch)), start + np.arange(len(batch)))
        for batch, start in zip(batches, starts, strict=False)
    ]
    for stage in range(len(stages)):
        groups = [[one] for one in waiting] if stage == 0 else [waiting]
        waiting = []
        for group in groups:
            places = np.concatenate([place for _, _, place in group])
            if not len(places):
                continue
            result = stages.run(stage, Carried.joined([(carried, rows) for carried, rows, _ in group]))
            done = places[result.exits]
            outputs[done], exits[done] = result.outputs[result.exits], stage
            if result.scores is not None:
                scores[done] = result.scores[result.exits]
            waiting.append((result.carried, np.flatnonzero(~result.exits), places[~result.exits]))
    return outputs, exits, scores


@pytest.mark.parametrize("layout", ["cascade", "all"])
@pytest.mark.parametrize("kind", ["max_prob", "patience"])
def test_rows_of_several_batches_take_the_exits_of_the_cascade(tiny_artifact: Write, layout: str, kind: str) -> None:
    thresholds = (0.7, 0.6) if kind == "max_prob" else (0.6, 0.6)  # patience: two equal decisions give 2/3
    engine = open_cascade(tiny_artifact(layout, policy=thresholds, kind=kind))
    batches = [inputs_of(count, seed) for seed, count in enumerate((5, 1, 17))]
    expected = engine(np.concatenate(batches))
    assert len(set(expected.exit_index.tolist())) > 1
    outputs, exits, scores = stepped(engine, batches)
    assert exits.tolist() == expected.exit_index.tolist()
    np.testing.assert_allclose(outputs, expected.outputs, rtol=1e-5, atol=1e-6)
    assert np.isnan(scores[exits == 2]).all()
    assert all(scores[exits == k].min(initial=1) >= threshold for k, threshold in enumerate(thresholds))


def test_without_a_policy_all_rows_run_to_the_end(tiny_artifact: Write) -> None:
    engine = open_cascade(tiny_artifact())
    outputs, exits, scores = stepped(engine, [inputs_of(4)])
    assert exits.tolist() == [2] * 4
    assert np.isnan(scores).all()
    np.testing.assert_allclose(outputs, engine(inputs_of(4)).outputs, rtol=1e-5, atol=1e-6)


def test_a_whole_batch_is_not_copied_and_joined_rows_are_not_written_to() -> None:
    one, two = (Carried({"x": np.full((3, 2), value), "y": np.arange(3.0) + value}) for value in (1.0, 2.0))
    assert Carried.joined([(one, np.arange(3))]) is one
    joined = Carried.joined([(one, np.array([2])), (two, np.array([0, 1]))])
    assert joined.tensors["y"].tolist() == [3.0, 2.0, 3.0]
    assert joined.tensors["x"].tolist() == [[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]]
    joined.tensors["x"][:] = 0
    assert one.tensors["x"].all()
    assert one.shape == two.shape == (("x", (2,)), ("y", ()))


def test_an_executor_that_keeps_its_tensors_offers_no_stages(tiny_artifact: Write, monkeypatch: Any) -> None:
    engine = open_cascade(tiny_artifact())
    monkeypatch.setattr("sdcompress.runtime.cascade.ArrayExecutor", type("Other", (), {}))
    with pytest.raises(UsageError, match="runs all stages of a call at once"):
        engine.stepwise()
