"""OpenVINO as a backend: the same outputs as numpy, from several threads, and one of our errors where it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sdcompress import registry
from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.write import entry
from sdcompress.errors import ArtifactError, MissingExtraError, SetupError
from sdcompress.onnx_graph.partition import tensor_specs
from sdcompress.runtime.backends._base import Graph
from sdcompress.runtime.backends.openvino import load
from sdcompress.runtime.open import ROOM, open_engine
from sdcompress.schema.manifest import Segment, Tensor

Write = Callable[..., Path]


def images(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, 1, 4, 4)).astype(np.float32)


@pytest.mark.parametrize("layout", ["cascade", "all"])
def test_every_exit_is_that_of_numpy_at_any_batch(tiny_artifact: Write, tiny_network: Any, layout: str) -> None:
    engine = open_engine(tiny_artifact(layout), backend="openvino", threads=1)
    for rows in (1, 2, 7, 32, 2):
        assert np.allclose(engine.exits(images(rows)), tiny_network.exits(images(rows)), atol=1e-5)


def test_rows_exit_where_those_of_onnxruntime_do(tiny_artifact: Write) -> None:
    path, inputs = tiny_artifact(policy=(0.6, 0.6)), images(64)
    ours, usual = (open_engine(path, backend=name, allow_uncertified=True) for name in ("openvino", "onnxruntime"))
    assert set(ours(inputs).exit_index) == {0, 1, 2}
    assert (ours(inputs).exit_index == usual(inputs).exit_index).all()
    assert (ours(inputs).decision == usual(inputs).decision).all()


def test_threads_at_once_do_not_share_buffers(tiny_artifact: Write) -> None:
    engine = open_engine(tiny_artifact(policy=(0.6, 0.6)), backend="openvino", threads=1, allow_uncertified=True)
    batches = [images(rows) for rows in range(1, 41)]
    alone = [engine(batch).outputs for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            together = list(pool.map(lambda batch: engine(batch).outputs, batches))
            assert all((a == b).all() for a, b in zip(alone, together, strict=True))


def test_inputs_are_only_read_and_outputs_belong_to_the_caller(tiny_artifact: Write) -> None:
    artifact = open_artifact(tiny_artifact())
    segment = artifact.manifest.segments[0]
    graph = load(artifact.file(segment), segment, threads=1, device="cpu")
    inputs, before = images(3), images(3)
    inputs.flags.writeable = False
    first = graph({"input": inputs})
    kept = [array.copy() for array in first]
    second = graph({"input": images(5)[:3]})
    assert (inputs == before).all()
    for array, copy, other in zip(first, kept, second, strict=True):
        assert (array == copy).all()
        assert array.flags.writeable
        assert not np.shares_memory(array, other)


def test_copies_of_read_only_inputs_live_until_the_call_ends(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    ports = [info(name, TensorProto.FLOAT, ["batch", 1000]) for name in ("a", "b", "y")]
    difference = helper.make_graph([helper.make_node("Sub", ["a", "b"], ["y"])], "g", ports[:2], ports[2:])
    graph = loaded(tmp_path, written(tmp_path, difference))
    inputs = {name: np.full((8, 1000), value, np.float32) for name, value in (("a", 5.0), ("b", 2.0))}
    for array in inputs.values():
        array.flags.writeable = False
    assert (graph(inputs)[0] == 3.0).all()


def graph_of(folder: Path, nodes: list[onnx.NodeProto], row: list[Any], *, output: int = TensorProto.FLOAT) -> Segment:
    """Write a graph from x, float32 [batch, *row], to y; return its entry as a manifest would have it."""
    info = helper.make_tensor_value_info
    return written(
        folder,
        helper.make_graph(
            nodes, "g", [info("x", TensorProto.FLOAT, ["batch", *row])], [info("y", output, ["batch", *row])]
        ),
    )


def written(folder: Path, graph: onnx.GraphProto) -> Segment:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "g.onnx")
    borders = {"inputs": tensor_specs(graph.input), "outputs": tensor_specs(graph.output)}
    return Segment(**entry(folder, "g.onnx").model_dump(), **borders, macs=0, parameters=0)


def loaded(folder: Path, segment: Segment) -> Graph:
    return load(folder / segment.file, segment, threads=1, device="cpu")


def test_an_axis_that_varies_beside_the_batch(tmp_path: Path) -> None:
    graph = loaded(tmp_path, graph_of(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], ["sequence", 2]))
    for shape in ((1, 3, 2), (4, 9, 2), (1, 1, 2)):
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        (y,) = graph({"x": x})
        assert (y == np.maximum(x, 0)).all()


def test_float32_is_not_rounded_to_bfloat16(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weights))
    graph = loaded(tmp_path, graph_of(tmp_path, [constant, helper.make_node("MatMul", ["x", "w"], ["y"])], [256]))
    x = np.random.default_rng(1).normal(size=(8, 256)).astype(np.float32)
    assert np.abs(graph({"x": x})[0] - x.astype(np.float64) @ weights).max() < 1e-4  # bfloat16: 0.1


def test_a_tensor_with_several_names_is_found_by_each(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["z"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    (y,) = loaded(tmp_path, graph_of(tmp_path, nodes[::-1], [3]))({"x": np.ones((2, 3), np.float32)})
    assert (y == -1).all()


def test_a_device_that_it_does_not_have(tiny_artifact: Write) -> None:
    with pytest.raises(SetupError, match=r"(?s)no device 'cuda'.*allowed: cpu"):
        open_engine(tiny_artifact(), backend="openvino", device="cuda")


@pytest.mark.parametrize("content", [b"", b"no graph at all"])
def test_a_file_that_is_no_graph(tiny_artifact: Write, content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    artifact = open_artifact(tiny_artifact())
    segment = artifact.manifest.segments[0]
    artifact.file(segment).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"segment-0\.onnx"):
        load(artifact.file(segment), segment, threads=1, device="cpu")
    assert capfd.readouterr() == ("", "")


def test_an_operator_that_it_does_not_know(tmp_path: Path) -> None:
    segment = graph_of(tmp_path, [helper.make_node("NoSuchOperator", ["x"], ["y"])], [3])
    with pytest.raises(ArtifactError, match=r"(?s)OpenVINO 20\S+ cannot load .*NoSuchOperator.*onnxruntime"):
        loaded(tmp_path, segment)


def test_a_graph_whose_inputs_are_not_the_manifests(tiny_artifact: Write) -> None:
    artifact = open_artifact(tiny_artifact())
    segment = artifact.manifest.segments[0]
    other = segment.model_copy(update={"inputs": (Tensor(name="pixels", dtype="float32", shape=("batch", 1, 4, 4)),)})
    with pytest.raises(ArtifactError, match=r"(?s)'input'.*'pixels'"):
        load(artifact.file(segment), other, threads=1, device="cpu")


def test_a_graph_that_gives_another_shape_when_it_runs(tmp_path: Path) -> None:
    shape = helper.make_node("Constant", [], ["s"], value=numpy_helper.from_array(np.array([-1, 2])))
    segment = graph_of(tmp_path, [shape, helper.make_node("Reshape", ["x", "s"], ["y"])], ["columns"])
    with pytest.raises(ArtifactError, match=r"of shape \[3, 2\] for 2 rows"):
        loaded(tmp_path, segment)({"x": np.zeros((2, 3), np.float32)})


def test_nothing_is_sent_when_it_is_imported(tmp_path: Path) -> None:
    program = "import sys; import sdcompress.runtime.backends.openvino; print('openvino_telemetry' in sys.modules)"
    environment = {**os.environ, "HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, f"{ROOM}.openvino")
    with pytest.raises(MissingExtraError, match=r"sdcompress\[openvino\]"):
        registry.load(ROOM, "openvino", extra="all")
