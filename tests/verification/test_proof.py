"""What verify finds beyond hashes, and what it says it cannot prove."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from sdcompress.artifact.card import card_of
from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.weight_types import contradiction, stored_weights
from sdcompress.errors import ArtifactError
from sdcompress.storage import digest_of, sha256_of
from sdcompress.verification.verify import verify

Fields = dict[str, Any]


def reseal(folder: Path, change: Callable[[Fields], Any], *, card: bool = True) -> None:
    """Edit a manifest as somebody would who knows the format, with a card that fits, or with the one that is there."""
    path = folder / "manifest.json"

    def write(fields: Fields) -> None:
        text = folder / fields["card"]["file"]
        fields["card"] |= {"sha256": sha256_of(text), "bytes": text.stat().st_size}
        fields["digest"] = digest_of({name: value for name, value in fields.items() if name != "digest"})
        path.write_text(json.dumps(fields), encoding="utf-8")

    fields = json.loads(path.read_text(encoding="utf-8"))
    change(fields)
    write(fields)
    if card:
        (folder / fields["card"]["file"]).write_text(card_of(open_artifact(folder).manifest), encoding="utf-8")
        write(fields)


def from_this_version(fields: Fields) -> None:
    fields["provenance"]["versions"] = {"sdcompress": version("sdcompress")}


@pytest.fixture
def own(tiny_artifact: Callable[..., Path]) -> Path:
    """An artifact that this version wrote."""
    folder = tiny_artifact(policy=(0.9, 0.8))
    reseal(folder, from_this_version)
    return folder


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "uint8", "fp8"])
def test_a_precision_that_the_graphs_are_not_in_is_found(own: Path, precision: str) -> None:
    def relabel(fields: Fields) -> None:
        for segment in fields["segments"]:
            segment["precision"] = precision

    reseal(own, relabel)
    with pytest.raises(ArtifactError, match=f"said to be in {precision}: no weight is stored as {precision}"):
        verify(own)


PRECISIONS = ("fp32", "fp16", "bf16", "int8", "uint8", "fp8")
ONNX = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def graph(precision: str) -> bytes:
    """A linear layer whose weight is stored in a precision, within the branches of an If."""
    pair, tensors, weight = [], [], "w"
    kind = ONNX.get(precision, TensorProto.FLOAT)
    if precision in ONNX:
        tensors = [helper.make_tensor("w", kind, [4, 4], [1] * 16)]
    else:
        weight, codes = "restored", TensorProto.FLOAT8E4M3FN if precision == "fp8" else TensorProto.INT8
        tensors = [
            helper.make_tensor("w", codes, [4, 4], [1] * 16),
            helper.make_tensor("scale", kind, [], [1]),
            helper.make_tensor("zero", TensorProto.UINT8 if precision == "uint8" else codes, [], [0]),
        ]
        pair = [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["rounded"]),
            helper.make_node("DequantizeLinear", ["w", "scale"], ["restored"]),
        ]
    y = helper.make_tensor_value_info("y", kind, ["batch", 4])
    branch = helper.make_graph([*pair, helper.make_node("MatMul", ["x", weight], ["y"])], "branch", [], [y], tensors)
    outer = helper.make_graph(
        [helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)],
        "outer",
        [helper.make_tensor_value_info("x", kind, ["batch", 4])],
        [y],
        # indices are no weights
        [numpy_helper.from_array(np.array(True), "yes"), numpy_helper.from_array(np.arange(99), "indices")],
    )
    return helper.make_model(outer, opset_imports=[helper.make_opsetid("", 19)]).SerializeToString()


@pytest.mark.parametrize("said", PRECISIONS)
@pytest.mark.parametrize("there", PRECISIONS)
def test_the_manifest_must_name_the_stored_precision(said: Any, there: str) -> None:
    assert bool(contradiction(said, [stored_weights(graph(there))])) == (said != there)


@pytest.mark.parametrize("content", [b"\xff" * 20, b"\x3a\xff\x01", graph("fp32")[:-3]])
def test_what_is_no_graph_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match="not ONNX"):
        stored_weights(content)


def test_a_card_that_was_edited_is_found(own: Path) -> None:
    assert any("README.md: says what the manifest says" in sentence for sentence in verify(own).proved)
    card = own / "README.md"
    card.write_text(card.read_text().replace("classification`, 3 classes", "classification`, 3 perfect classes"))
    reseal(own, lambda fields: None, card=False)
    with pytest.raises(ArtifactError, match=r"README\.md' of .* was edited"):
        verify(own)


def test_the_card_of_another_version_is_listed_as_not_compared(own: Path) -> None:
    reseal(own, lambda fields: fields["provenance"].update(versions={"sdcompress": "0.0.1"}))
    (own / "README.md").write_text("In other words.")
    reseal(own, lambda fields: None, card=False)
    report = verify(own)
    assert not any("README.md" in sentence for sentence in report.proved)
    assert any("README.md" in sentence for sentence in report.claimed)


# edits that nothing in an artifact can prove wrong, and the word by which verify says that it cannot
UNPROVED: dict[str, tuple[Callable[[Fields], Any], str]] = {
    "split": (lambda fields: fields["policy"].update(split="test"), "split"),
    "stage_ms": (lambda fields: fields["policy"].update(stage_ms=[0.001] * 3), "stage_ms"),
    "accuracy": (lambda fields: fields["exits"][0].update(metrics={"accuracy": 1.0}), "metrics"),
    "macs": (lambda fields: fields["segments"][0].update(macs=1), "MACs"),
    "classes": (lambda fields: fields.update(outputs=["x", "y", "z"]), "outputs"),
    "parity": (lambda fields: fields["parity"][0].update(max_abs_diff=0.0, tolerance=9.0), "limits"),
    "backend": (lambda fields: fields["policy"].update(device="another"), "device"),
    "recipe": (lambda fields: fields["provenance"].update(recipe={"name": "another"}), "recipe"),
    "weights": (lambda fields: fields["provenance"].update(weights_sha256="9" * 64), "weights"),
}


@pytest.mark.parametrize("what", UNPROVED)
def test_an_edit_that_cannot_be_found_is_named_among_the_claims(own: Path, what: str) -> None:
    change, word = UNPROVED[what]
    reseal(own, change)
    assert any(word in sentence for sentence in verify(own).claimed)


def test_a_certificate_is_proved_as_far_as_its_evidence_goes(certified_artifact: Path) -> None:
    report = verify(certified_artifact)
    assert any(sentence.startswith("certificate: every test") and "scores" in sentence for sentence in report.proved)
    assert any(sentence.startswith("certificate.npz: that it is what these graphs did") for sentence in report.claimed)


def test_a_certificate_without_tuning_scores_lists_its_thresholds_as_claimed(certified_artifact: Path) -> None:
    file = certified_artifact / "certificate.npz"
    with np.load(file) as arrays:
        assert "tuning_scores" in arrays
        kept = {name: arrays[name] for name in arrays if name != "tuning_scores"}
    np.savez(file, **kept)
    reseal(
        certified_artifact,
        lambda fields: fields["certificate"]["evidence"].update(sha256=sha256_of(file), bytes=file.stat().st_size),
    )
    assert any(sentence.startswith("thresholds: where they lie") for sentence in verify(certified_artifact).claimed)
