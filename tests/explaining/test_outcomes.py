"""What is kept of a split, against numpy's own logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdcompress.data.samples import ArraySamples
from sdcompress.errors import DataError
from sdcompress.explaining.exit_analysis import collect
from sdcompress.modalities._image_preprocess import normalise
from sdcompress.policies import exit_index_of
from sdcompress.policies.margin import Margin
from sdcompress.policies.max_prob import MaxProb
from sdcompress.runtime.open import open_engine
from sdcompress.tasks._probabilities import softmax

Write = Callable[..., Path]
TEMPERATURES = (2.0, 1.0, 0.5)


def test_every_exit(tiny_artifact: Write, tiny_network: Any) -> None:
    engine, samples = open_engine(tiny_artifact(temperatures=TEMPERATURES), threads=1), tiny_network.samples(300)
    seen: list[int] = []
    outcomes = collect(engine, samples, MaxProb(), lambda done, total: seen.append(done))
    logits = tiny_network.exits(normalise(samples.examples(np.arange(300)), engine.modality.preprocess))
    for k, temperature in enumerate(TEMPERATURES):
        np.testing.assert_allclose(outcomes.confidences[k], softmax(logits[k], temperature).max(axis=1), atol=1e-5)
        assert (outcomes.loss[k] == (logits[k].argmax(axis=1) != samples.targets)).all()
    assert (outcomes.scores == outcomes.confidences[:2]).all()
    assert (outcomes.strata == samples.targets).all()
    assert seen == [256, 300]  # never all logits at a time


def test_the_scores_are_the_policys(tiny_artifact: Write, tiny_network: Any) -> None:
    engine, samples = open_engine(tiny_artifact(), threads=1), tiny_network.samples(20)
    outcomes = collect(engine, samples, Margin())
    logits = tiny_network.exits(normalise(samples.examples(np.arange(20)), engine.modality.preprocess))
    second, best = np.sort(softmax(logits[:2]), axis=2)[..., -2:].transpose(2, 0, 1)
    np.testing.assert_allclose(outcomes.scores, best - second, atol=1e-5)


def test_samples_leave_where_the_engine_lets_them_leave(tiny_artifact: Write, tiny_network: Any) -> None:
    engine = open_engine(tiny_artifact(policy=(0.6, 0.6), temperatures=TEMPERATURES), threads=1)
    samples = tiny_network.samples(200)
    outcomes, inputs = collect(engine, samples, MaxProb()), engine.preprocess(samples.examples(np.arange(200)))
    assert (exit_index_of(outcomes.scores, (0.6, 0.6)) == engine(inputs).exit_index).all()


def test_one_exit_has_nothing_to_decide(tiny_artifact: Write, tiny_network: Any) -> None:
    outcomes = collect(open_engine(tiny_artifact("single"), threads=1), tiny_network.samples(9), MaxProb())
    assert outcomes.scores.shape == (0, 9)
    assert outcomes.confidences.shape == (1, 9)


def test_no_samples_are_an_error(tiny_artifact: Write) -> None:
    none = ArraySamples(np.empty((0, 4, 4, 1), np.uint8), np.empty(0, np.int64))
    with pytest.raises(DataError, match="no samples"):
        collect(open_engine(tiny_artifact(), threads=1), none, MaxProb())
