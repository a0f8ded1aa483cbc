"""What of building a plan needs no TensorRT: an error of its parser, as this package tells it."""

from __future__ import annotations

from types import SimpleNamespace

from onnx import helper

from sdcompress.engines.plan import _fault
from sdcompress.engines.refusal import Fault

NODES = [helper.make_node("Relu", ["x"], ["y"], name="first"), helper.make_node("Mish", ["y"], ["z"], name="second")]
GRAPH = helper.make_model(helper.make_graph(NODES, "g", [], [])).SerializeToString()


def error(node: int, **more: str) -> SimpleNamespace:
    """The methods of ParserError: 8.5 has these two, 9 and later also the node's names."""
    texts = {"desc": "Plugin not found", **more}
    methods = {name: (lambda text=text: text) for name, text in texts.items()}
    return SimpleNamespace(node=lambda: node, **methods)


def test_8_5_says_a_number_and_the_file_says_whose_it_is() -> None:
    assert _fault(error(1), GRAPH) == Fault("Mish", "second", "Plugin not found")
    assert _fault(error(-1), GRAPH) == Fault("", "-1", "Plugin not found")


def test_later_ones_say_it_themselves() -> None:
    said = error(1, node_operator="Gelu", node_name="/inner/gelu")  # of a subgraph, say
    assert _fault(said, GRAPH) == Fault("Gelu", "/inner/gelu", "Plugin not found")
    assert _fault(error(3, node_operator="Gelu", node_name=""), GRAPH).node == "3"
