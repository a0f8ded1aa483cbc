"""The backend tensorrt: what it says without a GPU, and (-m tensorrt) what it computes with one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from sdcompress.artifact.execution_target import plans_digest
from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.artifact.write import entry, rewrite, staged
from sdcompress.calibration.calibrate import calibrate
from sdcompress.certification.recompute import verify_certificate
from sdcompress.errors import ArtifactError, CertificateError, InputError, SetupError
from sdcompress.options import EngineOptions
from sdcompress.policies import restore, scores
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.on_device.executor import DeviceExecutor
from sdcompress.runtime.on_device.plans import check_version, plan_bytes, row_shape
from sdcompress.runtime.open import open_cascade, open_engine
from sdcompress.schema import recipe
from sdcompress.schema.engines import BatchProfile, Engines, Plan
from sdcompress.schema.graphs import Tensor
from sdcompress.storage import sha256_of
from sdcompress.tensorrt.building.build import build_engines
from sdcompress.tensorrt.building.profiles import parse_batch
from sdcompress.tensorrt.building.settings import BuildSettings
from sdcompress.tensorrt.nvidia.gpu_query import free_memory, probe_cuda
from sdcompress.tensorrt.nvidia.header import PlanHeader
from sdcompress.tensorrt.nvidia.trt import load, version_of

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


def test_sizes_that_an_engine_computes_are_taken_from_the_manifest() -> None:
    listed = Tensor(name="hidden", dtype="float32", shape=("batch", 6, 2, "width"))
    assert row_shape((-1, 6, 2), listed) == (6, 2)
    assert row_shape((-1, -1, 2), listed) == (6, 2)
    assert row_shape((-1, 5, -1, -1), listed) == (5, 2, -1)  # refused where memory is laid out
    assert row_shape((-1, -1), None) == (-1,)


@pytest.mark.parametrize(
    ("written", "listed", "right"),
    [
        ("10.9.0.34", "10.9.0.34", True),
        ("8.6.1.0", "8.6.1", True),
        ("11.9.0.44", "11.9.0.300", True),
        (None, "10.9.0.34", True),
        ("1.2.3.4", "8.5.3.1", True),
        ("10.9.0.34", "11.4.0.106", False),
    ],
)
def test_the_version_that_a_plan_names_is_the_manifests(written: str | None, listed: str, right: bool) -> None:
    engines = Engines.model_construct(tensorrt=listed)
    if right:
        check_version(PlanHeader(True, written), "a.plan", engines)
        return
    with pytest.raises(ArtifactError, match=r"'a\.plan' was written by TensorRT 10\.9\.0\.34") as caught:
        check_version(PlanHeader(True, written), "a.plan", engines)
    assert "11.4.0.106" in caught.value.allowed


# ---- with a GPU: engines that the package's own builder makes of the tiny cascade


def lowered(path: Path, out: Path, opset: int) -> Path:
    """A copy of an artifact whose graphs say another opset; what the tiny cascade without signals uses is the same."""
    old = open_artifact(path)
    with staged(out) as folder:
        segments = []
        for segment in old.manifest.segments:
            model = onnx.load(old.file(segment))
            model.ir_version, model.opset_import[0].version = 8, opset
            onnx.save(model, folder / segment.file)
            segments.append(segment.model_copy(update=entry(folder, segment.file).model_dump()))
        rewrite(old, folder, segments=tuple(segments))
    return out


@pytest.fixture
def built(tiny_artifact: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """``built(batch="1:1:1,2:8:32", policy=(0.6, 0.6))``: a cascade with FP32 engines of this machine, without TF32."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(batch: str = "1:1:1,2:8:32", name: str = "trt", **fields: Any) -> Path:
        old = version_of(load()).startswith("8.")  # parses opset 17 at most
        source = tiny_artifact(name=f"{name}-onnx", signals=not old, **fields)
        if old:
            source = lowered(source, tmp_path / f"{name}-16", 16)
        settings = BuildSettings(profiles=parse_batch(batch), tf32=False)
        build_engines(source, tmp_path / name, settings=settings)
        return tmp_path / name

    return make


def inputs_of(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, 1, 4, 4)).astype(np.float32)


def on_gpu(path: Path) -> CascadeEngine:
    return open_cascade(path, EngineOptions("tensorrt", device="cuda", allow_uncertified=True))


def executor_of(network: CascadeEngine) -> DeviceExecutor:
    executor = network._executor
    assert isinstance(executor, DeviceExecutor)
    return executor


@pytest.mark.gpu
@pytest.mark.tensorrt
@pytest.mark.parametrize("batch", ["1:1:1,2:8:32", "4:8:16", "1,2,4,8"])
@pytest.mark.parametrize("kind", ["max_prob", "learned"])
def test_every_batch_answers_as_onnxruntime_does(built: Callable[..., Path], batch: str, kind: str) -> None:
    weights = [[0.1, 0.5, -0.8, 0.6, 0.0], [-0.4, 0.5, -0.2, 0.3, 0.9]]
    parameters = {"weights": weights} if kind == "learned" else {}
    sizes = ",".join(f"{low}:{high}:{high}" for low, high in ((1, 1), (2, 2), (3, 4), (5, 8)))
    path = built(sizes if batch == "1,2,4,8" else batch, policy=(0.6, 0.6), kind=kind, parameters=parameters)
    here, usual = on_gpu(path), open_cascade(path, EngineOptions(threads=1))
    policy = restore(kind, parameters, usual.task)
    for rows in (1, 2, 3, 7, 8, 9, 17, 33, 70):  # below the smallest profile, within, and in parts
        inputs = inputs_of(rows, seed=rows)
        np.testing.assert_allclose(here.exits(inputs), usual.exits(inputs), atol=1e-4)
        for exit_ in range(3):
            np.testing.assert_allclose(
                here.forced(inputs, exit_).outputs, usual.forced(inputs, exit_).outputs, atol=1e-4
            )
        found = scores(policy, usual.signals(inputs))
        np.testing.assert_allclose(scores(policy, here.signals(inputs)), found, atol=1e-4)
        clear = np.abs(found - 0.6).min(axis=0) > 1e-3  # no rounding decides for these
        answer, expected = here(inputs), usual(inputs)
        assert answer.exit_index[clear].tolist() == expected.exit_index[clear].tolist()
        np.testing.assert_allclose(answer.outputs[clear], expected.outputs[clear], atol=1e-4)


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_every_segment_and_bucket_is_a_cuda_graph(built: Callable[..., Path]) -> None:
    network = on_gpu(built("1:1:1,2:2:2,3:4:4"))  # one bucket a profile, so that this holds in TensorRT 8 too
    assert all(launch.recorded for launches in executor_of(network)._launches for launch in launches)  # type: ignore[attr-defined]


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_answers_are_the_same_from_several_threads(built: Callable[..., Path]) -> None:
    network = on_gpu(built(policy=(0.6, 0.6)))
    batches = [inputs_of(1 + seed % 40, seed) for seed in range(64)]
    expected = [network(batch) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        for one, other in zip(expected, threads.map(network, batches), strict=True):
            np.testing.assert_array_equal(one.exit_index, other.exit_index)
            np.testing.assert_array_equal(one.outputs, other.outputs)


@pytest.mark.gpu
@pytest.mark.tensorrt
@pytest.mark.parametrize("library", ["torch", "cupy"])
def test_tensors_on_the_gpu_are_taken_where_they_lie(built: Callable[..., Path], library: str) -> None:
    module = pytest.importorskip(library)
    network, inputs = on_gpu(built(policy=(0.6, 0.6))), inputs_of(20)
    if library == "torch":
        if not module.cuda.is_available():
            pytest.skip("this torch sees no GPU")
        stream = module.cuda.Stream()
        with module.cuda.stream(stream):  # the producer is still at work when we are called
            there = module.from_numpy(inputs).pin_memory().to("cuda", non_blocking=True)
            busy = module.ones(4096, 4096, device="cuda")
            for _ in range(50):
                busy = busy @ busy * 1e-4
            there = there + 0 * busy[0, 0]
            found = network(there)
        with pytest.raises(InputError, match="not C-contiguous"):
            network(there.to(memory_format=module.channels_last).expand(20, 1, 4, 4).transpose(2, 3))
    else:
        found = network(module.asarray(inputs))
    np.testing.assert_array_equal(found.exit_index, network(inputs).exit_index)
    np.testing.assert_array_equal(found.outputs, network(inputs).outputs)


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_the_gpu_that_the_thread_has_chosen_stays_chosen(built: Callable[..., Path]) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.device_count() < 2:
        pytest.skip("this takes two GPUs that torch sees")
    path, inputs = built(policy=(0.6, 0.6)), inputs_of(20)
    expected = on_gpu(path)(inputs)
    torch.cuda.set_device(1)
    try:
        network = on_gpu(path)
        found = [network(inputs), network(torch.from_numpy(inputs).to("cuda:0"))]
        assert torch.cuda.current_device() == 1
    finally:
        torch.cuda.set_device(0)
    for one in found:
        np.testing.assert_array_equal(one.outputs, expected.outputs)


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_a_changed_plan_is_never_loaded(built: Callable[..., Path]) -> None:
    path = built()
    (engines,) = open_artifact(path).manifest.engines
    file = path / engines.plans[1].file
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match="corrupt or was changed"):
        on_gpu(path)


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_a_plan_that_takes_other_batches_than_listed_is_refused(built: Callable[..., Path], tmp_path: Path) -> None:
    opened = open_artifact(built("1:8:32"))
    (engines,) = opened.manifest.engines
    other = engines.model_copy(update={"profiles": (BatchProfile(min=1, opt=8, max=64),)})
    with staged(tmp_path / "other") as folder:
        rewrite(opened, folder, engines=(other,))
    with pytest.raises(ArtifactError, match=r"takes the batches 1:8:32 \(min:opt:max\)"):
        on_gpu(tmp_path / "other")


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_thresholds_are_chosen_and_certified_on_the_engines(
    built: Callable[..., Path], tiny_network: Any, tmp_path: Path
) -> None:
    wish, where = recipe.Calibrate(max_drop=0.05, confidence=0.9), {"backend": "tensorrt", "device": "cuda"}
    made = calibrate(
        built(), tmp_path / "out", samples=tiny_network.samples(4000), settings=wish, options=EngineOptions(**where)
    )
    assert made.certificate is not None
    assert made.certificate.plans == plans_digest(made.engines[-1])
    assert verify_certificate(open_artifact(tmp_path / "out")) == made.certificate
    open_engine(tmp_path / "out", **where)
    with pytest.raises(CertificateError, match="not for onnxruntime on cpu"):
        open_engine(tmp_path / "out")


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_the_memory_of_an_engine_goes_with_it(built: Callable[..., Path]) -> None:
    path = built()
    on_gpu(path)  # what CUDA keeps for good
    before = free_memory()
    for _ in range(3):
        on_gpu(path)(inputs_of(3))  # no cycle holds it: the memory is back without a collection
    assert before - free_memory() < 32 * 2**20
