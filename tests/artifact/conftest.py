"""A small artifact whose graphs are only a comment: reading looks for data in other files, and not at what they do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from meaning import image_modality, meaning

from sdcompress.artifact.golden import Golden
from sdcompress.artifact.write import entry, seal
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.schema.manifest import Exit, ParityRecord, Provenance, Segment, Tensor

# a ModelProto's doc_string: field 6, of so many bytes
FIRST, SECOND = b"\x32\x0bfirst graph", b"\x32\x0csecond graph"


def manifest_fields(folder: Path) -> dict[str, Any]:
    preprocess = Preprocess(channels=3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    image = Tensor(name="input", dtype="float32", shape=("batch", 3, 4, 5))
    early = Tensor(name="exit1_outputs", dtype="float32", shape=("batch", 2))
    border = Tensor(name="relu", dtype="float32", shape=("batch", 8, 2, 2))
    final = Tensor(name="final_outputs", dtype="float32", shape=("batch", 2))

    def segment(name: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Segment:
        return Segment(
            **entry(folder, name).model_dump(), inputs=inputs, outputs=outputs, macs=10_000_000, parameters=250_000
        )

    return {
        **meaning(("cat", "grüße"), preprocess, (3, 4, 5)),
        "layout": "cascade",
        "segments": (
            segment("segment-0.onnx", (image,), (early, border)),
            segment("segment-1.onnx", (border,), (final,)),
        ),
        "exits": (
            Exit(name="exit1", segment=0, outputs="exit1_outputs", metrics={"accuracy": 0.75, "ece": 0.02}),
            Exit(name="final", segment=1, outputs="final_outputs"),
        ),
        "golden": entry(folder, "golden.npz"),
        "card": entry(folder, "README.md"),
        "parity": tuple(
            ParityRecord(exit=name, samples=256, batches=(1, 2), max_abs_diff=1e-6, tolerance=1e-4, flips=0)
            for name in ("exit1", "final")
        ),
        "provenance": Provenance(
            created="2026-01-02T03:04:05+00:00",
            recipe={"name": "tiny", "model": {"name": "cifar:resnet8"}, "method": {"name": "byot"}},
            recipe_sha256="1" * 64,
            weights_sha256="2" * 64,
            data_fingerprint="3" * 64,
        ),
    }


def fill(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "segment-0.onnx").write_bytes(FIRST)
    (folder / "segment-1.onnx").write_bytes(SECOND)
    (folder / "README.md").write_text("a card\n")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 4, 5, 3), np.uint8)
    logits = rng.normal(size=(2, 3, 2)).astype(np.float32)
    Golden(images, np.array([0, 1, 1]), logits).save(folder / "golden.npz", image_modality((3, 4, 5)))
    return folder


@pytest.fixture
def write_artifact() -> Callable[..., Path]:
    """Writes the artifact to a folder; keyword arguments replace fields of its manifest."""

    def write(folder: Path, **changes: Any) -> Path:
        seal(fill(folder), **{**manifest_fields(folder), **changes})
        return folder

    return write


@pytest.fixture
def artifact(tmp_path: Path, write_artifact: Callable[..., Path]) -> Path:
    return write_artifact(tmp_path / "artifact")
