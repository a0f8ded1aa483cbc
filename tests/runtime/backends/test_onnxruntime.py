"""ONNX Runtime as a backend: what it cannot do is said in one of our errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.errors import ArtifactError, DeviceError, SetupError
from sdcompress.runtime.backends._base import Graph
from sdcompress.runtime.backends.onnxruntime import load
from sdcompress.runtime.open import open_engine
from sdcompress.schema.manifest import Tensor

Write = Callable[..., Path]


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is here")
def test_a_device_that_is_not_here(tiny_artifact: Write) -> None:
    with pytest.raises(SetupError, match=r"(?s)no CUDAExecutionProvider.*cpu.*CPUExecutionProvider.*onnxruntime-gpu"):
        open_engine(tiny_artifact(), device="cuda")


def test_a_device_that_nobody_knows(tiny_artifact: Write) -> None:
    with pytest.raises(SetupError, match="'tpu'"):
        open_engine(tiny_artifact(), device="tpu")


@pytest.mark.parametrize("content", [b"", b"no graph at all"])
def test_a_file_that_is_no_graph(tiny_artifact: Write, content: bytes) -> None:
    artifact = open_artifact(tiny_artifact())
    segment = artifact.manifest.segments[0]
    artifact.file(segment).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"cannot load .*segment-0\.onnx"):
        load(artifact.file(segment), segment, threads=1, device="cpu")


def test_a_graph_whose_borders_are_not_the_manifests(tiny_artifact: Write) -> None:
    artifact = open_artifact(tiny_artifact())
    segment = artifact.manifest.segments[0]
    other = segment.model_copy(update={"inputs": (Tensor(name="pixels", dtype="float32", shape=("batch", 1, 4, 4)),)})
    with pytest.raises(ArtifactError, match=r"(?s)'input'.*'pixels'"):
        load(artifact.file(segment), other, threads=1, device="cpu")


def changed(artifact: Artifact, change: Callable[[onnx.ModelProto], None]) -> Graph:
    """The first graph of an artifact, changed under the manifest's eyes."""
    segment = artifact.manifest.segments[0]
    model = onnx.load(artifact.file(segment))
    change(model)
    onnx.save(model, artifact.file(segment))
    return load(artifact.file(segment), segment, threads=1, device="cpu")


def reshaped(name: str, shape: list[int]) -> Callable[[onnx.ModelProto], None]:
    """Gives an output another shape when it runs; before, nobody can know."""

    def change(model: onnx.ModelProto) -> None:
        node = next(node for node in model.graph.node if name in node.output)
        node.output[list(node.output).index(name)] = "before"
        model.graph.initializer.append(numpy_helper.from_array(np.array(shape), "wished"))
        nothing = [
            helper.make_node("ReduceSum", ["input"], ["sum"], keepdims=0),
            helper.make_node("Cast", ["sum"], ["0"], to=7),
        ]
        model.graph.node.extend([*nothing, helper.make_node("Add", ["wished", "0"], ["shape"])])
        model.graph.node.append(helper.make_node("Reshape", ["before", "shape"], [name], name="bad\x1b]0;mine\x07"))
        del model.graph.value_info[:]
        for output in model.graph.output:
            if output.name == name:
                output.type.tensor_type.ClearField("shape")

    return change


IMAGES = {"input": np.zeros((2, 1, 4, 4), np.float32)}


def test_a_graph_that_fails_when_it_runs(tiny_artifact: Write, capfd: pytest.CaptureFixture[str]) -> None:
    graph = changed(open_artifact(tiny_artifact("single")), reshaped("final_outputs", [7, 5]))
    with pytest.raises(ArtifactError, match="cannot run") as caught:
        graph(IMAGES)
    assert r"bad\x1b]0;mine\x07" in str(caught.value)
    assert capfd.readouterr() == ("", "")  # ONNX Runtime would write the name as it is


def test_too_little_memory_is_no_fault_of_the_graph_or_its_inputs(tiny_artifact: Write) -> None:
    def huge(model: onnx.ModelProto) -> None:
        """Take 3 * 2**46 bytes as soon as it runs."""
        reshaped("final_outputs", [2**44, 3])(model)
        model.graph.node[-1].CopyFrom(helper.make_node("ConstantOfShape", ["shape"], ["final_outputs"]))

    graph = changed(open_artifact(tiny_artifact("single")), huge)
    with pytest.raises(DeviceError, match="Failed to allocate memory"):
        graph(IMAGES)


@pytest.mark.parametrize(
    ("shape", "word"),
    [([3, 2], "for 2 rows"), ([6, 1], "for 2 rows"), ([6], "other inputs or outputs"), ([1, 2, 3], "other inputs")],
)
def test_a_graph_that_gives_another_shape_when_it_runs(tiny_artifact: Write, shape: list[int], word: str) -> None:
    with pytest.raises(ArtifactError, match=word):
        changed(open_artifact(tiny_artifact("single")), reshaped("final_outputs", shape))(IMAGES)


def test_a_graph_whose_types_are_not_the_manifests(tiny_artifact: Write) -> None:
    def narrow(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = "before"
        model.graph.node.append(helper.make_node("Cast", ["before"], ["final_outputs"], to=onnx.TensorProto.FLOAT16))
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16

    with pytest.raises(ArtifactError, match="'float16'"):
        changed(open_artifact(tiny_artifact("single")), narrow)
