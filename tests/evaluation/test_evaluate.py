"""A split through a real artifact, against the same figures computed from numpy's own logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scores import ece, nll

from sdcompress.data.samples import ArraySamples
from sdcompress.errors import DataError, VerificationError
from sdcompress.evaluation.evaluate import evaluate
from sdcompress.evaluation.exit_outcomes import exit_outputs
from sdcompress.evaluation.paired import metric_difference, pack
from sdcompress.modalities._image_preprocess import normalise
from sdcompress.runtime.open import open_cascade, open_engine
from sdcompress.schema.report import Evaluation
from sdcompress.tasks._probabilities import softmax
from sdcompress.tasks.classification import Classification

Write = Callable[..., Path]
FACTS = {"kind": "artifact", "name": "tiny", "source": "here", "digest": "0" * 64, "data": "shapes", "split": "test"}


def scored(path: Path, samples: ArraySamples, **changed: Any) -> Evaluation:
    return evaluate(open_engine(path, threads=1), samples, **{**FACTS, **changed})


def truth(network: Any, samples: ArraySamples, spec: Any) -> np.ndarray:
    return network.exits(normalise(samples.examples(np.arange(len(samples))), spec))


def test_logits_do_not_depend_on_the_batch(tiny_artifact: Write, tiny_network: Any) -> None:
    engine, samples = open_engine(tiny_artifact(), threads=1), tiny_network.samples(50)
    seen: list[tuple[int, int]] = []
    found = exit_outputs(engine, samples, batch=16, progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_allclose(found, truth(tiny_network, samples, engine.modality.preprocess), atol=1e-5)
    assert seen == [(16, 50), (32, 50), (48, 50), (50, 50)]


def test_every_exit_and_their_ensemble(tiny_artifact: Write, tiny_network: Any) -> None:
    path, samples = tiny_artifact(), tiny_network.samples(300)
    found = scored(path, samples, batch=64)
    logits = truth(tiny_network, samples, open_engine(path).modality.preprocess)
    assert [row.name for row in found.exits] == ["exit1", "exit2", "final", "ensemble"]
    for row, one in zip(found.exits[:3], logits, strict=True):
        assert row.metric == pytest.approx((one.argmax(1) == samples.targets).mean())
        assert row.further["nll"] == pytest.approx(nll(one, samples.targets), rel=1e-5)
        assert row.further["ece"] == pytest.approx(ece(softmax(one), samples.targets), abs=1e-4)
    mean = softmax(logits).mean(axis=0)
    assert found.exits[3].metric == pytest.approx((mean.argmax(1) == samples.targets).mean())
    assert found.exits[3].further["nll"] == pytest.approx(
        -np.log(mean[np.arange(300), samples.targets]).mean(), rel=1e-5
    )
    assert found.exits[3].further["ece"] == pytest.approx(ece(mean, samples.targets), abs=1e-4)
    assert found.exits[0].metric < found.exits[1].metric < found.exits[2].metric
    macs = [row.macs for row in found.exits]
    assert macs[0] == 16 * 6 + 6 * 3
    assert macs[0] < macs[1] < macs[2]
    assert macs[3] is None
    assert found.policy is None
    assert (found.samples, found.data, found.split, found.digest) == (300, "shapes", "test", "0" * 64)


def test_exits_that_are_ensembles_have_no_further_one(tiny_artifact: Write, tiny_network: Any) -> None:
    engine, samples = open_cascade(tiny_artifact()), tiny_network.samples(20)
    recipe = {**engine.manifest.provenance.recipe, "export": {"ensemble": "geometric"}}
    provenance = engine.manifest.provenance.model_copy(update={"recipe": recipe})
    engine.manifest = engine.manifest.model_copy(update={"provenance": provenance})
    found = evaluate(engine, samples, **FACTS)
    assert [row.name for row in found.exits] == ["exit1", "exit2", "final"]


def test_one_exit_has_no_ensemble(tiny_artifact: Write, tiny_network: Any) -> None:
    found = scored(tiny_artifact("single"), tiny_network.samples(20))
    assert [row.name for row in found.exits] == ["final"]


def test_the_policy_is_scored_as_it_runs(tiny_artifact: Write, tiny_network: Any) -> None:
    path, samples = tiny_artifact(policy=(0.6, 0.6), temperatures=(2.0, 1.0, 1.0)), tiny_network.samples(200)
    found = scored(path, samples, batch=64)
    engine = open_engine(path, threads=1)
    one_by_one = [engine(engine.preprocess(samples.examples(np.array([row])))) for row in range(200)]
    left = np.array([int(one.exit_index[0]) for one in one_by_one])
    right = np.array([int(one.outputs.argmax()) for one in one_by_one]) == samples.targets
    assert found.policy is not None
    assert found.policy.metric == pytest.approx(right.mean())
    assert found.policy.shares == pytest.approx([(left == position).mean() for position in range(3)])
    assert found.policy.metric_by_exit == pytest.approx([right[left == position].mean() for position in range(3)])
    assert set(left) == {0, 1, 2}


def test_classes_are_scored_by_what_a_user_gets(tiny_artifact: Write, tiny_network: Any) -> None:
    path, samples = tiny_artifact(policy=(0.4, 0.4)), tiny_network.samples(200)
    found, engine = scored(path, samples, batch=64), open_engine(path, threads=1)
    inputs = engine.preprocess(samples.examples(np.arange(200)))
    answers, last = engine(inputs).outputs.argmax(1), engine.exits(inputs)[-1].argmax(1)
    assert (answers != last).any()
    for k, one in enumerate(found.strata):
        here = samples.targets == k
        assert (one.name, one.samples) == (engine.task.outputs[k], here.sum())
        assert one.metric == pytest.approx((answers[here] == k).mean())
        assert one.last_exit_metric == pytest.approx((last[here] == k).mean())
    assert sum(n for _, _, n in found.confusion) == 200
    assert sum(n for label, answer, n in found.confusion if label == answer) == (answers == samples.targets).sum()
    assert found.losses == pack(np.float32(answers != samples.targets))
    whole = scored(tiny_artifact("single", name="whole"), samples)
    paired = metric_difference(found, whole)
    assert paired is not None
    assert paired.value == pytest.approx((answers == samples.targets).mean() - (last == samples.targets).mean())
    assert all(one.last_exit_metric is None for one in whole.strata)


def test_an_exit_that_no_sample_took_has_no_score(tiny_artifact: Write, tiny_network: Any) -> None:
    found = scored(tiny_artifact(policy=(2.0, 0.0)), tiny_network.samples(20))
    assert found.policy is not None
    assert found.policy.shares == (0.0, 1.0, 0.0)
    assert found.policy.metric_by_exit[0] is None
    assert found.policy.metric_by_exit[2] is None


def test_a_certain_mistake_has_a_finite_likelihood(tiny_artifact: Write, tiny_network: Any) -> None:
    """Through the mean of probabilities too, where the probability itself would round to nought."""
    engine = open_engine(tiny_artifact(), threads=1)

    class Loud:
        def __getattr__(self, name: str) -> Any:
            return getattr(engine, name)

        def exits(self, inputs: np.ndarray) -> np.ndarray:
            return np.float32(1e4) * engine.exits(inputs)

    found = evaluate(Loud(), tiny_network.samples(100), **FACTS)
    assert all(np.isfinite(row.further["nll"]) and row.further["nll"] > 10 for row in found.exits)


@pytest.mark.parametrize("exits", [3, 18, 40])
@pytest.mark.parametrize("label", [0, 1])
def test_the_ensemble_of_exits_that_are_certain_is_certain(exits: int, label: int) -> None:
    """Not more: the calibration error of a network that is wrong everywhere would be above 1."""
    task, targets = Classification(("a", "b", "c")), np.full(4, label)
    ensemble = task.ensemble(np.tile(np.float32([1000, 0, 0]), (exits, 4, 1)))
    assert task.measures(ensemble, targets)["confidence"].max() <= 1
    assert task.summary(task.measures(ensemble, targets))["ece"] == pytest.approx(label, abs=1e-12)
    assert task.summary(task.measures(ensemble, targets))["ece"] <= 1


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_of_another_data_set(tiny_artifact: Write, label: int) -> None:
    samples = ArraySamples(np.zeros((3, 4, 4, 1), np.uint8), np.array([0, label, 2]))
    with pytest.raises(DataError, match=rf"(?s){label}.*0 to 2.*3 classes"):
        scored(tiny_artifact(), samples)


def test_images_of_another_size(tiny_artifact: Write) -> None:
    samples = ArraySamples(np.zeros((3, 5, 4, 1), np.uint8), np.array([0, 1, 2]))
    with pytest.raises(DataError, match=r"(?s)5x4x1.*4x4x1.*modality.image_size"):
        scored(tiny_artifact(), samples)


def test_no_samples(tiny_artifact: Write) -> None:
    empty = ArraySamples(np.zeros((0, 4, 4, 1), np.uint8), np.zeros(0, np.int64))
    with pytest.raises(DataError, match="no samples"):
        scored(tiny_artifact(), empty)


def test_broken_weights_are_named(tiny_artifact: Write, tiny_network: Any) -> None:
    engine = open_engine(tiny_artifact(), threads=1)

    class Broken:
        def __getattr__(self, name: str) -> Any:
            return getattr(engine, name)

        def exits(self, inputs: np.ndarray) -> np.ndarray:
            logits = engine.exits(inputs)
            logits[1, 2, 0] = np.nan
            return logits

    with pytest.raises(VerificationError, match="1 of 20 samples"):
        evaluate(Broken(), tiny_network.samples(20), **FACTS)
