"""A traced score is numpy's own: for every policy, on any signals, and for policies of other packages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper
from signals import TASK, signals_of
from signals import signals as of_columns

from sdcompress import registry
from sdcompress.errors import UsageError
from sdcompress.onnx_graph.partition import serialize
from sdcompress.onnx_graph.trace_score import trace_score
from sdcompress.policies import ROOM, policy_class
from sdcompress.policies._base import ExitPolicy, Signals
from sdcompress.schema.manifest import ExitSignals
from sdcompress.tasks import Task
from sdcompress.tasks.multilabel import MultiLabel
from sdcompress.tasks.regression import Regression
from sdcompress.verification.sessions import SegmentSessions

EXITS = 9  # patience wants eight
NAMES = [ExitSignals(values=f"values-{k}", decision=f"answer-{k}") for k in range(EXITS)]
NUMBER = st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.5, 1.0, float("nan")]))


def graph(
    policy: ExitPolicy, exit_: int, task: Task = TASK, *, opset: int = 18
) -> Callable[[Sequence[Signals]], np.ndarray]:
    """The traced score as a function of the exits' signals."""
    nodes, constants, score = trace_score(policy, exit_, NAMES[: exit_ + 1], task, "score", opset=opset)
    dtype = helper.np_dtype_to_tensor_dtype(task.decision_dtype)
    nodes.append(helper.make_node("Identity", [score], ["out"]))
    inputs = []
    for names in NAMES[: exit_ + 1]:
        inputs.append(helper.make_tensor_value_info(names.values, TensorProto.FLOAT, ["batch", len(task.signal_names)]))
        inputs.append(helper.make_tensor_value_info(names.decision, dtype, ["batch", *task.decision_shape]))
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch"])]
    model = helper.make_model(
        helper.make_graph(nodes, "score", inputs, outputs, constants),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8 if opset < 18 else 10,
    )
    onnx.checker.check_model(model, full_check=True)
    (session,) = SegmentSessions([serialize(model)], outputs=[])._sessions

    def run(signals: Sequence[Signals]) -> np.ndarray:
        feed = {names.values: s.stacked() for names, s in zip(NAMES, signals, strict=False)}
        feed |= {names.decision: s.decision for names, s in zip(NAMES, signals, strict=False)}
        return np.asarray(session.run(["out"], feed)[0])

    return run


def fitted() -> dict[str, ExitPolicy]:
    """Every policy of the package, fitted on exits that get better."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 5, 400)
    found, right = [], []
    for exit_ in range(EXITS):
        logits = rng.normal(size=(400, 5)).astype(np.float32)
        logits[np.arange(400), labels] += 0.4 * (exit_ + 1)
        found.append(signals_of(logits))
        right.append(found[-1].decision == labels)
    return {kind: policy_class(kind).fit(found, np.stack(right)) for kind in registry.names(ROOM)}


POLICIES = fitted()
TRACED = {(kind, exit_): graph(policy, exit_) for kind, policy in POLICIES.items() for exit_ in (0, 3, EXITS - 2)}


@pytest.mark.parametrize(("kind", "exit_"), TRACED)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_policy_on_any_signals(kind: str, exit_: int, data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 9))
    numbers = data.draw(arrays.arrays(np.float32, (exit_ + 1, 3, rows), elements=NUMBER))
    answers = data.draw(arrays.arrays(np.int64, (exit_ + 1, rows), elements=st.integers(0, 2)))
    signals = [of_columns(*columns, answer) for columns, answer in zip(numbers, answers, strict=True)]
    with np.errstate(invalid="ignore"):
        expected = POLICIES[kind].score(exit_, signals)
    np.testing.assert_allclose(TRACED[kind, exit_](signals), expected, rtol=2e-6, atol=1e-6)  # NaN equals NaN


@pytest.mark.parametrize("kind", ["learned", "patience", "fixed"])
@pytest.mark.parametrize("rows", [1, 3, 7])  # 3 rows of 3 labels: a comparison that broadcasts would not be noticed
@pytest.mark.parametrize("opset", [16, 18])
def test_label_sets_agree_as_a_whole(kind: str, rows: int, opset: int) -> None:
    rng, task = np.random.default_rng(rows), MultiLabel(("sky", "road", "tree"))
    signals = [task.signals(rng.normal(size=(rows, 3)).astype(np.float32)) for _ in range(4)]
    expected = POLICIES[kind].score(3, signals)
    assert expected.shape == (rows,)
    np.testing.assert_allclose(graph(POLICIES[kind], 3, task, opset=opset)(signals), expected, rtol=2e-6, atol=1e-6)


class Sum(ExitPolicy):
    """It compares what has other axes."""

    def score(self, exit_index: int, signals: Sequence[Signals]) -> Any:
        return signals[-1]["max_prob"] * signals[-1].decision


class Flags(ExitPolicy):
    """A score for each label instead of each sample."""

    def score(self, exit_index: int, signals: Sequence[Signals]) -> Any:
        return signals[-1].decision > 0


@pytest.mark.parametrize("kind", ["patience", "settled"])
@pytest.mark.parametrize("rows", [1, 2, 7])  # 2 rows of 2 numbers: a comparison that broadcasts would not be noticed
@pytest.mark.parametrize("opset", [16, 18])
def test_a_traced_score_sees_numbers_that_moved_less_than_a_step(kind: str, rows: int, opset: int) -> None:
    task = Regression(("a", "b"), mean=(0.0, 100.0), std=(1.0, 25.0), step=(0.5, 5.0))
    policy, outputs = policy_class(kind)(), np.random.default_rng(2).normal(0, 0.3, (3, rows, 2)).astype(np.float32)
    outputs[1, 0] = np.nan
    signals = [task.signals(each) for each in outputs]
    np.testing.assert_allclose(graph(policy, 2, task, opset=opset)(signals), policy.score(2, signals), rtol=1e-5)


@pytest.mark.parametrize(("policy", "why"), [(Sum(), "multiply of 1 and 2 axes"), (Flags(), "2 axes instead of one")])
def test_a_score_that_is_not_one_for_each_sample_is_refused(policy: ExitPolicy, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        graph(policy, 0, MultiLabel(("sky", "road", "tree")))


@pytest.mark.parametrize("exit_", [0, 3, EXITS - 2])
def test_what_is_on_the_edge_of_a_bin_is_in_the_same_bin(exit_: int) -> None:
    policy = POLICIES["pcee"]
    edges = np.float32(policy.parameters["edges"][exit_])
    best = np.concatenate([edges, np.nextafter(edges, np.float32(0)), np.nextafter(edges, np.float32(2))])
    signals = [of_columns(best, best, best, np.zeros(len(best), np.int64))] * (exit_ + 1)
    np.testing.assert_array_equal(TRACED["pcee", exit_](signals), policy.score(exit_, signals))


class Foreign(ExitPolicy):
    """Somebody's own, with arithmetic and Python's numbers."""

    def score(self, exit_index: int, signals: Sequence[Signals]) -> Any:
        now = signals[-1]
        sure = (now["max_prob"] - now["second_prob"]) / 2 + 0.5 * np.sqrt(abs(now["max_prob"] - 0.25))
        sure = sure * (now["max_prob"] > 0.1) + 0.125 * np.logical_or(now.decision == 0, now["second_prob"] <= 0.2)
        return np.minimum(1, sure) - 1e-3 * np.logical_not(now["max_prob"] < exit_index)


class Promoting(ExitPolicy):
    """Where numpy computes in float64, so does the graph: a class plus a number."""

    def score(self, exit_index: int, signals: Sequence[Signals]) -> Any:
        return (signals[-1].decision + signals[-1]["max_prob"]) / 7


@pytest.mark.parametrize("policy", [Foreign(), Promoting()])
def test_a_policy_of_another_package(policy: ExitPolicy) -> None:
    rng = np.random.default_rng(0)
    signals = [of_columns(*rng.random((3, 50), np.float32), rng.integers(0, 3, 50)) for _ in range(2)]
    np.testing.assert_allclose(graph(policy, 1)(signals), np.float32(policy.score(1, signals)), rtol=1e-6)


@pytest.mark.parametrize(
    ("score", "why"),
    [
        (lambda now: np.tanh(now["max_prob"]), "tanh"),
        (lambda now: np.maximum.accumulate(now["max_prob"]), "accumulate"),
        (lambda now: np.multiply(now["max_prob"], 2, where=now["max_prob"] > 0), "multiply with where"),
        (lambda now: now["max_prob"].clip(0, 1), "clip"),
        (lambda now: np.add(now["max_prob"] > 0, now["second_prob"] > 0), "add of bool, bool"),
        (lambda now: now["max_prob"] + np.zeros(3, np.float32), r"an array of shape \(3,\)"),
        (lambda now: np.ones(4, np.float32), "does not depend on the signals"),
        (lambda now: np.exp(now["max_prob"] > 0), "exp of float16"),
        (lambda now: np.maximum.reduce([now["max_prob"], now["second_prob"]]), "branches on a signal"),
    ],
)
def test_a_score_that_cannot_be_traced_is_refused_with_the_reason(score: Callable[[Signals], Any], why: str) -> None:
    class Strange(ExitPolicy):
        def score(self, exit_index: int, signals: Sequence[Signals]) -> Any:
            return score(signals[-1])

    with pytest.raises(UsageError, match=rf"(?s)Strange cannot be put into a graph: .*{why}.*allowed: numpy's add"):
        trace_score(Strange(), 0, NAMES[:1], TASK, "score", opset=18)
