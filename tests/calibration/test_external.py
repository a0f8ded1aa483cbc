"""A certificate on images of a user's own, and the weaker promise that is no certificate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdcompress import calibrate, plan
from sdcompress.artifact.execution_target import ExecutionTarget, check_covered
from sdcompress.artifact.read import open_artifact
from sdcompress.calibration.calibrate import calibrate as run_calibrate
from sdcompress.calibration.calibrate import least_samples
from sdcompress.certification.calibration_split import draw_split, seed_of
from sdcompress.certification.certify import excess_losses
from sdcompress.certification.recompute import verify_certificate
from sdcompress.data.samples import Dataset
from sdcompress.data.unlabelled import UnlabelledFolder
from sdcompress.errors import CertificateError, DataError, UsageError
from sdcompress.evaluation.trained_model import TrainedModel
from sdcompress.modalities import modality_of
from sdcompress.options import Options
from sdcompress.runtime.open import open_engine
from sdcompress.schema import recipe
from sdcompress.storage import digest_of
from sdcompress.tasks import task_of
from sdcompress.tasks.classification import Classification

Build = Callable[..., Path]
WISH: dict[str, Any] = {"max_drop": 0.05, "confidence": 0.9, "unlabelled": True}


@pytest.fixture(scope="module")
def images(tiny_network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traffic")
    for number, image in enumerate(tiny_network.samples(1200).examples(np.arange(1200))):
        Image.fromarray(image[:, :, 0]).save(folder / f"{number:04}.png")
    return folder


def reachable(monkeypatch: pytest.MonkeyPatch, training: Any) -> None:
    """As if the artifact's data set were at hand, with these training images."""

    def dataset(self: TrainedModel) -> Dataset:
        manifest = open_artifact(self.path).manifest
        return Dataset("mine", training, training, training, task_of(manifest), modality_of(manifest), "3" * 64)

    monkeypatch.setattr(TrainedModel, "dataset", dataset)


def test_a_folder_is_certified_where_the_data_set_is_not_at_hand(tiny_artifact: Build, images: Path) -> None:
    cascade = tiny_artifact()
    out = cascade.parent / "out"
    manifest = calibrate(cascade, out, WISH, samples=images)
    certificate, policy = manifest.certificate, manifest.policy
    assert certificate is not None
    assert policy is not None
    assert (policy.guarantee, policy.split, certificate.external) == ("certified", "external", "not compared")
    own = UnlabelledFolder(images, modality_of(manifest))
    assert certificate.data_fingerprint == own.fingerprint != manifest.provenance.data_fingerprint
    assert certificate.seed == seed_of(own.fingerprint, certificate.graphs)
    assert verify_certificate(open_artifact(out)) == certificate
    check_covered(manifest, ExecutionTarget())
    # what the engine does on the images that certified, in their order
    engine = open_engine(out, threads=1)
    inputs = engine.preprocess(own.examples(draw_split(1200, certificate.seed).certify))
    differ = engine(inputs).decision != engine.exits(inputs)[-1].argmax(1)
    np.testing.assert_array_equal(excess_losses(open_artifact(out).evidence(), policy.thresholds), differ)
    assert "not compared with the training samples" in (out / "README.md").read_text(encoding="utf-8")


def test_where_the_data_set_is_at_hand_training_images_are_refused(
    tiny_artifact: Build, tiny_network: Any, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cascade = tiny_artifact()
    reachable(monkeypatch, tiny_network.samples(300, seed=9))
    manifest = calibrate(cascade, cascade.parent / "out", WISH, samples=images)
    assert manifest.certificate is not None
    assert manifest.certificate.external == "disjoint"
    reachable(monkeypatch, tiny_network.samples(300))  # the first of those in the folder
    with pytest.raises(DataError, match="300 of 1200 examples are among those that the network was trained on"):
        calibrate(cascade, cascade.parent / "again", WISH, samples=images)


def test_a_folder_of_data_that_is_named_must_be_the_data(tiny_artifact: Build, images: Path) -> None:
    cascade = tiny_artifact()
    with pytest.raises(DataError, match="not the one that was trained on"):
        calibrate(cascade, cascade.parent / "out", WISH, Options(data_dir="elsewhere"), samples=images)


def test_images_have_no_labels(tiny_artifact: Build, images: Path) -> None:
    with pytest.raises(UsageError, match="samples without labels") as caught:
        calibrate(tiny_artifact(), "out", {"confidence": 0.9}, samples=images)
    assert "--unlabelled" in caught.value.next_step


def test_too_few_images_are_counted(tiny_artifact: Build, images: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(images.iterdir())[:60]:
        (few / path.name).write_bytes(path.read_bytes())
    cascade = tiny_artifact()
    with pytest.raises(DataError, match=r"The folder has 60 samples: too few to certify a drop of 1\.00%") as caught:
        calibrate(cascade, cascade.parent / "out", {**WISH, "max_drop": 0.01}, samples=few)
    assert "collect more samples" in caught.value.next_step
    assert plan(cascade, WISH, samples=few).samples == 60


def test_what_labels_certify_cannot_be_passed_off_as_made_without(certified_artifact: Path) -> None:
    path = certified_artifact / "manifest.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["certificate"]["external"] = "disjoint"
    fields["digest"] = digest_of({name: value for name, value in fields.items() if name != "digest"})
    path.write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(CertificateError, match="on samples without targets"):
        verify_certificate(open_artifact(certified_artifact))


@pytest.mark.parametrize("unlabelled", [False, True])
def test_in_expectation_is_never_called_certified(tiny_artifact: Build, tiny_network: Any, unlabelled: bool) -> None:
    cascade, samples = tiny_artifact(), tiny_network.samples(2000)
    wish = recipe.Calibrate(max_drop=0.05, in_expectation=True, unlabelled=unlabelled)
    out = cascade.parent / "out"
    manifest = run_calibrate(cascade, out, samples=samples, settings=wish)
    policy = manifest.policy
    assert policy is not None
    assert manifest.certificate is None
    assert policy.guarantee == "in expectation"
    assert policy.samples == 2000 - 2000 // 6  # what chose nothing
    assert policy.shares[-1] < 1
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "in expectation only" in text
    assert "Nothing is certified" in text
    assert "certified for" not in text
    assert verify_certificate(open_artifact(out)) is None
    # the bound of conformal risk control on the samples that chose nothing: n / (n + 1) R + 1 / (n + 1)
    if not unlabelled:
        assert policy.metric is not None
        assert policy.reference_metric is not None
        drop = policy.reference_metric - policy.metric
        assert (drop * policy.samples + 1) / (policy.samples + 1) <= 0.05


def test_in_expectation_lets_more_leave_than_a_certificate(
    tiny_artifact: Build, tiny_network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdcompress.calibration.tuning.stage_ms", lambda engine, samples: (1.0, 1.0, 1.0))
    cascade, samples = tiny_artifact(), tiny_network.samples(2000)
    shares = []
    for number, wish in enumerate(({"in_expectation": True}, {"confidence": 0.99})):
        settings = recipe.Calibrate(max_drop=0.05, unlabelled=True, **wish)
        policy = run_calibrate(cascade, cascade.parent / f"{number}", samples=samples, settings=settings).policy
        assert policy is not None
        shares.append(policy.shares[-1])
    assert shares[0] < shares[1]


def test_in_expectation_needs_as_many_samples_as_its_formula(tiny_artifact: Build, tiny_network: Any) -> None:
    wish = recipe.Calibrate(max_drop=0.01, in_expectation=True)
    least = least_samples(wish, Classification(("a", "b", "c")))
    assert least - least // 6 == 99  # (0 + 1) / (99 + 1) = 0.01
    cascade = tiny_artifact()
    with pytest.raises(DataError, match=f"{least - 1} samples") as caught:
        run_calibrate(cascade, cascade.parent / "out", samples=tiny_network.samples(least - 1), settings=wish)
    assert f"at least {least}" in caught.value.allowed
