"""Engines against their graphs on other images, run with what this machine has: ONNX Runtime in both places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from signals import TASK

from sdcompress.errors import ArtifactError, DataError, VerificationError
from sdcompress.evaluation.trained_model import TrainedModel, open_trained_model
from sdcompress.options import Options
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.engine import Prediction
from sdcompress.runtime.open import open_cascade
from sdcompress.tensorrt.building.validation import Reference, find_reference, validate

THRESHOLDS = (0.9, 0.8)


class Shifted:
    """A network whose logits of one exit are off; its policy sees what it computes."""

    def __init__(self, network: CascadeEngine, exit_: int, by: float) -> None:
        self._network, self._exit, self._by = network, exit_, by

    def exits(self, inputs: np.ndarray) -> np.ndarray:
        logits = self._network.exits(inputs)
        logits[self._exit, :, 0] += self._by
        return logits

    def __call__(self, inputs: np.ndarray) -> Prediction:
        logits = self.exits(inputs)
        sure = np.exp(logits).max(axis=2) / np.exp(logits).sum(axis=2)
        left = np.where(sure[0] >= THRESHOLDS[0], 0, np.where(sure[1] >= THRESHOLDS[1], 1, 2))
        return TASK.prediction(logits[left, np.arange(len(left))], left)


def test_the_same_network_changes_nothing(tiny_artifact: Callable[..., Path], tiny_network) -> None:
    path = tiny_artifact(policy=THRESHOLDS)
    network, samples = open_cascade(path), tiny_network.samples(600)
    calls: list[tuple[int, int]] = []
    found = validate(
        Reference(network, samples), Shifted(network, 0, 0.0), network.manifest,
        max_drop=0.0, tf32=False, progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert found.samples == 600
    assert [change.name for change in found.exits] == ["exit1", "exit2", "final"]
    assert all(change.decision_changes == 0 and change.max_abs_diff == 0 for change in found.exits)
    assert found.policy is not None
    assert (found.policy.exit_changes, found.policy.decision_changes) == (0, 0)
    assert found.policy.shares_before == found.policy.shares_after
    assert 0 < found.policy.shares_before[0] < 1
    assert calls[-1] == (600, 600)


def test_a_change_is_counted_at_its_exit_and_in_the_decisions(tiny_artifact: Callable[..., Path], tiny_network) -> None:
    network, samples = open_cascade(tiny_artifact(policy=THRESHOLDS)), tiny_network.samples(600)
    found = validate(Reference(network, samples), Shifted(network, 1, 0.5), network.manifest, max_drop=0.5, tf32=False)
    images = network.preprocess(samples.examples(np.arange(600)))
    expected = Shifted(network, 1, 0.5)
    before, after = network(images), expected(images)
    assert [change.decision_changes > 0 for change in found.exits] == [False, True, False]
    assert found.exits[1].max_abs_diff == pytest.approx(0.5, abs=1e-6)
    assert found.policy is not None
    assert found.policy.exit_changes == (before.exit_index != after.exit_index).sum() > 0
    assert found.policy.decision_changes == (before.decision != after.decision).sum() > 0


def test_without_a_policy_there_are_no_decisions(tiny_artifact: Callable[..., Path], tiny_network) -> None:
    network = open_cascade(tiny_artifact())
    found = validate(Reference(network, tiny_network.samples(50)), network, network.manifest, max_drop=0.0, tf32=False)
    assert found.policy is None


@pytest.mark.parametrize(("tf32", "words"), [(True, "--no-tf32"), (False, "--level")])
def test_what_loses_too_much_is_refused_by_name(
    tiny_artifact: Callable[..., Path], tiny_network, tf32: bool, words: str
) -> None:
    network, samples = open_cascade(tiny_artifact(policy=THRESHOLDS)), tiny_network.samples(600)
    with pytest.raises(VerificationError, match=r"exit2: [0-9.]+% before, [0-9.]+% after; by the policy") as caught:
        validate(Reference(network, samples), Shifted(network, 1, 3.0), network.manifest, max_drop=0.01, tf32=tf32)
    assert "exit1" not in caught.value.problem
    assert words in caught.value.next_step
    assert "--max-drop" in caught.value.next_step


def test_logits_that_are_not_finite_are_refused_whatever_may_be_lost(
    tiny_artifact: Callable[..., Path], tiny_network
) -> None:
    network = open_cascade(tiny_artifact())
    reference = Reference(network, tiny_network.samples(50))
    with pytest.raises(VerificationError, match="final: outputs of the engines or of the graphs are not finite"):
        validate(reference, Shifted(network, 2, np.nan), network.manifest, max_drop=0.9, tf32=False)


def test_missing_data_warns_unless_its_folder_was_given(tiny_artifact: Callable[..., Path], tmp_path: Path) -> None:
    artifact = tiny_artifact()
    with pytest.warns(
        UserWarning, match="not compared with their graphs on validation .*To compare them: .*--data-dir"
    ):
        assert find_reference(open_trained_model(artifact), count=10) is None
    with pytest.raises(DataError):
        find_reference(open_trained_model(artifact, Options(data_dir=tmp_path / "nowhere")), count=10)


def test_graphs_that_cannot_be_run_here_are_found_before_a_build(
    tiny_artifact: Callable[..., Path], tiny_network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As bf16 on x86: TensorRT builds such graphs, onnxruntime has no kernels for them."""
    samples = tiny_network.samples(10)
    monkeypatch.setattr(TrainedModel, "dataset", lambda _: SimpleNamespace(task=TASK, split=lambda _: samples))

    def refuse(*_: object, **__: object) -> None:
        raise ArtifactError("onnxruntime cannot load it.", next_step="upgrade onnxruntime")

    artifact = tiny_artifact()
    reference = find_reference(open_trained_model(artifact), count=10)
    assert reference is not None
    assert len(reference.samples) == 10
    monkeypatch.setattr(TrainedModel, "engine", refuse)
    with pytest.warns(UserWarning, match="onnxruntime cannot load it"):
        assert find_reference(open_trained_model(artifact), count=10) is None
    with pytest.raises(ArtifactError):
        find_reference(open_trained_model(artifact, Options(data_dir=artifact)), count=10)
