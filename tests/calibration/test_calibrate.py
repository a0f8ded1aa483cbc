"""Calibration of a real artifact: what is promised is what the written artifact does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sdcompress
from sdcompress.artifact.read import open_artifact
from sdcompress.calibration.calibrate import calibrate
from sdcompress.calibration.thresholds import NEVER
from sdcompress.data.samples import ArraySamples, Subset
from sdcompress.errors import (
    ArtifactError,
    DataError,
    OutputExistsError,
    SdcompressError,
    UnknownNameError,
    UsageError,
)
from sdcompress.runtime.open import open_engine
from sdcompress.schema import recipe
from sdcompress.schema.manifest import Manifest

Build = Callable[..., Path]


@pytest.fixture
def samples(tiny_network: Any) -> ArraySamples:
    return tiny_network.samples(600)


def calibrated(build: Build, samples: Any, name: str = "out", **settings: Any) -> tuple[Manifest, Path]:
    cascade = build()
    out = cascade.parent / name
    return calibrate(cascade, out, samples=samples, settings=recipe.Calibrate(**settings)), out


@pytest.mark.parametrize("batch", [1, 7, 600])
def test_the_engine_does_what_the_policy_says(tiny_artifact: Build, samples: ArraySamples, batch: int) -> None:
    manifest, out = calibrated(tiny_artifact, samples, max_drop=0.02)
    policy, engine = manifest.policy, open_engine(out, threads=1)
    assert policy is not None
    inputs = engine.preprocess(samples.examples(np.arange(600)))
    parts = [engine(inputs[start : start + batch]) for start in range(0, 600, batch)]
    left = np.concatenate([part.exit_index for part in parts])
    answers = np.concatenate([part.outputs for part in parts]).argmax(1)
    assert policy.shares == tuple(float((left == exit_).mean()) for exit_ in range(3))
    assert policy.metric == float((answers == samples.targets).mean())
    assert policy.reference_metric == float((engine.exits(inputs)[-1].argmax(1) == samples.targets).mean())
    assert policy.metric >= policy.reference_metric - 0.02
    assert policy.shares[-1] < 1  # somebody leaves early
    assert (policy.samples, policy.split, policy.max_drop) == (600, "validation", 0.02)
    assert len(policy.stage_ms) == 3


def test_a_larger_loss_buys_earlier_exits(tiny_artifact: Build, samples: ArraySamples) -> None:
    shares = []
    for drop in (0.0, 0.05, 1.0):
        manifest, _ = calibrated(
            lambda drop=drop: tiny_artifact(name=f"at-{drop}"), samples, f"out-{drop}", max_drop=drop
        )
        assert manifest.policy is not None
        shares.append(manifest.policy.shares)
    assert shares[0][-1] > shares[1][-1] > shares[2][-1] == 0
    assert shares[2] == (1.0, 0.0, 0.0)


def test_graphs_and_golden_are_the_same_bytes(tiny_artifact: Build, samples: ArraySamples) -> None:
    manifest, out = calibrated(tiny_artifact, samples)
    old, new = open_artifact(tiny_artifact(name="again")), open_artifact(out)
    for file in (*old.manifest.segments, old.manifest.golden):
        assert new.file(file).read_bytes() == old.file(file).read_bytes()
    assert manifest == new.manifest
    assert manifest.provenance.parent == old.manifest.digest != manifest.digest
    same = {"segments", "golden", "parity", "outputs", "inputs", "layout"}
    assert manifest.model_dump(include=same) == old.manifest.model_dump(include=same)
    assert manifest.provenance.weights_sha256 == old.manifest.provenance.weights_sha256
    assert "600 validation samples" in new.file(manifest.card).read_text(encoding="utf-8")


def test_a_policy_that_is_there_does_not_matter(tiny_artifact: Build, samples: ArraySamples) -> None:
    fresh, _ = calibrated(tiny_artifact, samples, "first")
    again, _ = calibrated(
        lambda: tiny_artifact(name="old", policy=(0.0, 0.0), temperatures=(3.0, 3.0, 3.0)), samples, "second"
    )
    assert [exit_.temperature for exit_ in again.exits] == [exit_.temperature for exit_ in fresh.exits]
    assert again.policy is not None
    assert again.policy.metric >= again.policy.reference_metric - 0.01


def test_nobody_leaves_where_only_the_last_exit_is_right(tiny_artifact: Build, samples: ArraySamples) -> None:
    cascade = tiny_artifact()
    engine = open_engine(cascade, threads=1)
    images = samples.examples(np.arange(600))
    answers = engine.exits(engine.preprocess(images)).argmax(2)
    hard = (answers[0] != answers[2]) & (answers[1] != answers[2])
    assert hard.sum() >= 50
    only_last = ArraySamples(images[hard], answers[2, hard])
    manifest = calibrate(
        cascade, cascade.parent / "out", samples=only_last, settings=recipe.Calibrate(max_drop=0, fit_temperature=False)
    )
    assert manifest.policy is not None
    assert manifest.policy.thresholds == (2.0, 2.0)
    assert manifest.policy.shares == (0.0, 0.0, 1.0)
    assert manifest.policy.metric == 1.0


def test_progress_counts_images(tiny_artifact: Build, samples: ArraySamples) -> None:
    seen: list[tuple[int, int]] = []
    cascade = tiny_artifact()
    calibrate(
        cascade,
        cascade.parent / "out",
        samples=samples,
        settings=recipe.Calibrate(),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(256, 600), (512, 600), (600, 600)]


@pytest.mark.parametrize("layout", ["single", "all"])
def test_only_a_cascade(tiny_artifact: Build, samples: ArraySamples, layout: str) -> None:
    refused(tiny_artifact(layout), samples, UsageError, "--layout cascade")


def test_not_on_the_test_split(tiny_artifact: Build, samples: ArraySamples) -> None:
    refused(tiny_artifact(), samples, UsageError, "validation chooses, test only reports", split="test")


def test_not_on_a_handful_of_samples(tiny_artifact: Build, samples: ArraySamples) -> None:
    refused(tiny_artifact(), Subset(samples, np.arange(49)), DataError, "49 samples")


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_of_other_classes(tiny_artifact: Build, samples: ArraySamples, label: int) -> None:
    labels = samples.targets.copy()
    labels[5] = label
    refused(tiny_artifact(), ArraySamples(samples.examples(np.arange(600)), labels), DataError, "0 to 2")


def refused(cascade: Path, samples: Any, error: type[SdcompressError], says: str, **arguments: Any) -> None:
    before = sorted(path.name for path in cascade.parent.iterdir())
    with pytest.raises(error, match=says):
        calibrate(cascade, cascade.parent / "out", samples=samples, settings=recipe.Calibrate(), **arguments)
    assert sorted(path.name for path in cascade.parent.iterdir()) == before


def test_an_artifact_is_replaced_only_when_told(tiny_artifact: Build, samples: ArraySamples) -> None:
    cascade = tiny_artifact()
    given = {"samples": samples, "settings": recipe.Calibrate()}
    with pytest.raises(OutputExistsError):
        calibrate(cascade, cascade, **given)
    assert open_artifact(cascade).manifest.policy is None
    calibrate(cascade, cascade, **given, overwrite=True)  # in its own place
    assert open_artifact(cascade).manifest.policy is not None


def test_a_policy_that_cannot_run_here_is_replaced(tiny_artifact: Build, samples: ArraySamples) -> None:
    """That is what the error of opening it advises."""
    manifest, _ = calibrated(
        lambda: tiny_artifact(policy=(0.9, NEVER), temperatures=(2.0, 1.0, 1.0), kind="elsewhere"),
        samples,
        max_drop=0.05,
        fit_temperature=False,
    )
    assert manifest.policy is not None
    assert manifest.policy.name == "max_prob"
    assert [exit_.temperature for exit_ in manifest.exits] == [1.0, 1.0, 1.0]


def test_what_is_wrong_without_the_data_is_refused_before_it_is_read(tiny_artifact: Build, tmp_path: Path) -> None:
    """The data of these artifacts does not exist, and reading it would be another error."""
    cascade, single = tiny_artifact(), tiny_artifact("single")
    with pytest.raises(UsageError, match="has the layout 'single' and 1 exit"):
        sdcompress.calibrate(single, tmp_path / "out")
    with pytest.raises(UsageError, match="has the layout 'single' and 1 exit"):
        sdcompress.plan(single, {"confidence": 0.95})
    with pytest.raises(UnknownNameError, match="max_prob"):
        sdcompress.calibrate(cascade, tmp_path / "out", {"policy": "max_prb"})
    with pytest.raises(ArtifactError, match="is not there"):
        sdcompress.calibrate(cascade, tmp_path / "out", {"confidence": 0.95}, reference=tmp_path / "nothing")
    with pytest.raises(DataError):
        sdcompress.calibrate(cascade, tmp_path / "out", {"confidence": 0.95}, reference=single)
