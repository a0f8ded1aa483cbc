"""A certificate that was edited is found, also where every hash and digest fits again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdcompress.artifact.evidence import Evidence
from sdcompress.artifact.read import open_artifact
from sdcompress.certification.recompute import verify_certificate
from sdcompress.errors import ArtifactError, CertificateError
from sdcompress.policies import exit_index_of
from sdcompress.storage import digest_of, sha256_of

Fields = dict[str, Any]


def forge(folder: Path, change: Callable[[Fields], Any]) -> None:
    """Edit the manifest as somebody would who knows its format: with hashes and digest that fit again."""
    path = folder / "manifest.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    change(fields)
    if fields.get("certificate"):
        file = folder / fields["certificate"]["evidence"]["file"]
        fields["certificate"]["evidence"] |= {"sha256": sha256_of(file), "bytes": file.stat().st_size}
    fields["digest"] = digest_of({name: value for name, value in fields.items() if name != "digest"})
    path.write_text(json.dumps(fields), encoding="utf-8")


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(CertificateError) as caught:
        verify_certificate(open_artifact(folder))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert caught.value.allowed
    assert caught.value.next_step
    assert caught.value.exit_code == 4


def test_as_it_was_written_it_follows_from_its_evidence(certified_artifact: Path) -> None:
    certificate = verify_certificate(open_artifact(certified_artifact))
    assert certificate == open_artifact(certified_artifact).manifest.certificate
    assert certificate is not None


def test_an_artifact_without_one_has_nothing_to_check(tiny_artifact: Callable[..., Path]) -> None:
    assert verify_certificate(open_artifact(tiny_artifact(policy=(0.9, 0.9)))) is None


def level_of(fields: Fields) -> Fields:
    """The level that the policy runs."""
    levels = fields["certificate"]["levels"]
    return next(level for level in levels if level["max_drop"] == fields["policy"]["max_drop"])


def loosen(fields: Fields) -> None:
    """One step further, in the policy and in what it claims to be certified by."""
    level = level_of(fields)
    level["p_values"][level["certified"]] = level["p_values"][level["certified"] - 1]
    level["certified"] += 1
    fields["policy"]["thresholds"] = fields["certificate"]["path"][level["certified"]]


def further(fields: Fields) -> None:
    level_of(fields)["certified"] += 1


def fall_short(fields: Fields) -> None:
    level_of(fields)["p_values"].pop()


def rise(fields: Fields) -> None:
    fields["certificate"]["path"][2][0] = 2.0
    fields["certificate"]["path"][1][0] = 0.5


def put(*keys: Any, value: Any) -> Callable[[Fields], None]:
    def change(fields: Fields) -> None:
        for key in keys[:-1]:
            fields = fields[key]
        fields[keys[-1]] = value

    return change


EDITS: dict[str, tuple[Callable[[Fields], Any], tuple[str, ...]]] = {
    "a p-value": (
        put("certificate", "levels", 1, "p_values", 0, value=0.001),
        ("edited", "p-value of step 1", "5.00%"),
    ),
    "a step further": (loosen, ("edited", "step", "by its evidence")),
    "a step further, untested": (further, ("edited", "by its evidence")),
    "without the test that failed": (fall_short, ("edited", "tests")),
    "more confidence": (put("certificate", "confidence", value=0.99), ("edited", "delta", "its share")),
    "another delta": (put("certificate", "levels", 1, "delta", value=0.09), ("edited", "delta", "its share")),
    "a smaller drop": (put("certificate", "levels", 1, "max_drop", value=0.001), ("thresholds are not among",)),
    "a smaller drop, everywhere": (
        lambda fields: [
            put("certificate", "levels", 1, "max_drop", value=0.001)(fields),
            put("policy", "max_drop", value=0.001)(fields),
        ],
        ("edited", "for a drop of 0.10%"),
    ),
    "another seed": (put("certificate", "seed", value="0" * 64), ("edited", "seed")),
    "other parts": (put("certificate", "tuning_samples", value=900), ("edited", "a sixth")),
    "a first step that lets go": (put("certificate", "path", 0, value=[0.9, 0.9]), ("edited", "first step")),
    "a path that turns back": (rise, ("edited", "rises at step 2")),
    "another metric": (put("policy", "metric", value=1.0), ("edited", "metric is 1.0")),
    "other shares": (put("policy", "shares", value=[0.5, 0.25, 0.25]), ("edited", "shares")),
    "more samples in the policy": (put("policy", "samples", value=50_000), ("edited", "samples is 50000")),
    "another test": (put("certificate", "test", value="binomial"), ("edited", "its test")),
    "another loss": (
        lambda fields: fields["certificate"].update({"loss": "disagreement", "test": "binomial"}),
        ("edited", "disagrees with itself"),
    ),
    "no guarantee, but thresholds": (put("policy", "guarantee", value="none"), ("not among those that are certified",)),
    "thresholds of one's own": (put("policy", "thresholds", value=[0.2, 0.2]), ("not among those",)),
    "stricter thresholds that were not tested": (
        put("policy", "thresholds", value=[0.999, 0.998]),
        ("not among those",),
    ),
    "other temperatures": (put("exits", 0, "temperature", value=3.0), ("another artifact", "temperatures")),
    "other data": (put("provenance", "data_fingerprint", value="a" * 64), ("another artifact", "data")),
    "other graphs": (put("certificate", "graphs", value="a" * 64), ("another artifact", "graphs")),
    "another backend": (put("certificate", "backend", value="tensorrt"), ("the policy's backend is onnxruntime",)),
}


@pytest.mark.parametrize(("change", "words"), EDITS.values(), ids=EDITS.keys())
def test_an_edit_is_found(certified_artifact: Path, change: Callable[[Fields], Any], words: tuple[str, ...]) -> None:
    forge(certified_artifact, change)
    refused(certified_artifact, *words)


def test_a_mean_that_another_machine_rounds_otherwise_is_no_edit(certified_artifact: Path) -> None:
    def round_otherwise(fields: Fields) -> None:
        fields["policy"]["metric"] = float(np.nextafter(fields["policy"]["metric"], 0))

    forge(certified_artifact, round_otherwise)
    assert verify_certificate(open_artifact(certified_artifact))


def test_a_certificate_that_was_taken_out_is_missed(certified_artifact: Path) -> None:
    forge(certified_artifact, lambda fields: fields.pop("certificate"))
    (certified_artifact / "certificate.npz").unlink()
    refused(certified_artifact, "the artifact holds none")


@pytest.mark.parametrize("array", ["loss", "scores"])
def test_other_evidence_is_found(certified_artifact: Path, array: str) -> None:
    evidence = open_artifact(certified_artifact).evidence()
    loss, scores = evidence.loss.copy(), evidence.scores.copy()
    if array == "loss":
        loss[:-1, :40] = 0
    else:
        scores[0] = np.sort(scores[0])
    Evidence(scores, loss).save(certified_artifact / "certificate.npz")
    forge(certified_artifact, lambda fields: None)
    refused(certified_artifact, "edited", "by its evidence")


def test_a_threshold_lowered_where_no_tested_sample_lies_is_found(certified_artifact: Path) -> None:
    """Every test comes out as before, and new samples may lie there."""
    opened = open_artifact(certified_artifact)
    certificate, evidence = opened.manifest.certificate, opened.evidence()
    assert certificate is not None
    step = certificate.levels[-1].certified
    old = certificate.path[step][0]
    below = evidence.scores[0][evidence.scores[0] < np.float32(old)].max()
    new = float(np.float32((old + float(below)) / 2))
    assert below < new < old

    def lower(fields: Fields) -> None:
        for each in fields["certificate"]["path"][step:]:
            each[0] = min(each[0], new)
        fields["policy"]["thresholds"][0] = new

    forge(certified_artifact, lower)
    refused(certified_artifact, "edited", f"{new:.9g}", "no score of the samples that made it")
    # as a version that kept no such scores wrote it: not found, and verify says so
    replace(evidence, tuning_scores=None).save(certified_artifact / "certificate.npz")
    forge(certified_artifact, lambda fields: None)
    assert verify_certificate(open_artifact(certified_artifact))


def test_graded_losses_are_none_for_the_test_that_counts(certified_artifact: Path) -> None:
    """A count would round them down."""
    evidence = open_artifact(certified_artifact).evidence()
    assert evidence.disagreement is not None
    loss = np.vstack([evidence.disagreement, np.zeros((1, len(evidence)), np.float32)])
    loss[0, 7] = 0.5
    replace(evidence, loss=loss, disagreement=None).save(certified_artifact / "certificate.npz")
    forge(certified_artifact, lambda fields: fields["certificate"].update(loss="disagreement", test="binomial"))
    refused(certified_artifact, "losses between 0 and 1")


def test_scores_of_another_number_of_samples_are_found(certified_artifact: Path) -> None:
    evidence = open_artifact(certified_artifact).evidence()
    assert evidence.tuning_scores is not None
    fewer = replace(evidence, tuning_scores=evidence.tuning_scores[:, 1:])
    fewer.save(certified_artifact / "certificate.npz")
    forge(certified_artifact, lambda fields: None)
    refused(certified_artifact, "edited", "that made the path")


def test_evidence_of_other_samples_does_not_fit(certified_artifact: Path) -> None:
    evidence = open_artifact(certified_artifact).evidence()
    Evidence(evidence.scores[:, :-1], evidence.loss[:, :-1]).save(certified_artifact / "certificate.npz")
    forge(certified_artifact, lambda fields: None)
    with pytest.raises(ArtifactError, match="3333 samples"):
        verify_certificate(open_artifact(certified_artifact))


def test_a_certificate_of_another_artifact_is_refused(
    certified_artifact: Path, tiny_artifact: Callable[..., Path]
) -> None:
    """Certificate, evidence and policy of one network, beside the graphs of another."""
    fields = json.loads((certified_artifact / "manifest.json").read_text(encoding="utf-8"))
    other = tiny_artifact(policy=(0.9, 0.9), name="other")
    (other / "certificate.npz").write_bytes((certified_artifact / "certificate.npz").read_bytes())
    graph = other / "segment-2.onnx"
    graph.write_bytes(graph.read_bytes() + b"\x52\x00")  # an empty field more: other bytes, the same network

    def graft(mine: Fields) -> None:
        mine["certificate"], mine["policy"] = fields["certificate"], fields["policy"]
        mine["segments"][2] |= {"sha256": sha256_of(graph), "bytes": graph.stat().st_size}
        for exit_, theirs in zip(mine["exits"], fields["exits"], strict=True):
            exit_["temperature"] = theirs["temperature"]

    forge(other, graft)
    refused(other, "another artifact", "graphs")


def test_shares_and_disagreement_of_a_level_are_computed_again(certified_artifact: Path) -> None:
    original = open_artifact(certified_artifact)
    certificate, evidence = original.manifest.certificate, original.evidence()
    assert certificate is not None
    assert evidence.disagreement is not None
    level = certificate.levels[0]
    exit_index = exit_index_of(evidence.scores, certificate.path[level.certified])
    assert level.shares == tuple(float((exit_index == k).mean()) for k in range(3))
    padded = np.vstack([evidence.disagreement, np.zeros((1, len(evidence)), np.float32)])
    assert level.disagreement == pytest.approx(padded[exit_index, np.arange(len(evidence))].mean())

    def fewer(fields: Fields) -> None:
        fields["certificate"]["levels"][0]["disagreement"] = 0.0

    forge(certified_artifact, fewer)
    refused(certified_artifact, "edited", "its disagreement for a drop of 2.00% is 0.0")
