"""One graph beside its segments: what differs is found, what a rounding decides is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from sdcompress.modalities import Inputs
from sdcompress.runtime.engine import Engine, Prediction
from sdcompress.runtime.open import open_engine
from sdcompress.verification.one_graph_parity import OneGraphParity, compare_one_graph, graph_batches
from sdcompress.verification.parity import describe_failures

Outputs = dict[str, np.ndarray]
INPUTS = Inputs({"input": np.random.default_rng(0).normal(size=(40, 1, 4, 4)).astype(np.float32)})
ALLOWED = (1e-4, 1e-4, 1e-4)


@pytest.fixture
def engine(tiny_artifact: Callable[..., Path]) -> Engine:
    return open_engine(tiny_artifact(policy=(0.7, 0.6)), threads=1)


def compared(engine: Engine, change: Callable[[Outputs], None], *, kind: str = "graph") -> OneGraphParity:
    """The engine's own answers in place of a graph's, spoiled."""

    def run(inputs: np.ndarray) -> Outputs:
        result = engine(inputs)
        outputs = {
            "outputs": result.outputs.copy(),
            "decision": result.outputs.argmax(1),
            "exit_index": result.exit_index.copy(),
        }
        change(outputs)
        return outputs

    return compare_one_graph(run, engine, INPUTS, batches=graph_batches(kind, 32), allowed=ALLOWED)  # type: ignore[arg-type]


def test_the_same_is_the_same(engine: Engine) -> None:
    parity_ = compared(engine, lambda _: None)
    assert (describe_failures(parity_.findings), parity_.near_threshold, parity_.max_abs_diff) == ("", 0, 0)
    np.testing.assert_array_equal(parity_.exit_index, engine(INPUTS).exit_index)
    assert [finding.samples for finding in parity_.findings] == np.bincount(parity_.exit_index, minlength=3).tolist()
    assert {finding.batches for finding in parity_.findings} == {(1, 2, 7, 32)}


def leave_deeper(found: Outputs) -> None:
    found["exit_index"][:] = np.minimum(found["exit_index"] + 1, 2)


def other_answer(found: Outputs) -> None:
    found["decision"][:] = (found["decision"] + 1) % 3


def far_logits(found: Outputs) -> None:
    found["outputs"][found["exit_index"] == 2] += 2e-4


def nothing(found: Outputs) -> None:
    found["outputs"][found["exit_index"] == 0] = np.nan


@pytest.mark.parametrize(
    ("change", "exits"),
    [
        (leave_deeper, {"exit1", "exit2"}),
        (other_answer, {"exit1", "exit2", "final"}),
        (far_logits, {"final"}),
        (nothing, {"exit1"}),
    ],
)
def test_what_differs_is_found_at_its_exit(engine: Engine, change: Callable[[Outputs], None], exits: set[str]) -> None:
    parity_ = compared(engine, change)
    assert {finding.exit for finding in parity_.findings if finding.problem} == exits


def test_only_a_batch_of_seven_is_wrong(engine: Engine) -> None:
    def change(found: Outputs) -> None:
        if len(found["decision"]) == 7:
            leave_deeper(found)

    assert describe_failures(compared(engine, change).findings)
    assert not describe_failures(compared(engine, change, kind="if").findings)


def test_further_inputs_are_compared_one_by_one(engine: Engine) -> None:
    sizes, wrong = [], 3

    def run(inputs: Inputs) -> Outputs:
        sizes.append(len(inputs))
        result = engine(inputs)
        decision = result.outputs.argmax(1)
        decision[:] += len(sizes) == wrong
        return {"outputs": result.outputs, "decision": decision, "exit_index": result.exit_index}

    further = [INPUTS[30:32], INPUTS[32:33]]
    parity_ = compare_one_graph(run, engine, INPUTS[:30], batches=(30,), allowed=ALLOWED, further=further)
    assert sizes == [30, 1, 1, 1]
    assert sum(finding.samples for finding in parity_.findings) == 33
    assert [finding.worst for finding in parity_.findings if finding.problem] == [(31,)]
    np.testing.assert_array_equal(parity_.exit_index, engine(INPUTS[:30]).exit_index)


def test_an_image_on_the_threshold_may_take_another_exit(tiny_artifact: Callable[..., Path]) -> None:
    plain = open_engine(tiny_artifact(policy=(0.7, 0.6), name="plain"), threads=1)
    best = float(plain.signals(INPUTS[:1])[0]["max_prob"][0])
    engine = open_engine(tiny_artifact(policy=(best, 0.6), name="edge"), threads=1)
    assert engine(INPUTS[:1]).exit_index[0] == 0
    deeper = open_engine(tiny_artifact(policy=(best + 1e-6, 0.6), name="deeper"), threads=1)

    def run(inputs: np.ndarray) -> Outputs:
        result = deeper(inputs)
        return {
            "outputs": result.outputs,
            "decision": result.outputs.argmax(1),
            "exit_index": result.exit_index,
        }

    parity_ = compare_one_graph(run, engine, INPUTS, batches=(1,), allowed=ALLOWED)
    assert (describe_failures(parity_.findings), parity_.near_threshold) == ("", 1)


def test_a_near_tie_that_is_decided_otherwise_is_counted(engine: Engine) -> None:
    """The two largest outputs swap within the tolerance, and the graph decides by its own."""

    def close(inputs: Inputs) -> Prediction:
        found = engine(inputs)
        outputs = np.zeros_like(found.outputs)
        outputs[:, 0], outputs[:, 1] = 1.0, 1.0 - 1e-6
        return replace(found, outputs=outputs)

    tied = Mock(side_effect=close, policy=engine.policy, task=engine.task, exit_names=engine.exit_names)

    def run(inputs: Inputs) -> Outputs:
        found = close(inputs)
        outputs = found.outputs.copy()
        outputs[0, 1] = 1.0 + 1e-6
        return {"outputs": outputs, "decision": outputs.argmax(1), "exit_index": found.exit_index}

    parity_ = compare_one_graph(run, tied, INPUTS, batches=(40,), allowed=ALLOWED)
    assert (describe_failures(parity_.findings), parity_.near_threshold) == ("", 1)


def test_an_artifact_may_have_fewer_images_than_the_largest_batch() -> None:
    assert graph_batches("graph", 5) == (1, 2, 5, 7)
    assert graph_batches("if", 32) == (1,)
