"""Nothing that was edited, cut off, linked or added goes unseen."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from meaning import image_modality

from sdcompress.artifact.golden import Golden
from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.write import entry
from sdcompress.errors import ArtifactError


def reseal(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Edit the manifest as a forger would: with a digest that fits again."""
    fields = json.loads((folder / "manifest.json").read_text())
    change(fields)
    del fields["digest"]
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    fields["digest"] = hashlib.sha256(canonical).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(fields))


def refused(folder: Path, *words: str) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        open_artifact(folder)
    for word in words:
        assert word in str(caught.value)
    assert caught.value.next_step
    return caught.value


def test_an_intact_artifact_opens_with_all_its_fields(artifact: Path) -> None:
    opened = open_artifact(str(artifact))
    assert opened.manifest.outputs == ("cat", "grüße")
    assert [opened.file(s).read_bytes() for s in opened.manifest.segments] == [
        b"\x32\x0bfirst graph",
        b"\x32\x0csecond graph",
    ]
    assert opened.golden().outputs.shape == (2, 3, 2)


def test_a_manifest_in_another_layout_of_the_same_json_is_the_same_artifact(artifact: Path) -> None:
    path = artifact / "manifest.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(fields.items())), ensure_ascii=True, indent=7))
    assert open_artifact(artifact).manifest.digest == fields["digest"]


@pytest.mark.parametrize(
    ("key", "value"), [("layout", "all"), ("outputs", ["dog", "grüße"]), ("policy", {"thresholds": [0.0]})]
)
def test_an_edited_manifest_is_refused(artifact: Path, key: str, value: Any) -> None:
    fields = json.loads((artifact / "manifest.json").read_text())
    (artifact / "manifest.json").write_text(json.dumps({**fields, key: value}))
    refused(artifact)


def test_a_changed_figure_is_called_an_edit(artifact: Path) -> None:
    text = (artifact / "manifest.json").read_text()
    assert text.count("0.75") == 1
    (artifact / "manifest.json").write_text(text.replace("0.75", "0.99"))
    refused(artifact, "was edited", "sdcompress calibrate")


def test_every_byte_of_every_file_counts(artifact: Path) -> None:
    for name in ("segment-0.onnx", "segment-1.onnx", "golden.npz", "README.md"):
        good = (artifact / name).read_bytes()
        for at in (0, len(good) // 2, len(good) - 1):
            (artifact / name).write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            refused(artifact, name, "corrupt")
        (artifact / name).write_bytes(good[:-1])
        refused(artifact, name, f"{len(good) - 1} bytes", f"{len(good)} bytes", "truncated")
        (artifact / name).write_bytes(good)
    open_artifact(artifact)


def test_a_missing_and_an_unlisted_file_are_named(artifact: Path) -> None:
    (artifact / "notes.txt").write_text("mine")
    refused(artifact, "notes.txt", "does not list")
    (artifact / "notes.txt").unlink()
    (artifact / "sub").mkdir()
    (artifact / "sub" / "weights.bin").write_text("external data")
    refused(artifact, "sub/weights.bin")
    (artifact / "sub" / "weights.bin").unlink()
    (artifact / "segment-1.onnx").unlink()
    refused(artifact, "lacks segment-1.onnx")


def test_links_and_pipes_are_refused_even_with_the_right_bytes(artifact: Path, tmp_path: Path) -> None:
    segment = artifact / "segment-0.onnx"
    segment.rename(tmp_path / "outside.onnx")
    segment.symlink_to(tmp_path / "outside.onnx")
    refused(artifact, "segment-0.onnx", "symlink")
    segment.unlink()
    os.mkfifo(segment)
    refused(artifact, "segment-0.onnx", "not a regular file")


def test_a_linked_folder_inside_is_refused(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (artifact / "more").symlink_to(tmp_path / "elsewhere")
    refused(artifact, "more", "symlink")


@pytest.mark.parametrize("name", ["../outside.onnx", "/etc/hosts", "a/../../b", "..", "a//b", "", "a\\..\\b", "./a"])
def test_a_path_that_could_leave_the_folder_is_refused(artifact: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside.onnx").write_bytes(b"first graph")

    def leave(fields: dict[str, Any]) -> None:
        fields["segments"][0]["file"] = name

    reseal(artifact, leave)
    refused(artifact, "segments.0.file")


@pytest.mark.parametrize("version", [1, 3, "2", None])
def test_another_schema_says_which_one_is_understood(artifact: Path, version: Any) -> None:
    reseal(artifact, lambda fields: fields.update(schema_version=version, something_new=True))
    error = refused(artifact, f"schema_version {version!r}")
    assert "schema_version 2" in error.allowed
    assert "export" in error.next_step


def test_unknown_fields_wrong_types_and_numbers_that_are_not_json_are_refused(artifact: Path) -> None:
    good = (artifact / "manifest.json").read_text()
    reseal(artifact, lambda fields: fields.update(polciy=None))
    refused(artifact, "polciy", "policy")
    (artifact / "manifest.json").write_text(good.replace("0.75", "NaN"))
    refused(artifact, "NaN")
    (artifact / "manifest.json").write_text(good[: len(good) // 2])
    refused(artifact, "not JSON")
    (artifact / "manifest.json").write_bytes(b"\xff\xfe")
    refused(artifact, "not JSON")
    (artifact / "manifest.json").write_text("[]")
    refused(artifact, "not a JSON object")


def test_segments_that_do_not_fit_together_are_refused(artifact: Path) -> None:
    def rename_border(fields: dict[str, Any]) -> None:
        fields["segments"][0]["outputs"][1]["name"] = "another"

    reseal(artifact, rename_border)
    refused(artifact, "Segment 1", "relu")


def test_an_exit_without_its_logits_is_refused(artifact: Path) -> None:
    reseal(artifact, lambda fields: fields["exits"][1].update(outputs="exit1_outputs"))
    refused(artifact, "Segment 1", "exit1_outputs")


def test_every_exit_needs_its_parity_figures(artifact: Path) -> None:
    reseal(artifact, lambda fields: fields["parity"].pop())
    refused(artifact, "parity figures for exit1")


def test_what_is_not_an_artifact_says_what_it_is(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "is not there")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "is a file")
    refused(tmp_path, "no manifest.json")
    (tmp_path / "parity.json").write_text("[]")
    refused(tmp_path, "failed its parity gate")


def test_golden_samples_must_fit_the_manifest(artifact: Path) -> None:
    images, labels = np.zeros((3, 4, 5, 3), np.uint8), np.zeros(3, np.int64)
    Golden(images, labels, np.zeros((2, 3, 7), np.float32)).save(artifact / "golden.npz", image_modality((3, 4, 5)))
    reseal(artifact, lambda fields: fields.update(golden=entry(artifact, "golden.npz").model_dump()))
    with pytest.raises(ArtifactError, match=r"\(2, 7\)"):
        open_artifact(artifact).golden()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"examples": np.zeros((3, 5, 4, 3), np.uint8)}, "5x4x3"),
        ({"examples": np.zeros((3, 4, 5, 3), np.float32)}, "'examples' is float32"),
        ({"targets": np.array([0, 1, 2])}, "from 0 to 2"),
        ({"targets": np.zeros((3, 1), np.int64)}, "labels"),
        ({"targets": np.zeros(3)}, "float64"),
    ],
)
def test_golden_samples_fit_the_modality_and_the_task(artifact: Path, change: dict[str, Any], word: str) -> None:
    good = {
        "examples": np.zeros((3, 4, 5, 3), np.uint8),
        "targets": np.zeros(3, np.int64),
        "outputs": np.zeros((2, 3, 2), np.float32),
    }
    Golden(**{**good, **change}).save(artifact / "golden.npz", image_modality((3, 4, 5)))
    reseal(artifact, lambda fields: fields.update(golden=entry(artifact, "golden.npz").model_dump()))
    with pytest.raises(ArtifactError, match=word):
        open_artifact(artifact).golden()


def test_pickled_golden_samples_are_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    np.savez(tmp_path / "golden.npz", images=np.array([Bomb()]), labels=np.zeros(1), logits=np.zeros(1))
    with pytest.raises(ArtifactError, match=r"golden\.npz"):
        Golden.load(tmp_path / "golden.npz", image_modality((3, 4, 5)))
    assert not (tmp_path / "exploded").exists()
