"""With export.ensemble every exit is the geometric mean of the exits so far, in every layout, by numpy's account."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from sdcompress.artifact.read import open_artifact
from sdcompress.checkpoint import open_checkpoint
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.exporting.ensemble import GeometricEnsemble
from sdcompress.exporting.export import export_all
from sdcompress.exporting.export_spec import ExportSpec
from sdcompress.modalities._image_preprocess import normalise
from sdcompress.runtime.open import open_engine
from sdcompress.schema.recipe import Export
from sdcompress.tasks.classification import Classification
from sdcompress.verification.verify import verify

EXITS = ("exit1", "exit2", "final")


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ensembles")
    targets = [ExportSpec(folder / "cascade", "cascade"), ExportSpec(folder / "exit2", "single", exit="exit2")]
    export_all(checkpoint, targets, settings=Export(ensemble="geometric"))
    return folder


@pytest.fixture(scope="module")
def images(checkpoint: Path) -> np.ndarray:
    val = open_trained_model(checkpoint).dataset().val
    return val.examples(np.arange(len(val)))


@pytest.fixture(scope="module")
def expected(checkpoint: Path, images: np.ndarray) -> np.ndarray:
    """[E, N, K] in float64 from the checkpoint's own logits."""
    source = open_checkpoint(checkpoint)
    with torch.no_grad():
        logits = source.network()(torch.from_numpy(normalise(images, source.modality.preprocess))).logits
    p = np.exp(np.stack([exit_.double().numpy() for exit_ in logits]))
    p /= p.sum(axis=2, keepdims=True)
    return np.stack([np.log(np.prod(p[: k + 1], axis=0) ** (1 / (k + 1))) for k in range(len(p))])


def test_every_exit_is_the_mean_of_those_so_far(folder: Path, images: np.ndarray, expected: np.ndarray) -> None:
    for name, exits in (("cascade", [0, 1, 2]), ("exit2", [1])):
        engine = open_engine(folder / name, threads=1)
        assert engine.exit_names == tuple(EXITS[k] for k in exits)
        np.testing.assert_allclose(engine.exits(engine.preprocess(images)), expected[exits], atol=5e-5)
        assert verify(folder / name).samples == 32


def test_an_exit_without_a_head_in_the_file_does_not_count() -> None:
    """3 : 1 and 1 : 3 cancel out; the middle exit, which is sure, is not kept."""
    outputs = [torch.tensor([[p, 1 - p]]).log() for p in (0.75, 0.999, 0.25)]

    class Told(torch.nn.Module):
        def forward(self, _: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(outputs)

    first, last = GeometricEnsemble(Told(), Classification(("a", "b")), kept=(0, 2))(torch.zeros(1))
    torch.testing.assert_close(first, outputs[0])
    torch.testing.assert_close(last.softmax(1), torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(last, (outputs[0] + outputs[2]) / 2)  # a mean, not a sum: both are log-probabilities


def test_scores_golden_samples_and_signals_are_those_of_the_ensemble(
    folder: Path, checkpoint: Path, images: np.ndarray, expected: np.ndarray
) -> None:
    opened = open_artifact(folder / "cascade")
    labels = open_trained_model(checkpoint).dataset().val.targets
    right = (expected.argmax(2) == labels).mean(1)
    assert [exit_.metrics["accuracy"] for exit_ in opened.manifest.exits] == pytest.approx(right.tolist())
    golden = opened.golden()
    np.testing.assert_allclose(np.exp(golden.outputs[0]).sum(1), 1, rtol=1e-5)  # log probabilities
    engine = open_engine(folder / "cascade", threads=1)
    p = np.exp(expected[1])
    p /= p.sum(1, keepdims=True)
    np.testing.assert_allclose(engine.signals(engine.preprocess(images))[1]["max_prob"], p.max(1), atol=1e-5)


def test_the_sum_crosses_the_borders_and_nothing_is_computed_twice(folder: Path) -> None:
    segments = open_artifact(folder / "cascade").manifest.segments
    for before, after in pairwise(segments):
        shared = {tensor.name: tensor.shape for tensor in before.outputs if tensor in after.inputs}
        assert ("batch", 10) in shared.values()
        assert len(shared) == 2  # and the map


def test_manifest_and_card_say_so(folder: Path, checkpoint: Path) -> None:
    opened = open_artifact(folder / "cascade")
    assert opened.manifest.provenance.recipe["export"]["ensemble"] == "geometric"
    assert open_checkpoint(checkpoint).recipe.export.ensemble is None
    assert "(geometric ensemble)" in (opened.path / "README.md").read_text(encoding="utf-8")
