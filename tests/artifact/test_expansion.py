"""Functions that call functions: a few kilobytes that a runtime would inline for ever."""

from __future__ import annotations

import time
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from sdcompress.artifact.expansion import check_expansion
from sdcompress.untrusted import Refused

OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]


def call(name: str, source: str = "x", to: str = "z", domain: str = "own") -> onnx.NodeProto:
    return helper.make_node(name, [source], [to], domain=domain)


def function(name: str, *nodes: onnx.NodeProto) -> onnx.FunctionProto:
    return helper.make_function("own", name, ["x"], ["z"], nodes, OPSETS)


def write(path: Path, nodes: list[onnx.NodeProto], *functions: onnx.FunctionProto) -> Path:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "z")]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:])
    path.write_bytes(helper.make_model(graph, opset_imports=OPSETS, functions=functions).SerializeToString())
    return path


def doubled(levels: int) -> list[onnx.FunctionProto]:
    """Functions of 2 ** level nodes and as many calls."""
    first = function("f0", helper.make_node("Relu", ["x"], ["z"]))
    return [
        first,
        *(function(f"f{at}", call(f"f{at - 1}", to="a"), call(f"f{at - 1}", "a")) for at in range(1, levels + 1)),
    ]


def test_functions_that_end_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    check_expansion(write(path, [call("f18")], *doubled(18)))  # 2 ** 19 - 1 nodes
    check_expansion(write(path, [helper.make_node("Relu", ["x"], ["z"])]))
    deep = [function("f0", helper.make_node("Relu", ["x"], ["z"]))]
    deep += [function(f"f{at}", call(f"f{at - 1}")) for at in range(1, 3000)]
    check_expansion(write(path, [call("f2999")], *deep))


def test_functions_that_do_not_end_are_refused_at_once(tmp_path: Path) -> None:
    path, begin = tmp_path / "a.onnx", time.monotonic()
    branch = helper.make_graph([call("f15")], "g", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])])
    hidden = helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=branch)
    for nodes, functions, reason in (
        ([call("f40")], doubled(40), "more than 1,000,000 nodes"),
        ([hidden] * 20, doubled(15), "more than 1,000,000 nodes"),
        ([call("f15")] * 40, doubled(15), "more than 1,000,000 nodes"),
        ([call("f")], [function("f", call("f"))], "call themselves"),
        ([call("f")], [function("f", call("g")), function("g", call("f"))], "call themselves"),
        ([call("f")], [function("f", call("g"))] * 2, "have one name"),
    ):
        with pytest.raises(Refused, match=reason):
            check_expansion(write(path, nodes, *functions))
    assert time.monotonic() - begin < 10
