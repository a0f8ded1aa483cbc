"""An engine opens with what is certified, and with nothing beyond it unless it is told to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdcompress.artifact.execution_target import ExecutionTarget, check_covered, graphs_digest
from sdcompress.artifact.read import open_artifact
from sdcompress.errors import CertificateError
from sdcompress.modalities import as_image, modality_of
from sdcompress.runtime.open import open_engine
from sdcompress.schema.manifest import Manifest

CPU = ExecutionTarget()


def changed(manifest: Manifest, **fields: Any) -> Manifest:
    return manifest.model_copy(update=fields)


def refused(manifest: Manifest, words: str, **where: str) -> None:
    with pytest.raises(CertificateError, match=words) as caught:
        check_covered(manifest, CPU._replace(**where))
    assert caught.value.allowed
    assert caught.value.next_step


def test_as_written_it_is_covered_where_it_was_certified(certified_artifact: Path) -> None:
    manifest = open_artifact(certified_artifact).manifest
    check_covered(manifest, CPU)
    refused(manifest, "for onnxruntime on cpu, not for onnxruntime on cuda", device="cuda")
    refused(manifest, "not for tensorrt on cpu", backend="tensorrt")


def test_every_certified_step_is_covered_and_none_beyond(certified_artifact: Path) -> None:
    manifest = open_artifact(certified_artifact).manifest
    policy, certificate = manifest.policy, manifest.certificate
    assert policy is not None
    assert certificate is not None
    for level in certificate.levels:
        for step, thresholds in enumerate(certificate.path):
            moved = changed(
                manifest, policy=policy.model_copy(update={"thresholds": thresholds, "max_drop": level.max_drop})
            )
            if step <= level.certified:
                check_covered(moved, CPU)
            else:
                refused(moved, f"not among those that are certified for a drop of {level.max_drop:.2%}")


def test_a_drop_that_was_not_tested_is_not_covered(certified_artifact: Path) -> None:
    manifest = open_artifact(certified_artifact).manifest
    assert manifest.policy is not None
    refused(changed(manifest, policy=manifest.policy.model_copy(update={"max_drop": 0.03})), "a drop of 3.00%")


def test_thresholds_that_never_fire_lose_nothing(certified_artifact: Path) -> None:
    manifest = open_artifact(certified_artifact).manifest
    assert manifest.policy is not None
    shut = manifest.policy.model_copy(update={"thresholds": (2.0, 2.0), "guarantee": "no certificate"})
    check_covered(changed(manifest, policy=shut), CPU)


def test_the_graphs_are_known_by_their_bytes_in_their_order(certified_artifact: Path) -> None:
    manifest = open_artifact(certified_artifact).manifest
    assert manifest.certificate is not None
    assert graphs_digest(manifest) == manifest.certificate.graphs
    assert graphs_digest(changed(manifest, segments=manifest.segments[::-1])) != manifest.certificate.graphs


def test_where_nothing_is_promised_nothing_is_refused(tiny_artifact: Callable[..., Path]) -> None:
    check_covered(open_artifact(tiny_artifact(policy=(0.1, 0.1))).manifest, ExecutionTarget("any", "cuda"))
    check_covered(open_artifact(tiny_artifact("single")).manifest, ExecutionTarget("any", "cuda"))


def test_the_engine_asks_first(certified_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(certified_artifact, threads=1)
    assert engine.policy is not None
    assert engine.policy.guarantee == "certified"
    monkeypatch.setattr("sdcompress.artifact.execution_target.graphs_digest", lambda manifest: "0" * 64)
    with pytest.raises(CertificateError, match="another artifact"):
        open_engine(certified_artifact, threads=1)
    uncertified = open_engine(certified_artifact, threads=1, allow_uncertified=True)
    assert uncertified(np.zeros((3, 1, 4, 4), np.float32)).outputs.shape == (3, 3)


@pytest.mark.parametrize("what", ["mean", "signals", "logits"])
def test_other_preprocessing_or_tensors_to_judge_by_are_another_artifact(certified_artifact: Path, what: str) -> None:
    manifest = open_artifact(certified_artifact).manifest
    first, second, last = manifest.exits
    if what == "mean":
        image = as_image(modality_of(manifest))
        other = replace(image, preprocess=image.preprocess.model_copy(update={"mean": (0.25,)}))
        moved = changed(manifest, modality=other.record)
    elif what == "signals":
        moved = changed(manifest, exits=(first.model_copy(update={"signals": None}), second, last))
    else:
        moved = changed(manifest, exits=(first.model_copy(update={"outputs": "hidden"}), second, last))
    refused(moved, "other interface")
