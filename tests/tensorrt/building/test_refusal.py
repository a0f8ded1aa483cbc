"""The message for a graph that the parser refuses."""

from __future__ import annotations

from sdcompress.tensorrt.building.refusal import Fault, refused

ATTENTION = Fault("Attention", "/blocks.0/attn", "no importer registered for op")


def test_node_segment_and_way_out_are_named() -> None:
    said = str(refused("segment-1.onnx", [ATTENTION], tensorrt="10.9.0.34", reason="[E] parse"))
    for words in ("segment-1.onnx", "Attention", "/blocks.0/attn", "later TensorRT", "--opset", "'onnxruntime'"):
        assert words in said


def test_for_8_the_way_out_is_an_older_opset_first() -> None:
    norm = Fault("LayerNormalization", "/norm", "Plugin not found")
    said = str(refused("segment-0.onnx", [norm], tensorrt="8.5.3.1", reason="[E] 3: getPluginCreator"))
    for words in ("LayerNormalization of the node '/norm'", "getPluginCreator", "opset 17", "next: ", "--opset 16"):
        assert words in said


def test_a_fault_of_no_node_has_its_number() -> None:
    assert (
        "the operator of the node '-1'"
        in refused("a", [Fault("", "-1", "Failed")], tensorrt="8.5.3.1", reason="").found
    )


def test_many_faults_are_counted_and_none_leaves_the_reason() -> None:
    assert "and 2 more" in refused("a", [ATTENTION] * 5, tensorrt="10.9", reason="").found
    assert "[E] not a model" in refused("a", [], tensorrt="10.9", reason="[E] not a model").found
