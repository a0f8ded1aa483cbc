"""The backend tensorrt: what it says without a GPU, and (-m tensorrt) what it computes with one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.errors import ArtifactError, SetupError
from sdcompress.nvidia.probe import probe_cuda
from sdcompress.runtime.open import open_engine
from sdcompress.runtime.resident.plans import plan_bytes
from sdcompress.schema.engines import Plan
from sdcompress.storage import sha256_of

Write = Callable[..., Path]


def test_another_device_than_cuda_is_refused_before_anything_is_looked_for(tiny_artifact: Write) -> None:
    with pytest.raises(SetupError, match="TensorRT has no device 'cpu'") as caught:
        open_engine(tiny_artifact(), backend="tensorrt")
    assert caught.value.exit_code == 3
    assert "--device cuda" in str(caught.value)


def test_without_a_driver_it_says_so(tiny_artifact: Write) -> None:
    try:
        probe_cuda()
    except SetupError:
        pass
    else:
        pytest.skip("there is a GPU here")
    with pytest.raises(SetupError, match="driver") as caught:
        open_engine(tiny_artifact(), backend="tensorrt", device="cuda")
    assert caught.value.exit_code == 3
    assert caught.value.next_step


def test_a_plan_is_code_and_only_the_bytes_of_the_manifest_are_loaded(tmp_path: Path, tiny_artifact: Write) -> None:
    file = tmp_path / "segment-0.plan"
    file.write_bytes(b"a plan")
    plan = Plan(file=file.name, sha256=sha256_of(file), bytes=6, device_memory_bytes=0, layers={"Half": 1})
    artifact = Artifact(tmp_path, open_artifact(tiny_artifact()).manifest)
    assert plan_bytes(artifact, plan) == b"a plan"
    file.write_bytes(b"o plan")  # after the artifact was opened
    with pytest.raises(ArtifactError, match="was changed while it was opened"):
        plan_bytes(artifact, plan)
    file.unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        plan_bytes(artifact, plan)
