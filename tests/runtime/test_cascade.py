"""The engine over an artifact: every exit as numpy computes it, and samples that leave each for itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.errors import InputError
from sdcompress.policies import restore, scores
from sdcompress.runtime import cascade
from sdcompress.runtime.backends._base import Graph
from sdcompress.runtime.backends.onnxruntime import load
from sdcompress.runtime.cascade import CascadeEngine, array_cascade
from sdcompress.runtime.engine import Engine, Prediction
from sdcompress.runtime.open import open_engine
from sdcompress.schema.manifest import Segment, StageTimes

Write = Callable[..., Path]


def inputs_of(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, 1, 4, 4)).astype(np.float32)


def confidence(row: np.ndarray, temperature: float) -> float:
    """Max softmax of one row of logits, the long way."""
    powers = np.exp(row.astype(np.float64) / temperature)
    return float((powers / powers.sum()).max())


def simulate(
    exits: np.ndarray, thresholds: list[float], temperatures: list[float]
) -> tuple[np.ndarray, list[int], float]:
    """Row by row: the first exit that is sure enough; and how near any decision was to its threshold."""
    left, nearest = [], 1.0
    for row in range(exits.shape[1]):
        chosen = len(exits) - 1
        for position, threshold in enumerate(thresholds):
            sure = confidence(exits[position, row], temperatures[position])
            nearest = min(nearest, abs(sure - threshold))
            if sure >= threshold:
                chosen = position
                break
        left.append(chosen)
    return np.stack([exits[chosen, row] for row, chosen in enumerate(left)]), left, nearest


@pytest.mark.parametrize("layout", ["cascade", "all", "single"])
def test_every_exit_is_what_numpy_computes(tiny_artifact: Write, tiny_network: Any, layout: str) -> None:
    engine = open_engine(tiny_artifact(layout), threads=1)
    inputs = inputs_of(9)
    expected = tiny_network.exits(inputs)[-len(engine.exit_names) :]
    np.testing.assert_allclose(engine.exits(inputs), expected, atol=1e-5)
    for position in range(len(engine.exit_names)):
        forced = engine.forced(inputs, position)
        np.testing.assert_allclose(forced.outputs, expected[position], atol=1e-5)
        assert forced.exit_index.tolist() == [position] * 9


@pytest.mark.parametrize("layout", ["cascade", "all", "single"])
def test_without_a_policy_everybody_takes_the_last_exit(tiny_artifact: Write, tiny_network: Any, layout: str) -> None:
    engine = open_engine(tiny_artifact(layout), threads=1)
    inputs = inputs_of(5)
    found = engine(inputs)
    np.testing.assert_allclose(found.outputs, tiny_network.exits(inputs)[-1], atol=1e-5)
    assert found.exit_index.tolist() == [len(engine.exit_names) - 1] * 5
    assert engine.policy is None


LEVELS = st.sampled_from([0.0, 0.34, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 1.0, 2.0])
TEMPERATURES = st.sampled_from([0.25, 1.0, 3.0])


@pytest.mark.parametrize(("layout", "signals"), [("cascade", True), ("cascade", False), ("all", False)])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.integers(1, 17),
    thresholds=st.lists(LEVELS, min_size=2, max_size=2),
    temperatures=st.lists(TEMPERATURES, min_size=3, max_size=3),
    seed=st.integers(0, 10_000),
)
@example(batch=8, thresholds=[0.0, 2.0], temperatures=[1.0, 1.0, 1.0], seed=0)  # all leave at once
@example(batch=8, thresholds=[2.0, 0.0], temperatures=[1.0, 1.0, 1.0], seed=0)  # nobody, then all
@example(batch=8, thresholds=[2.0, 2.0], temperatures=[1.0, 1.0, 1.0], seed=0)  # nobody before the last
@example(batch=17, thresholds=[0.6, 0.6], temperatures=[1.0, 1.0, 1.0], seed=0)  # some at each
def test_a_batch_leaves_as_its_rows_would(
    *,
    tiny_artifact: Write,
    layout: str,
    signals: bool,
    batch: int,
    thresholds: list[float],
    temperatures: list[float],
    seed: int,
) -> None:
    name = f"{layout}-{signals}-{thresholds}-{temperatures}".replace(" ", "")
    engine = _cached(tiny_artifact, name, layout, tuple(thresholds), tuple(temperatures), signals=signals)
    inputs = inputs_of(batch, seed)
    logits, left, nearest = simulate(engine.exits(inputs), thresholds, temperatures)
    assume(nearest > 1e-6)  # float32 and float64 may disagree on a confidence that is on its threshold
    found = engine(inputs)
    assert found.exit_index.dtype == np.int64
    assert found.exit_index.tolist() == left
    np.testing.assert_allclose(found.outputs, logits, atol=1e-5)
    alone = [engine(inputs[row : row + 1]) for row in range(batch)]
    assert [int(one.exit_index[0]) for one in alone] == left
    np.testing.assert_allclose(np.concatenate([one.outputs for one in alone]), found.outputs, atol=1e-5)


_OPENED: dict[str, Engine] = {}


def _cached(
    write: Write, name: str, layout: str, thresholds: tuple[float, ...], temperatures: Any, **fields: Any
) -> Engine:
    if name not in _OPENED:
        _OPENED[name] = open_engine(write(layout, thresholds, temperatures, name=name, **fields), threads=1)
    return _OPENED[name]


WEIGHTS = [[0.1, 0.5, -0.8, 0.6, 0.0], [-0.4, 0.5, -0.2, 0.3, 0.9]]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.integers(1, 33), thresholds=st.lists(LEVELS, min_size=2, max_size=2), seed=st.integers(0, 10_000))
def test_a_policy_that_looks_back_sees_the_same_rows(
    *, tiny_artifact: Write, batch: int, thresholds: list[float], seed: int
) -> None:
    name = f"learned-{thresholds}".replace(" ", "")
    fields = {"kind": "learned", "parameters": {"weights": WEIGHTS}}
    engine = _cached(tiny_artifact, name, "cascade", tuple(thresholds), (1.0, 1.0, 1.0), **fields)
    inputs = inputs_of(batch, seed)
    score = scores(restore("learned", fields["parameters"], engine.task), engine.signals(inputs))
    fires = np.vstack([score >= np.float32(thresholds)[:, None], np.ones(batch, bool)])
    assume(np.abs(score - np.float32(thresholds)[:, None]).min() > 1e-6)  # a sum in another order may round otherwise
    found = engine(inputs)
    assert found.exit_index.tolist() == fires.argmax(axis=0).tolist()
    expected = engine.exits(inputs)[found.exit_index, np.arange(batch)]
    np.testing.assert_allclose(found.outputs, expected, atol=1e-5)


TIMES = {"rows": (1, 64), "ms": ((1.0, 64.0),) * 3}


@pytest.mark.parametrize(("move_ms", "compacts"), [((1e-3, 1e-3), (True, True)), ((1e3, 1e-3), (False, True))])
@pytest.mark.parametrize("kind", ["max_prob", "learned"])
def test_rows_that_have_left_are_carried_where_compaction_does_not_pay(
    tiny_artifact: Write, kind: str, move_ms: tuple[float, float], compacts: tuple[bool, bool]
) -> None:
    parameters = {"weights": WEIGHTS} if kind == "learned" else {}
    fields = {"kind": kind, "parameters": parameters}
    artifact = open_artifact(
        tiny_artifact(policy=(0.6, 0.6), **fields, stage_times=StageTimes(**TIMES, move_ms=move_ms))
    )
    inputs = inputs_of(64)
    expected = open_engine(tiny_artifact(policy=(0.6, 0.6), name="plain", **fields), threads=1)(inputs)
    ran, found = _rows_run(artifact, inputs)
    assert found.exit_index.tolist() == expected.exit_index.tolist()
    np.testing.assert_allclose(found.outputs, expected.outputs, atol=1e-5)
    active = [64, int((found.exit_index > 0).sum()), int((found.exit_index > 1).sum())]
    assert 64 > active[1] > active[2] > 0
    assert ran == [[64], [active[1] if compacts[0] else 64], [active[2]]]


def test_nothing_is_copied_but_rows_in_the_place_of_others(tiny_artifact: Write) -> None:
    artifact = open_artifact(tiny_artifact(policy=(0.6, 2.0)))
    made: list[np.ndarray] = []

    def remembering(segment: Segment) -> Graph:
        graph = load(artifact.file(segment), segment, threads=1, device="cpu")

        def run(tensors: dict[str, np.ndarray]) -> Sequence[np.ndarray]:
            if "hidden" in tensors:  # what the first segment gave, with rows of it moved
                assert any(np.shares_memory(tensors["hidden"], one) for one in made)
            made.extend(found := graph(tensors))
            return found

        return run

    assert set(array_cascade(artifact, remembering)(inputs_of(64)).exit_index.tolist()) == {0, 2}


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The clock of the cascade in nanoseconds; only stages move it."""
    clock = [0]
    monkeypatch.setattr(cascade, "perf_counter_ns", lambda: clock[0])
    return clock


def _slowly(artifact: Artifact, milliseconds: int, now: list[int]) -> CascadeEngine:
    def slow(segment: Segment) -> Graph:
        graph = load(artifact.file(segment), segment, threads=1, device="cpu")

        def run(tensors: dict[str, np.ndarray]) -> Sequence[np.ndarray]:
            now[0] += milliseconds * 1_000_000
            return graph(tensors)

        return run

    return array_cascade(artifact, slow)


def test_a_deadline_takes_the_deepest_exit_that_is_reached(tiny_artifact: Write, now: list[int]) -> None:
    network = _slowly(open_artifact(tiny_artifact()), 20, now)  # no policy: what stages take is not known
    assert network(inputs_of(2), deadline_ms=0).exit_index.tolist() == [0, 0]  # the first exit always runs
    assert network(inputs_of(2), deadline_ms=30).exit_index.tolist() == [1, 1]
    assert network(inputs_of(2), deadline_ms=1000).exit_index.tolist() == [2, 2]


def test_a_stage_that_would_not_end_in_time_is_not_begun(tiny_artifact: Write, now: list[int]) -> None:
    known = tiny_artifact(policy=(2.0, 2.0), stage_times=StageTimes(rows=(1,), ms=((20.0,),) * 3, move_ms=(0.1, 0.1)))
    network = _slowly(open_artifact(known), 20, now)
    assert network(inputs_of(1), deadline_ms=30).exit_index.tolist() == [0]
    assert network(inputs_of(1), deadline_ms=50).exit_index.tolist() == [1]
    assert network(inputs_of(2), deadline_ms=50).exit_index.tolist() == [0, 0]  # two rows take twice as long


def test_before_the_deadline_the_policy_decides(tiny_artifact: Write) -> None:
    engine = open_engine(tiny_artifact(policy=(0.6, 0.6)), threads=1)
    inputs = inputs_of(32)
    np.testing.assert_array_equal(engine(inputs, deadline_ms=10_000).exit_index, engine(inputs).exit_index)


def test_the_mix_above_really_leaves_at_every_exit(tiny_artifact: Write) -> None:
    engine = open_engine(tiny_artifact(policy=(0.6, 0.6)), threads=1)
    assert set(engine(inputs_of(64)).exit_index.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("policy", "runs"),
    [
        ((0.0, 2.0), [[64], [], []]),
        ((2.0, 0.0), [[64], [64], []]),
        ((2.0, 2.0), [[64], [64], [64]]),
        ((0.6, 0.6), None),
        (None, [[64], [64], [64]]),
    ],
)
def test_who_has_left_is_not_computed_any_more(
    tiny_artifact: Write, policy: tuple[float, float] | None, runs: list[list[int]] | None
) -> None:
    seen, found = _rows_run(open_artifact(tiny_artifact(policy=policy)), inputs_of(64))
    left = found.exit_index
    assert seen == (runs or [[64], [int((left > 0).sum())], [int((left > 1).sum())]])
    if runs is None:
        assert 64 > seen[1][0] > seen[2][0] > 0


def _rows_run(artifact: Artifact, inputs: np.ndarray) -> tuple[list[list[int]], Prediction]:
    """How many rows each segment was run on, and the answers."""
    seen: list[list[int]] = [[] for _ in artifact.manifest.segments]

    def counting(segment: Segment) -> Graph:
        graph = load(artifact.file(segment), segment, threads=1, device="cpu")
        position = artifact.manifest.segments.index(segment)

        def run(tensors: dict[str, np.ndarray]) -> Sequence[np.ndarray]:
            (rows,) = {len(tensor) for tensor in tensors.values()}
            seen[position].append(rows)
            return graph(tensors)

        return run

    found = array_cascade(artifact, counting)(inputs)
    return seen, found


def test_forced_to_an_exit_runs_nothing_behind_it(tiny_artifact: Write) -> None:
    artifact = open_artifact(tiny_artifact())

    def first_only(segment: Segment) -> Graph:
        if segment is artifact.manifest.segments[0]:
            return load(artifact.file(segment), segment, threads=1, device="cpu")
        return lambda tensors: pytest.fail(f"{segment.file} ran on {len(tensors)} tensors")

    assert array_cascade(artifact, first_only).forced(inputs_of(3), 0).exit_index.tolist() == [0, 0, 0]


def test_other_rows_do_not_matter(tiny_artifact: Write) -> None:
    engine = open_engine(tiny_artifact(policy=(0.7, 0.7)), threads=1)
    inputs = inputs_of(32)
    alone = engine(inputs)
    order = np.random.default_rng(3).permutation(32)
    shuffled = engine(np.concatenate([inputs[order], inputs_of(7, seed=9)]))
    np.testing.assert_array_equal(shuffled.exit_index[:32], alone.exit_index[order])
    np.testing.assert_allclose(shuffled.outputs[:32], alone.outputs[order], atol=1e-5)


@pytest.mark.parametrize(("layout", "policy"), [("cascade", (0.7, 0.7)), ("cascade", None), ("single", None)])
def test_a_batch_of_nothing(tiny_artifact: Write, layout: str, policy: tuple[float, ...] | None) -> None:
    engine = open_engine(tiny_artifact(layout, policy), threads=1)
    nothing = np.empty((0, 1, 4, 4), np.float32)
    assert engine(nothing).outputs.shape == (0, 3)
    assert engine(nothing).exit_index.shape == (0,)
    assert engine.exits(nothing).shape == (len(engine.exit_names), 0, 3)
    assert engine.forced(nothing, 0).outputs.shape == (0, 3)
    assert np.asarray(engine.preprocess([])).shape == (0, 1, 4, 4)


def test_a_confidence_that_is_nan_leaves_only_at_the_last_exit(tiny_artifact: Write) -> None:
    engine = open_engine(tiny_artifact(policy=(0.0, 0.0)), threads=1)
    inputs = inputs_of(3)
    inputs[1] = np.nan
    found = engine(inputs)
    assert found.exit_index.tolist() == [0, 2, 0]
    assert np.isnan(found.outputs).any(axis=1).tolist() == [False, True, False]


def test_inputs_and_earlier_answers_are_never_written_to(tiny_artifact: Write) -> None:
    engine = open_engine(tiny_artifact(policy=(0.7, 0.7)), threads=1)
    inputs = inputs_of(16)
    kept = inputs.copy()
    first = engine(inputs)
    logits = first.outputs.copy()
    engine(inputs_of(16, seed=5))
    np.testing.assert_array_equal(inputs, kept)
    np.testing.assert_array_equal(first.outputs, logits)


def test_strided_and_read_only_inputs_are_as_good(tiny_artifact: Write) -> None:
    engine = open_engine(tiny_artifact(policy=(0.7, 0.7)), threads=1)
    wide = inputs_of(8)
    strided = np.repeat(wide, 2, axis=3)[..., ::2]
    strided.flags.writeable = False
    assert not strided.flags.c_contiguous
    np.testing.assert_array_equal(engine(strided).outputs, engine(wide).outputs)


def test_four_threads_at_once(tiny_artifact: Write) -> None:
    engine = open_engine(tiny_artifact(policy=(0.6, 0.7)), threads=1)
    batches = [inputs_of(1 + seed % 23, seed) for seed in range(200)]
    expected = [engine(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(engine, batches * 3))
    for one, other in zip(found, expected * 3, strict=True):
        np.testing.assert_array_equal(one.exit_index, other.exit_index)
        np.testing.assert_array_equal(one.outputs, other.outputs)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (np.zeros((2, 1, 4, 4), np.uint8), "engine.preprocess"),
        (np.zeros((2, 1, 4, 4)), r"astype\(numpy.float32\)"),
        (np.zeros((1, 4, 4), np.float32), r"inputs\[None\]"),
        (np.zeros((2, 4, 4, 1), np.float32), r"float32 of shape \[B, 1, 4, 4\]"),
        (np.zeros((2, 3, 4, 4), np.float32), r"\[2, 3, 4, 4\]"),
        ([[0.0]], "a list, not an array"),
    ],
)
def test_wrong_inputs_say_what_is_right(tiny_artifact: Write, inputs: Any, said: str) -> None:
    engine = open_engine(tiny_artifact(), threads=1)
    for call in (engine, engine.exits, lambda wrong: engine.forced(wrong, 0)):
        with pytest.raises(InputError, match=said):
            call(inputs)


@pytest.mark.parametrize("exit_", [3, -4])
def test_an_exit_that_is_not_there(tiny_artifact: Write, exit_: int) -> None:
    engine = open_engine(tiny_artifact(), threads=1)
    with pytest.raises(InputError, match=r"0 \(exit1\), 1 \(exit2\), 2 \(final\)"):
        engine.forced(inputs_of(1), exit_)


def test_the_cost_of_an_exit_is_the_sum_of_what_ran(tiny_artifact: Write) -> None:
    cascade = open_engine(tiny_artifact(), threads=1).exit_costs
    first = 16 * 6 + 6 * 3
    second = 6 * 8 + 16 * 8 + 8 * 3
    third = 8 * 3 + 16 * 3
    assert [cost.macs for cost in cascade] == [first, first + second, first + second + third]
    everything = open_engine(tiny_artifact("all"), threads=1).exit_costs
    assert [cost.macs for cost in everything] == [first + second + third] * 3


def test_a_deadline_costs_nothing_where_every_exit_is_computed_already(tiny_artifact: Write, now: list[int]) -> None:
    network = _slowly(open_artifact(tiny_artifact("all")), 20, now)
    assert network(inputs_of(2), deadline_ms=5).exit_index.tolist() == [2, 2]


def test_a_deadline_counts_the_rows_that_will_run(tiny_artifact: Write) -> None:
    # 2 ms a row and stage; moving rows never pays at the first exit, so that all 64 rows go on with whoever is left
    times = StageTimes(rows=(1, 64), ms=((2.0, 128.0),) * 3, move_ms=(1e3, 1e3))
    network = open_engine(tiny_artifact(policy=(0.6, 0.6), stage_times=times), threads=1)
    assert set(network(inputs_of(64), deadline_ms=100).exit_index.tolist()) == {0}


@pytest.mark.parametrize("batch", [0, 3])
@pytest.mark.parametrize(
    "temperatures",
    [(), (1.0,), (1.0, 1.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, -2.0, 1.0), (1.0, float("nan"), 1.0), (1.0, 1.0, np.inf)],
)
def test_temperatures_are_one_number_above_0_for_each_exit(
    tiny_artifact: Write, temperatures: tuple[float, ...], batch: int
) -> None:
    engine = open_engine(tiny_artifact(), threads=1)
    with pytest.raises(InputError, match="temperatures") as caught:
        engine.signals(inputs_of(batch), temperatures)
    assert caught.value.allowed.startswith("3 finite numbers above 0")
    assert len(engine.signals(inputs_of(batch), np.array([0.5, 1.0, 2.0]))) == 3  # type: ignore[arg-type]
