"""A graph whose weights lie in other files is refused, wherever in the graph they hide, before a runtime has it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.descriptor import Descriptor
from onnx import TensorProto, helper, numpy_helper

from sdcompress.artifact.external import SUBMESSAGES, check_no_external_data
from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.write import entry, seal
from sdcompress.errors import ArtifactError
from sdcompress.runtime.open import open_engine
from sdcompress.untrusted import Refused


def outside(location: str = "../../secret.bin") -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "8")):
        added = tensor.external_data.add()
        added.key, added.value = key, value
    return tensor


def inside() -> TensorProto:
    return numpy_helper.from_array(np.ones(2, np.float32), "w")


def graph(*tensors: TensorProto, nodes: list[Any] | None = None, **more: Any) -> onnx.GraphProto:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    nodes = nodes or [helper.make_node("Add", ["x", "w"], ["y"])]
    return helper.make_graph(nodes, "g", ports[:1], ports[1:], list(tensors), **more)


def model(graph_: onnx.GraphProto, **more: Any) -> onnx.ModelProto:
    return helper.make_model(graph_, opset_imports=[helper.make_opsetid("", 18)], ir_version=10, **more)


def sparse(tensor: TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=tensor, indices=tensor, dims=[2])


def branch(tensor: TensorProto) -> onnx.ModelProto:
    both = {name: graph(tensor) for name in ("then_branch", "else_branch")}
    deeper = helper.make_node("If", ["c"], ["y"], **both)
    outer = {name: graph(nodes=[deeper]) for name in ("then_branch", "else_branch")}
    return model(graph(nodes=[helper.make_node("If", ["c"], ["y"], **outer)]))


def function(tensor: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    proto = helper.make_function("own", "f", [], ["y"], [node], [helper.make_opsetid("", 18)])
    return model(graph(), functions=[proto])


def default_of_a_function(tensor: TensorProto) -> onnx.ModelProto:
    proto = helper.make_function("own", "f", [], [], [], [], attribute_protos=[helper.make_attribute("a", tensor)])
    return model(graph(), functions=[proto])


def trained(tensor: TensorProto) -> onnx.ModelProto:
    proto = model(graph())
    proto.training_info.add().algorithm.CopyFrom(graph(tensor))
    return proto


def nodes_with(**attributes: Any) -> onnx.ModelProto:
    return model(graph(nodes=[helper.make_node("Constant", [], ["y"], **attributes)]))


PLACES: dict[str, Callable[[TensorProto], onnx.ModelProto]] = {
    "an initializer": lambda tensor: model(graph(inside(), tensor)),
    "a sparse initializer": lambda tensor: model(graph(sparse_initializer=[sparse(tensor)])),
    "a constant": lambda tensor: nodes_with(value=tensor),
    "a sparse constant": lambda tensor: nodes_with(sparse_value=sparse(tensor)),
    "a list of tensors": lambda tensor: nodes_with(a=[inside(), tensor]),
    "a list of sparse tensors": lambda tensor: nodes_with(a=[sparse(tensor)]),
    "a list of graphs": lambda tensor: nodes_with(a=[graph(), graph(tensor)]),
    "a branch of a branch": branch,
    "a function": function,
    "a default of a function": default_of_a_function,
    "a training step": trained,
}


@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES.keys())
def test_a_tensor_elsewhere_is_found_in_every_place(tmp_path: Path, make: Callable[..., onnx.ModelProto]) -> None:
    file = tmp_path / "a.onnx"
    file.write_bytes(make(inside()).SerializeToString())
    check_no_external_data(file)
    for location in ("../../secret.bin", "/etc/passwd", "beside.bin", "*/_ORT_MEM_ADDR_/*"):
        file.write_bytes(make(outside(location)).SerializeToString())
        with pytest.raises(Refused, match="another file"):
            check_no_external_data(file)
    named_only = inside()
    named_only.external_data.add().key = "location"
    said_only = inside()
    said_only.data_location = TensorProto.EXTERNAL
    for tensor in (named_only, said_only):
        file.write_bytes(make(tensor).SerializeToString())
        with pytest.raises(Refused, match="another file"):
            check_no_external_data(file)


def test_every_way_from_a_model_to_a_tensor_is_followed() -> None:
    # by onnx's own description of its messages
    def ways(of: Descriptor, seen: set[str]) -> dict[str, dict[int, str]]:
        inner = {field.number: field.message_type for field in of.fields if field.message_type is not None}
        submessages = {of.name: {number: message.name for number, message in inner.items()}}
        for message in inner.values():
            if message.name not in seen:
                seen.add(message.name)
                submessages |= ways(message, seen)
        return submessages

    all_ways = ways(onnx.ModelProto.DESCRIPTOR, {"ModelProto"})
    leading = {"TensorProto"}
    while more := {name for name, fields in all_ways.items() if leading & {*fields.values()}} - leading:
        leading |= more
    expected = {
        name: {number: message for number, message in fields.items() if message in leading}
        for name, fields in all_ways.items()
        if name in leading
    }
    assert {**expected, "TensorProto": {}} == SUBMESSAGES


def test_a_file_that_is_no_graph_is_refused_whatever_it_claims(tmp_path: Path) -> None:
    good = model(graph(inside())).SerializeToString()
    broken = [
        good[:-1],
        b"\x08" + b"\xff" * 20,  # a number without an end
        b"\x3a\xff\xff\xff\xff\x0f",  # a length beyond the end
        b"\x3b\x3c",  # a group
        b"\x02\x00",  # the field 0
        b"\xba\x80\x80\x80\x80\x01\x00",  # a field number beyond 32 bits
        b"\x3e",  # a wire type that there is not
        b"",
        b"\x08\x01" * 1_000_001,  # fields without an end
    ]
    file = tmp_path / "a.onnx"
    for content in broken:
        file.write_bytes(content)
        with pytest.raises(Refused):
            check_no_external_data(file)
    file.write_bytes(good)
    with pytest.raises(Refused, match="onnx"):  # by its name ONNX Runtime would read another format
        check_no_external_data(file.rename(tmp_path / "a.ort"))


def test_an_artifact_with_such_a_graph_is_not_opened(tiny_artifact: Callable[..., Path]) -> None:
    folder = tiny_artifact("single")
    manifest = open_artifact(folder).manifest
    file = folder / manifest.segments[0].file
    changed = onnx.load(file)
    secret = folder.parent / "secret.bin"
    weight = changed.graph.initializer[0]
    secret.write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../secret.bin"), ("offset", "0"), ("length", str(secret.stat().st_size))):
        added = weight.external_data.add()
        added.key, added.value = key, value
    onnx.save(changed, file)
    fields = {name: getattr(manifest, name) for name in type(manifest).model_fields if name != "digest"}
    segment = manifest.segments[0].model_copy(update=entry(folder, file.name).model_dump())
    seal(folder, **{**fields, "segments": (segment,)})
    with pytest.raises(ArtifactError, match="another file"):
        open_engine(folder, threads=1)
    shutil.rmtree(folder)
