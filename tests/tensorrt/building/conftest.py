"""An artifact that TensorRT 8.5 can parse too, for the tests that need a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.write import entry, rewrite, staged


@pytest.fixture
def old_opset(tiny_artifact: Callable[..., Path], tmp_path: Path) -> Path:
    """A tiny cascade of opset 16: products, sums and tanh mean the same there."""
    old, out = open_artifact(tiny_artifact(signals=False)), tmp_path / "opset16"
    with staged(out) as folder:
        segments = []
        for segment in old.manifest.segments:
            model = onnx.load(old.file(segment))
            model.ir_version = 8
            model.opset_import[0].version = 16
            onnx.checker.check_model(model, full_check=True)
            onnx.save(model, folder / segment.file)
            segments.append(segment.model_copy(update=entry(folder, segment.file).model_dump()))
        rewrite(old, folder, segments=tuple(segments))
    return out
