"""Building: what is refused here, how engines are listed, and on a GPU the whole of it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.artifact.write import entry, rewrite, staged
from sdcompress.errors import SetupError, UsageError
from sdcompress.options import Options
from sdcompress.runtime.open import open_engine
from sdcompress.schema.engines import BatchProfile, Engines, Plan
from sdcompress.schema.manifest import Manifest
from sdcompress.tensorrt.building.build import attach, build_engines
from sdcompress.tensorrt.building.profiles import parse_batch
from sdcompress.tensorrt.building.settings import BuildSettings
from sdcompress.tensorrt.nvidia.compatible import same_machine
from sdcompress.tensorrt.nvidia.gpu_query import Gpu, probe_cuda
from sdcompress.tensorrt.nvidia.header import read_header

L4 = Gpu("NVIDIA L4", "8.9", 24 * 2**30, "", "13.0")


def driver_is_here() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.mark.skipif(driver_is_here(), reason="this machine has an NVIDIA driver")
def test_without_a_gpu_nothing_is_written(tiny_artifact: Callable[..., Path], tmp_path: Path) -> None:
    source = tiny_artifact()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SetupError) as caught:
        build_engines(source, tmp_path / "out")
    assert caught.value.next_step
    assert sorted(tmp_path.rglob("*")) == before


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="level is 6"):
        BuildSettings(level=6)


def listed(artifact: Artifact, folder: Path, gpu: Gpu, tensorrt: str, content: bytes) -> Manifest:
    """List arbitrary files as engines."""
    place = f"engines/{gpu.name.lower().replace(' ', '-')}-trt{tensorrt}"
    (folder / place).mkdir(parents=True)
    plans = []
    for index in range(len(artifact.manifest.segments)):
        (folder / place / f"segment-{index}.plan").write_bytes(content)
        file = entry(folder, f"{place}/segment-{index}.plan").model_dump()
        plans.append(Plan(**file, device_memory_bytes=0, layers={"fp32": 1}))
    (folder / place / "build.log").write_bytes(content)
    engines = Engines(
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        tensorrt=tensorrt,
        driver=gpu.driver,
        plans=tuple(plans),
        profiles=(BatchProfile(min=1, opt=8, max=32),),
        tf32=True,
        workspace_bytes=1,
        builder_optimization_level=3,
        log=entry(folder, f"{place}/build.log"),
        parity=(),
    )
    return attach(artifact, folder, engines, gpu)


def test_engines_of_the_same_machine_are_replaced_and_others_kept(
    tiny_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    source = tiny_artifact()
    for index, (tensorrt, content) in enumerate([("10.9.0.34", b"1"), ("11.4.0.106", b"2"), ("10.9.0.34", b"3")]):
        with staged(tmp_path / str(index)) as folder:
            listed(open_artifact(source), folder, L4, tensorrt, content)
        source = tmp_path / str(index)
    opened = open_artifact(source)  # every hash, no unlisted file
    assert [built.tensorrt for built in opened.manifest.engines] == ["11.4.0.106", "10.9.0.34"]
    assert [opened.file(built.plans[0]).read_bytes() for built in opened.manifest.engines] == [b"2", b"3"]
    assert (source / "segment-0.onnx").is_file()
    assert open_engine(source).exit_names == ("exit1", "exit2", "final")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_engines_are_built_proven_and_listed(old_opset: Path, tmp_path: Path, cache: Path) -> None:
    calls: list[tuple[int, int]] = []
    settings = BuildSettings(profiles=parse_batch("1:1:1,2:8:32"), tf32=False)
    options = Options(progress=lambda done, total: calls.append((done, total)))
    manifest = build_engines(old_opset, tmp_path / "out", settings, options)
    (built,) = manifest.engines
    gpu = probe_cuda()
    assert same_machine(built, tensorrt=built.tensorrt, gpu=gpu)
    assert [record.exit for record in built.parity] == ["exit1", "exit2", "final"]
    assert all(record.max_abs_diff <= record.tolerance and record.flips == 0 for record in built.parity)
    assert all(set(plan.layers) <= {"fp32", "int32", "int64", "bool", "unknown"} for plan in built.plans)
    opened = open_artifact(tmp_path / "out")
    for plan in built.plans:
        header = read_header(opened.file(plan).read_bytes())
        assert header.tagged
        assert header.version in (None, ".".join(f"{built.tensorrt}.0".split(".")[:4]))
    assert "[E]" not in opened.file(built.log).read_text(encoding="utf-8")
    assert calls[-1] == (3000, 3000)
    assert calls == sorted(calls)
    assert list(cache.rglob("*.timing"))
    again = build_engines(tmp_path / "out", tmp_path / "out", settings=settings, overwrite=True)
    assert len(again.engines) == 1
    second = open_artifact(tmp_path / "out").file(again.engines[0].log).read_text(encoding="utf-8")
    assert "[I]" in second  # TensorRT keeps the first logger of a process: later builds must be heard too


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_the_engines_answer_as_onnxruntime_does(old_opset: Path, tmp_path: Path, cache: Path) -> None:
    build_engines(old_opset, tmp_path / "out", settings=BuildSettings(tf32=False))
    engine, reference = open_engine(tmp_path / "out", backend="tensorrt", device="cuda"), open_engine(old_opset)
    inputs = np.random.default_rng(0).normal(size=(32, 1, 4, 4)).astype(np.float32)
    assert np.abs(engine.exits(inputs) - reference.exits(inputs)).max() < 1e-4


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_engines_are_timed_beside_those_of_another_artifact(old_opset: Path, tmp_path: Path, cache: Path) -> None:
    first = tmp_path / "first"
    other = build_engines(old_opset, first, settings=BuildSettings(tf32=False))
    settings = BuildSettings(profiles=parse_batch("1:1:1,2:8:32"), tf32=False, against=(first,))
    (built,) = build_engines(old_opset, tmp_path / "second", settings=settings).engines
    assert [(time.digest, time.precision, time.batch) for time in built.speed_comparisons] == [
        (other.digest, "fp32", 1),
        (other.digest, "fp32", 8),
    ]
    assert all(time.low <= time.speedup <= time.high for time in built.speed_comparisons)


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_an_operator_that_the_parser_refuses_is_named(old_opset: Path, tmp_path: Path, cache: Path) -> None:
    artifact = open_artifact(old_opset)
    node = helper.make_node("NoSuchOperator", ["input"], ["hidden"], name="strange", domain="nowhere")
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("input", "hidden")]
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:])
    opsets = [helper.make_opsetid("", 16), helper.make_opsetid("nowhere", 1)]
    with staged(tmp_path / "strange") as folder:
        first = artifact.manifest.segments[0]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / first.file)
        changed = first.model_copy(update=entry(folder, first.file).model_dump())
        rewrite(artifact, folder, segments=(changed, *artifact.manifest.segments[1:]))
    with pytest.raises(UsageError, match="NoSuchOperator") as caught:
        build_engines(tmp_path / "strange", tmp_path / "out")
    assert "segment-0.onnx" in caught.value.problem
    assert not (tmp_path / "out").exists()


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_a_timing_cache_of_another_machine_is_refused_by_name(old_opset: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.timing"
    file.write_bytes(os.urandom(4096))
    with pytest.raises(UsageError, match="no timing cache of this machine"):
        build_engines(old_opset, tmp_path / "out", settings=BuildSettings(timing_cache=file))
