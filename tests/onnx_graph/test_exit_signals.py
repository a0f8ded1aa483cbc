"""Signals computed by a graph are those that numpy computes of the same logits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper
from signals import TASK, signals_of

from sdcompress.errors import ParityError
from sdcompress.modalities import Inputs
from sdcompress.onnx_graph.exit_signals import add_signals
from sdcompress.onnx_graph.partition import serialize
from sdcompress.schema.manifest import ExitSignals
from sdcompress.verification.gate import check_signals
from sdcompress.verification.sessions import SegmentSessions

CLASSES = 7


def network() -> onnx.ModelProto:
    """Logits are the input."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["input"], ["exit1_outputs"])],
        "identity",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", CLASSES])],
        [helper.make_tensor_value_info("exit1_outputs", TensorProto.FLOAT, ["batch", CLASSES])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


MODEL, NAMES = add_signals(network(), "exit1", "exit1_outputs", TASK, batch="batch")
CHAIN = SegmentSessions([serialize(MODEL)], outputs=["exit1_outputs"])


@settings(max_examples=200, deadline=None)
@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 9), st.just(CLASSES)), elements=st.floats(-90, 90, width=32)))
def test_for_any_logits(logits: np.ndarray) -> None:
    tensors = CHAIN.run(Inputs({"input": logits}))
    expected = signals_of(logits)
    np.testing.assert_allclose(tensors[NAMES.values], expected.stacked(), atol=1e-5)
    assert tensors[NAMES.decision].tolist() == expected.decision.tolist()
    check_signals(CHAIN, [Inputs({"input": logits})], {"exit1_outputs": NAMES}, TASK)


@pytest.mark.parametrize("logits", [[[1.0] * CLASSES], [[0, 5, 5, 0, 5, 0, 0]], [[1e4, -1e4, 0, 0, 0, 0, 0]]])
def test_ties_and_extremes(logits: list[list[float]]) -> None:
    tensors, expected = CHAIN.run(Inputs({"input": np.float32(logits)})), signals_of(np.float32(logits))
    np.testing.assert_allclose(tensors[NAMES.values], expected.stacked(), atol=1e-5)
    assert tensors[NAMES.decision].tolist() == expected.decision.tolist()


def test_what_is_not_a_number_stays_none() -> None:
    logits = np.zeros((3, CLASSES), np.float32)
    logits[0, 2], logits[1, 2] = np.nan, np.inf
    values = CHAIN.run(Inputs({"input": logits}))[NAMES.values]
    assert np.isnan(values[:, 0]).tolist() == [True, True, False]


def test_the_names_say_what_they_are_and_the_logits_stay() -> None:
    assert ExitSignals(values="exit1_signals", decision="exit1_decision") == NAMES
    assert [output.name for output in MODEL.graph.output] == ["exit1_outputs", "exit1_signals", "exit1_decision"]
    assert [output.name for output in network().graph.output] == ["exit1_outputs"]  # the given model is left alone


def test_signals_of_other_logits_are_found() -> None:
    off = onnx.ModelProto()
    off.CopyFrom(MODEL)
    next(node for node in off.graph.node if node.op_type == "Neg").op_type = "Abs"  # entropy is -sum: Abs is as good
    check_signals(SegmentSessions([serialize(off)], outputs=["exit1_outputs"]), *_example(), TASK)
    next(node for node in off.graph.node if node.op_type == "Exp").op_type = "Neg"
    with pytest.raises(ParityError, match="exit1_outputs"):
        check_signals(SegmentSessions([serialize(off)], outputs=["exit1_outputs"]), *_example(), TASK)


def _example() -> tuple[list[Inputs], dict[str, ExitSignals]]:
    logits = np.random.default_rng(0).normal(size=(5, CLASSES)).astype(np.float32)
    return [Inputs({"input": logits})], {"exit1_outputs": NAMES}
