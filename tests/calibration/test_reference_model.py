"""A certificate against another network: what it lost without early exit counts too."""

from __future__ import annotations

import dataclasses
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from signals import TASK

from sdcompress.artifact.evidence import Evidence
from sdcompress.artifact.execution_target import ExecutionTarget, check_covered
from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.write import entry, rewrite, staged
from sdcompress.calibration.calibrate import calibrate
from sdcompress.calibration.reference_model import warn_of_weaker_reference
from sdcompress.calibration.thresholds import NEVER
from sdcompress.certification.calibration_split import draw_split
from sdcompress.certification.certify import certified_drop, excess_losses
from sdcompress.certification.p_values import betting_p_value, binomial_p_value
from sdcompress.certification.recompute import verify_certificate
from sdcompress.data.samples import ArraySamples
from sdcompress.errors import CertificateError, UsageError
from sdcompress.explaining.risk import risk
from sdcompress.modalities import as_image, modality_of
from sdcompress.runtime.open import open_engine
from sdcompress.schema import recipe
from sdcompress.schema.manifest import Manifest
from sdcompress.tasks import task_of

Build = Callable[..., Path]


def test_losses_are_counted_from_the_other_network_by_hand() -> None:
    loss = np.float32([[0, 1, 0, 1], [0, 0, 1, 1]])  # of the exit, of the last exit
    evidence = Evidence(np.array([[0.9, 0.9, 0.1, 0.1]], np.float32), loss, reference_loss=np.float32([0, 0, 0, 1]))
    # two leave at the exit (right, wrong), two at the end (wrong, wrong); the other network has the first three right
    assert excess_losses(evidence, (0.5,)).tolist() == [0, 1, 1, 0]
    assert excess_losses(evidence, (NEVER,)).tolist() == [0, 0, 1, 0]
    assert excess_losses(dataclasses.replace(evidence, reference_loss=None), (NEVER,)).tolist() == [0, 0, 0, 0]


def test_a_reference_far_below_the_own_last_exit_gets_a_warning_by_hand() -> None:
    loss = np.float32([[1, 1, 1, 1], [0, 0, 0, 1]])  # of the exit, of the last exit
    evidence = Evidence(np.ones((1, 4), np.float32), loss, reference_loss=np.float32([1, 1, 0, 1]))
    figures = r"accuracy of the reference is 25\.00% on 4 samples, .* own last exit 75\.00%.* and 40\.00% more"
    with pytest.warns(UserWarning, match=figures):
        warn_of_weaker_reference(evidence, TASK, 0.4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_weaker_reference(evidence, TASK, 0.5)  # no more than is allowed
        warn_of_weaker_reference(replace(evidence, reference_loss=loss[1] * 0), TASK, 0.0)  # a better one


@pytest.mark.parametrize(("lost", "certified"), [(0, 2), (30, 2), (80, 0)])
def test_no_early_exit_is_tested_too(lost: int, certified: int) -> None:
    """2,000 samples of which the whole network loses some against the other one; 3 % are allowed."""
    loss = np.zeros((2, 2000), np.float32)
    loss[:, :lost] = 1
    evidence = Evidence(np.ones((1, 2000), np.float32), loss, reference_loss=np.zeros(2000, np.float32))
    order = np.random.default_rng(0).permutation(2000)
    shuffled = Evidence(evidence.scores, loss[:, order], reference_loss=np.zeros(2000, np.float32))
    found = certified_drop(shuffled, ((NEVER,), (NEVER,), (0.5,)), "binomial", 0.03, 0.05)
    assert found.certified == certified
    assert found.p_values[0] == binomial_p_value(lost, 2000, 0.03)


def other_weights(source: Path, out: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """A copy of an artifact whose last segment has other weights."""
    opened = open_artifact(source)
    with staged(out) as folder:
        segments = []
        for segment in opened.manifest.segments:
            model = onnx.load(opened.file(segment))
            if segment == opened.manifest.segments[-1]:
                for tensor in model.graph.initializer:
                    if tensor.data_type == onnx.TensorProto.FLOAT:
                        changed = change(numpy_helper.to_array(tensor)).astype(np.float32)
                        tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
            (folder / segment.file).write_bytes(model.SerializeToString())
            segments.append(segment.model_copy(update=entry(folder, segment.file).model_dump()))
        rewrite(opened, folder, segments=tuple(segments))
    return out


def noisy(scale: float) -> Callable[[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(3)
    return lambda weights: weights + scale * rng.normal(size=weights.shape)


def certify(artifact: Path, samples: ArraySamples, reference: Path | None, **settings: Any) -> Manifest:
    asked = recipe.Calibrate(**{"max_drop": 0.05, "confidence": 0.9, **settings})
    out = artifact.parent / "out"
    return calibrate(artifact, out, samples=samples, settings=asked, reference=reference, overwrite=True)


def test_a_certificate_against_the_network_before_it_was_changed(tiny_artifact: Build, tiny_network: Any) -> None:
    before = tiny_artifact(name="before")
    changed = other_weights(before, before.parent / "changed", noisy(0.01))
    samples = tiny_network.samples(4000)
    manifest = certify(changed, samples, before)
    certificate, policy = manifest.certificate, manifest.policy
    assert certificate is not None
    assert policy is not None
    assert certificate.reference == open_artifact(before).manifest.digest
    assert policy.guarantee == "certified"
    assert certificate.path[0] == certificate.path[1] == (NEVER, NEVER)
    out = open_artifact(changed.parent / "out")
    evidence = out.evidence()
    assert evidence.reference_loss is not None
    # the p-value of the thresholds that run, from the two engines' own answers on the samples that certify
    order = draw_split(4000, certificate.seed).certify
    engines = open_engine(out.path, threads=1), open_engine(before, threads=1)
    inputs, labels = engines[0].preprocess(samples.examples(order)), samples.targets[order]
    ran, whole = engines[0](inputs).outputs.argmax(1), engines[1].exits(inputs)[-1].argmax(1)
    gap = (whole == labels).astype(np.float64) - (ran == labels)
    np.testing.assert_array_equal(excess_losses(evidence, policy.thresholds), gap)
    (level,) = certificate.levels
    assert level.certified > 1
    assert betting_p_value(gap, 0.05, level.delta) == pytest.approx(level.p_values[level.certified - 1], rel=1e-9)
    assert policy.reference_metric == float((whole == labels).mean())
    assert verify_certificate(out) == certificate


def test_calibrating_with_a_weaker_reference_warns(tiny_artifact: Build, tiny_network: Any) -> None:
    good = tiny_artifact(name="good")
    weak = other_weights(good, good.parent / "weak", lambda weights: -weights)
    samples = tiny_network.samples(1000)
    with pytest.warns(UserWarning, match="of the reference is .* own last exit"):
        certify(good, samples, weak)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*of the reference is")
        certify(weak, samples, good)
        certify(good, samples, weak, unlabelled=True)  # targets are not used, so neither metric is known


def test_a_network_that_has_lost_too_much_gets_no_certificate(tiny_artifact: Build, tiny_network: Any) -> None:
    before = tiny_artifact(name="before")
    worse = other_weights(before, before.parent / "worse", lambda weights: -weights)
    manifest = certify(worse, tiny_network.samples(4000), before)
    assert manifest.policy is not None
    assert manifest.policy.guarantee == "no certificate"
    assert manifest.policy.thresholds == (NEVER, NEVER)
    check_covered(manifest, ExecutionTarget())
    # neither the engine nor verify believes that it is certified
    out = open_artifact(worse.parent / "out")
    with staged(worse.parent / "claims") as folder:
        rewrite(out, folder, policy=manifest.policy.model_copy(update={"guarantee": "certified"}))
    with pytest.raises(CertificateError, match="not among those that are certified"):
        open_engine(worse.parent / "claims")
    assert "nothing is lost" not in (out.path / "README.md").read_text(encoding="utf-8")
    # against itself nothing is lost without early exit, and something can be certified
    alone = certify(worse, tiny_network.samples(4000), None)
    assert alone.certificate is not None
    assert alone.certificate.reference is None


def test_explain_says_what_is_lost_without_early_exit(tiny_artifact: Build, tiny_network: Any) -> None:
    before = tiny_artifact(name="before")
    worse = other_weights(before, before.parent / "worse", lambda weights: -weights)
    certify(worse, tiny_network.samples(2000), before)
    out = open_artifact(worse.parent / "out")
    certificate, policy = out.manifest.certificate, out.manifest.policy
    assert certificate is not None
    assert policy is not None
    found = risk(certificate, policy, out.evidence(), (1.0, 2.0, 3.0), task_of(out.manifest))
    lost = float(excess_losses(out.evidence(), (NEVER, NEVER)).mean())
    assert lost > 0.5
    assert [step.loss for step in found.steps] == [lost, lost]
    assert all(lost < step.bound < lost + 0.1 for step in found.steps)
    assert (found.reference, found.chosen, found.certified) == (certificate.reference, 0, 0)


@pytest.mark.parametrize("group_by", ["exit", "stratum"])
def test_groups_and_a_ladder_against_the_other_network(tiny_artifact: Build, tiny_network: Any, group_by: str) -> None:
    before = tiny_artifact(name="before")
    changed = other_weights(before, before.parent / "changed", noisy(0.003))
    manifest = certify(
        changed, tiny_network.samples(9000), before, group_by=group_by, max_drop=0.08, extra_drops=(0.05,)
    )
    assert manifest.certificate is not None
    assert [level.certified > 0 for level in manifest.certificate.levels] == [True, True]
    verify_certificate(open_artifact(changed.parent / "out"))


def test_disagreement_with_the_other_network(tiny_artifact: Build, tiny_network: Any) -> None:
    before = tiny_artifact(name="before")
    changed = other_weights(before, before.parent / "changed", noisy(0.01))
    samples = tiny_network.samples(4000)
    blind = ArraySamples(samples.examples(np.arange(4000)), np.full(4000, -1))
    manifest = certify(changed, blind, before, unlabelled=True)
    assert manifest.certificate is not None
    assert manifest.policy is not None
    assert manifest.policy.guarantee == "certified"
    out = open_artifact(changed.parent / "out")
    evidence = out.evidence()
    assert evidence.reference_loss is not None
    assert not evidence.reference_loss.any()
    assert evidence.loss[-1].any()  # the changed network's last exit is another one's
    assert set(excess_losses(evidence, manifest.policy.thresholds).tolist()) == {0, 1}
    verify_certificate(out)


def test_evidence_and_certificate_must_speak_of_the_same(tiny_artifact: Build, tiny_network: Any) -> None:
    before = tiny_artifact(name="before")
    certificate = certify(before, tiny_network.samples(2000), before).certificate
    out = open_artifact(before.parent / "out")
    assert certificate is not None
    forged = certificate.model_copy(update={"reference": None})
    with staged(out.path.parent / "forged") as folder:
        rewrite(out, folder, certificate=forged)
    with pytest.raises(CertificateError, match="its reference is not that of its evidence"):
        verify_certificate(open_artifact(out.path.parent / "forged"))

    # without the test of no early exit every figure still follows from the evidence
    (level,) = certificate.levels
    assert level.certified > 1
    shorter = level.model_copy(update={"certified": level.certified - 1, "p_values": level.p_values[1:]})
    forged = certificate.model_copy(update={"path": certificate.path[1:], "levels": (shorter,)})
    with pytest.raises(CertificateError, match="first step of its path has an early exit"):
        verify_certificate(type(out)(out.path, out.manifest.model_copy(update={"certificate": forged})))


def test_what_cannot_be_a_reference(tiny_artifact: Build, tiny_network: Any, tmp_path: Path) -> None:
    artifact = tiny_artifact(name="mine")
    samples = tiny_network.samples(1000)
    with pytest.raises(UsageError, match="no certificate is requested"):
        calibrate(artifact, tmp_path / "out", samples=samples, settings=recipe.Calibrate(), reference=artifact)
    opened = open_artifact(artifact)
    with staged(tmp_path / "other") as folder:
        rewrite(opened, folder, outputs=("a", "b", "c"))
    with pytest.raises(UsageError, match="another list of outputs"):
        certify(artifact, samples, tmp_path / "other")
    shutil.rmtree(tmp_path / "other")
    with staged(tmp_path / "other") as folder:
        image = as_image(modality_of(opened.manifest))
        spec = image.preprocess.model_copy(update={"mean": (0.1,)})
        rewrite(opened, folder, modality=replace(image, preprocess=spec).record)
    with pytest.raises(UsageError, match="another modality"):
        certify(artifact, samples, tmp_path / "other")
