"""The message for a graph that the parser refuses."""

from __future__ import annotations

from sdcompress.engines.refusal import Fault, refused

ATTENTION = Fault("Attention", "/blocks.0/attn", "no importer registered for op")


def test_node_segment_and_way_out_are_named() -> None:
    said = str(refused("segment-1.onnx", [ATTENTION], tensorrt="10.9.0.34", reason="[E] parse"))
    for words in ("segment-1.onnx", "Attention", "/blocks.0/attn", "later TensorRT", "--opset", "'onnxruntime'"):
        assert words in said


def test_8_5_says_the_operator_only_in_its_log() -> None:
    said = str(
        refused("segment-0.onnx", [Fault("", "5", "Assertion failed")], tensorrt="8.5.3.1", reason="[E] HardSwish")
    )
    assert "the node '5'" in said
    assert "HardSwish" in said
    assert "lower --opset" in said


def test_many_faults_are_counted_and_none_leaves_the_reason() -> None:
    assert "and 2 more" in refused("a", [ATTENTION] * 5, tensorrt="10.9", reason="").found
    assert "[E] not a model" in refused("a", [], tensorrt="10.9", reason="[E] not a model").found
