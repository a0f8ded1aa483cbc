"""What every task must keep, tried on random outputs: its loss, its signals in numpy and in ONNX, and its record."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from sdcompress import tasks
from sdcompress.policies._base import SIGNALS_ATOL
from sdcompress.tasks import Float, Signals, Task

_TOLERANCE = 1e-6


def check_task(task: Task, *, samples: int = 200, scale: float = 3.0, seed: int = 0) -> None:
    """Fail where a task breaks its contract; see docs/adding/task.md.

    Args:
        task: whose class its module exports.
        samples: random outputs to try.
        scale: standard deviation of the outputs.
        seed: of their draw.
    """
    rng = np.random.default_rng(seed)
    outputs = (scale * rng.standard_normal((3, samples, *task.output_shape))).astype(np.float32)
    _check_loss(task, outputs)
    _check_signals(task, outputs[0])
    _check_nodes(task, outputs[0])
    assert tasks.restore(task.record.name, task.outputs, task.record.parameters) == task


def _check_loss(task: Task, outputs: Float) -> None:
    """The loss is a distance in [0, 1], and the kind of loss that the task says."""
    a, b, c = (task.decide(each) for each in outputs)
    assert (a.dtype, a.shape[1:]) == (task.decision_dtype, task.decision_shape)
    task.check_targets(a)
    loss = task.loss(a, b)
    assert (loss.dtype, loss.shape) == (np.float32, (len(a),))
    assert ((loss >= 0) & (loss <= 1)).all()
    np.testing.assert_array_equal(task.loss(a, a), 0)
    np.testing.assert_array_equal(loss, task.loss(b, a))
    assert (task.loss(a, c) <= loss + task.loss(b, c) + _TOLERANCE).all()
    if task.binary_loss:
        assert set(loss.tolist()) <= {0.0, 1.0}
    strata = task.strata(a)
    assert strata is None or strata.shape == (len(a),)


def _check_signals(task: Task, outputs: Float) -> None:
    """One float32 column for each name; a row does not depend on others, and no temperature changes a decision."""
    signals = task.signals(outputs)
    assert tuple(signals.columns) == task.signal_names
    assert (signals.stacked().shape, signals.stacked().dtype) == ((len(outputs), len(task.signal_names)), np.float32)
    np.testing.assert_array_equal(signals.decision, task.decide(outputs))
    _same(task.signals(outputs[:1]), signals.map(lambda column: column[:1]))
    np.testing.assert_array_equal(task.signals(outputs, 2.5).decision, signals.decision)
    assert len(task.signals(outputs[:0])) == 0
    broken = outputs.copy()
    broken.reshape(len(outputs), -1)[0, :] = np.nan
    with np.errstate(invalid="ignore"):
        assert np.isnan(task.signals(broken).stacked()[0]).all(), "NaN never leaves early"


def _check_nodes(task: Task, outputs: Float) -> None:
    """The ONNX nodes compute the signals, of outputs as they are and of outputs over a temperature."""
    scaled = (outputs / np.float32(2)).astype(np.float32)
    session = _session(task)
    values, decision = session.run(None, {"z": scaled, "plain": outputs})
    columns = {name: values[:, at] for at, name in enumerate(task.signal_names)}
    _same(Signals(columns, decision), Signals(task.signals(scaled).columns, task.decide(outputs)))


def _session(task: Task) -> onnxruntime.InferenceSession:
    nodes, constants = task.signal_nodes("z", "values", "decision", decided_by="plain")
    made = {name for node in nodes for name in node.output} | {tensor.name for tensor in constants}
    assert all(name.startswith("z/") for name in made - {"values", "decision"}), "other names begin with the outputs'"
    dtype = helper.np_dtype_to_tensor_dtype(task.decision_dtype)
    graph = helper.make_graph(
        nodes,
        "signals",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *task.output_shape])
            for name in ("z", "plain")
        ],
        [
            helper.make_tensor_value_info("values", TensorProto.FLOAT, ["batch", len(task.signal_names)]),
            helper.make_tensor_value_info("decision", dtype, ["batch", *task.decision_shape]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _same(found: Signals, expected: Signals) -> None:
    np.testing.assert_allclose(found.stacked(), expected.stacked(), atol=SIGNALS_ATOL)
    np.testing.assert_array_equal(found.decision, expected.decision)
    assert found.decision.dtype == expected.decision.dtype
