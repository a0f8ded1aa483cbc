"""Which GPUs have the arithmetic of an artifact's graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sdcompress.artifact.read import open_artifact
from sdcompress.errors import SetupError, UsageError
from sdcompress.schema.engines import HardwareCompatibility
from sdcompress.schema.graphs import Precision, Tensor
from sdcompress.schema.manifest import Manifest
from sdcompress.tensorrt.building import build
from sdcompress.tensorrt.building.hardware import check_graphs, check_hardware, check_memory, least_bytes, tensor_shape
from sdcompress.tensorrt.building.profiles import parse_batch
from sdcompress.tensorrt.building.settings import BuildSettings
from sdcompress.tensorrt.nvidia.gpu_query import Gpu

Artifacts = Callable[..., Path]


def gpu(name: str, capability: str) -> Gpu:
    return Gpu(name, capability, 24 * 2**30, "", "13.0")


def mixed(folder: Path, precision: Precision) -> Manifest:
    """The last segment in a precision, the others in fp32."""
    manifest = open_artifact(folder).manifest
    last = manifest.segments[-1].model_copy(update={"precision": precision})
    return manifest.model_copy(update={"segments": (*manifest.segments[:-1], last)})


@pytest.mark.parametrize(("name", "capability"), [("NVIDIA A10", "8.6"), ("Tesla T4", "7.5"), ("A100", "8.0")])
def test_fp8_is_refused_by_a_gpu_before_ada(tiny_artifact: Artifacts, name: str, capability: str) -> None:
    with pytest.raises(SetupError) as caught:
        check_hardware(mixed(tiny_artifact(), "fp8"), gpu(name, capability), "none")
    message = str(caught.value)
    for words in ("segment-2.onnx", name, f"compute capability {capability}", "8.9", "fp16 or int8"):
        assert words in message


@pytest.mark.parametrize("capability", ["8.9", "9.0", "10.0", "12.0"])  # numbers, not text
def test_later_gpus_have_it(tiny_artifact: Artifacts, capability: str) -> None:
    check_hardware(mixed(tiny_artifact(), "fp8"), gpu("a GPU", capability), "none")
    check_hardware(mixed(tiny_artifact(name="same"), "fp8"), gpu("a GPU", capability), "same_compute_capability")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_other_precisions_are_not_asked_about(tiny_artifact: Artifacts, precision: Precision) -> None:
    check_hardware(mixed(tiny_artifact(), precision), gpu("Tesla T4", "7.5"), "none")


def test_bf16_is_refused_by_a_gpu_before_ampere(tiny_artifact: Artifacts) -> None:
    manifest = mixed(tiny_artifact(), "bf16")
    check_hardware(manifest, gpu("A100", "8.0"), "ampere_plus")
    with pytest.raises(SetupError, match=r"is in bf16, and Tesla T4 has compute capability 7\.5") as caught:
        check_hardware(manifest, gpu("Tesla T4", "7.5"), "none")
    assert caught.value.allowed == "GPUs of compute capability 8.0 or later (Ampere, Ada, Hopper, Blackwell)"


def test_what_is_for_cpus_is_refused_without_a_gpu(tiny_artifact: Artifacts) -> None:
    with pytest.raises(UsageError, match="uint8, which is for CPUs") as caught:
        check_graphs(mixed(tiny_artifact(), "uint8"))
    assert "--precision int8" in caught.value.next_step


def test_texts_are_refused_without_a_gpu(tiny_artifact: Artifacts) -> None:
    manifest = open_artifact(tiny_artifact()).manifest
    tokens = Tensor(name="input_ids", dtype="int64", shape=("batch", "sequence"))
    first = manifest.segments[0].model_copy(update={"inputs": (tokens,)})
    with pytest.raises(UsageError, match=r"'input_ids' has the shape \['batch', 'sequence'\]") as caught:
        check_graphs(manifest.model_copy(update={"segments": (first, *manifest.segments[1:])}))
    assert "onnxruntime" in caught.value.next_step


def test_fp8_for_every_gpu_since_ampere_contradicts_itself(tiny_artifact: Artifacts) -> None:
    with pytest.raises(UsageError, match=r"fp8, and engines for every GPU from compute capability 8\.0") as caught:
        check_hardware(mixed(tiny_artifact(), "fp8"), gpu("NVIDIA L4", "8.9"), "ampere_plus")
    assert "same_compute_capability" in str(caught.value)


@pytest.mark.parametrize("kind", ["ampere_plus", "same_compute_capability"])
def test_engines_for_other_gpus_are_built_from_ampere_on(tiny_artifact: Artifacts, kind: HardwareCompatibility) -> None:
    manifest = open_artifact(tiny_artifact()).manifest
    check_hardware(manifest, gpu("A100", "8.0"), kind)
    with pytest.raises(UsageError, match=r"cannot be built on Tesla T4, which has 7\.5"):
        check_hardware(manifest, gpu("Tesla T4", "7.5"), kind)


def test_hardware_is_checked_before_tensorrt_is_loaded_and_nothing_is_written(
    tiny_artifact: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def check(_manifest: Manifest, found: Gpu, compatibility: str) -> None:
        asked.append((found.name, compatibility))
        raise SetupError("no", allowed="", next_step="")

    def never(**_: object) -> None:
        raise AssertionError("TensorRT was loaded")

    monkeypatch.setattr(build, "probe_cuda", lambda: gpu("Tesla T4", "7.5"))
    monkeypatch.setattr(build, "check_hardware", check)
    monkeypatch.setattr(build, "load", never)
    source = tiny_artifact()
    with pytest.raises(SetupError, match="no"):
        build.build_engines(source, tmp_path / "out", settings=BuildSettings(hardware_compatibility="ampere_plus"))
    assert asked == [("Tesla T4", "ampere_plus")]
    assert not (tmp_path / "out").exists()


def test_it_is_the_graphs_and_the_tensors_between_them(tiny_artifact: Callable[..., Path]) -> None:
    manifest = open_artifact(tiny_artifact(signals=False)).manifest
    weights = sum(segment.bytes for segment in manifest.segments)
    # input 16, hidden 6, deep 8 and three times 3 logits, float32
    assert least_bytes(manifest, parse_batch("1:8:32")) == weights + 32 * 4 * (16 + 6 + 8 + 9)


def test_what_cannot_fit_is_refused_with_the_batch_that_could(tiny_artifact: Callable[..., Path]) -> None:
    manifest = open_artifact(tiny_artifact(signals=False)).manifest
    profiles = parse_batch("1:8:1000")
    needed = least_bytes(manifest, profiles)
    check_memory(manifest, profiles, free=needed, gpu="NVIDIA X")
    with pytest.raises(SetupError, match="on NVIDIA X") as caught:
        check_memory(manifest, profiles, free=needed - 1, gpu="NVIDIA X")
    assert "batches up to 999 or fewer" in caught.value.allowed
    with pytest.raises(SetupError) as caught:
        check_memory(manifest, profiles, free=10, gpu="NVIDIA X")
    assert caught.value.allowed == "smaller graphs"


def test_only_the_batch_may_vary() -> None:
    assert tensor_shape(Tensor(name="x", dtype="float32", shape=("batch", 3)), 8) == (8, 3)
    assert tensor_shape(Tensor(name="x", dtype="float32", shape=(1, 3)), 8) == (1, 3)
    with pytest.raises(UsageError, match="'x' has the shape"):
        tensor_shape(Tensor(name="x", dtype="float32", shape=("batch", "height")), 8)
