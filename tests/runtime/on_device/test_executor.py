"""The executor of a device, in the host's memory: the same answers as arrays, and only the copies that it promises."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from host_device import HostDevice, HostProgram
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from sdcompress.artifact.execution_target import ExecutionTarget
from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.errors import ArtifactError, InputError
from sdcompress.runtime.backends.onnxruntime import load
from sdcompress.runtime.cascade import CascadeEngine, array_cascade
from sdcompress.runtime.on_device import memory
from sdcompress.runtime.on_device.buckets import buckets
from sdcompress.runtime.on_device.device import DeviceArray, TensorSpec
from sdcompress.runtime.on_device.executor import DeviceExecutor
from sdcompress.schema.engines import BatchProfile
from sdcompress.schema.manifest import Segment, StageTimes, Tensor

Write = Callable[..., Path]
LEVELS = st.sampled_from([0.0, 0.34, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 1.0, 2.0])
SIZES = st.lists(st.integers(1, 24), min_size=1, max_size=4, unique=True).map(sorted)
WEIGHTS = [[0.1, 0.5, -0.8, 0.6, 0.0], [-0.4, 0.5, -0.2, 0.3, 0.9]]


def inputs_of(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, 1, 4, 4)).astype(np.float32)


class OnHost:
    """A network on a host device, and what it did there."""

    def __init__(
        self, artifact: Artifact, sizes: list[int], *, late: bool = True, types: dict[str, str] | None = None
    ) -> None:
        profiles = [BatchProfile(min=size, opt=size, max=size) for size in sizes]  # one bucket each
        self.device = HostDevice(late=late)
        self.programs = [HostProgram(self.device, s, graph(artifact, s), types) for s in artifact.manifest.segments]
        self.executor = DeviceExecutor(
            self.device, artifact.manifest, self.programs, buckets(profiles), ExecutionTarget("host", "cpu")
        )
        self.network = CascadeEngine(artifact.manifest, self.executor, artifact.modality)


def graph(artifact: Artifact, segment: Segment) -> Any:
    return load(artifact.file(segment), segment, threads=1, device="cpu")


def arrays(artifact: Artifact) -> CascadeEngine:
    return array_cascade(artifact, lambda segment: graph(artifact, segment))


@pytest.fixture
def artifact_of(tiny_artifact: Write) -> Callable[..., Artifact]:
    """Opens the artifact of these arguments; the same ones are written once."""
    made: dict[str, Artifact] = {}

    def of(layout: str, **fields: Any) -> Artifact:
        name = f"{layout}-{fields}".translate(str.maketrans(" '{}[]():,", "_" * 10))
        if name not in made:
            made[name] = open_artifact(tiny_artifact(layout, name=name, **fields))
        return made[name]

    return of


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize(("layout", "signals"), [("cascade", True), ("cascade", False), ("all", False)])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.integers(1, 40),
    thresholds=st.tuples(LEVELS, LEVELS),
    temperature=st.sampled_from([1.0, 3.0]),
    sizes=SIZES,
    learned=st.booleans(),
    seed=st.integers(0, 10_000),
)
@example(batch=17, thresholds=(0.6, 0.6), temperature=1.0, sizes=[1, 4, 8, 16, 24], learned=False, seed=0)
@example(batch=40, thresholds=(0.6, 0.6), temperature=1.0, sizes=[16], learned=True, seed=0)  # in parts
@example(batch=8, thresholds=(0.0, 2.0), temperature=1.0, sizes=[8], learned=False, seed=0)  # all leave at once
@example(batch=1, thresholds=(2.0, 2.0), temperature=1.0, sizes=[24], learned=False, seed=0)  # below the smallest
def test_every_batch_exit_mix_and_set_of_buckets_gives_what_arrays_give(
    *,
    artifact_of: Callable[..., Artifact],
    layout: str,
    signals: bool,
    late: bool,
    batch: int,
    thresholds: tuple[float, float],
    temperature: float,
    sizes: list[int],
    learned: bool,
    seed: int,
) -> None:
    kind = {"kind": "learned", "parameters": {"weights": WEIGHTS}} if learned else {}
    temperatures = (1.0, temperature, 1.0)
    artifact = artifact_of(layout, policy=thresholds, temperatures=temperatures, signals=signals, **kind)
    usual, host = arrays(artifact), OnHost(artifact, sizes, late=late).network
    inputs = inputs_of(batch, seed)
    _assume_clear(usual, inputs, thresholds)
    expected, actual = usual(inputs), host(inputs)
    assert actual.exit_index.tolist() == expected.exit_index.tolist()
    np.testing.assert_allclose(actual.outputs, expected.outputs, atol=1e-5)
    np.testing.assert_allclose(host.exits(inputs), usual.exits(inputs), atol=1e-5)
    for mine, other in zip(host.signals(inputs), usual.signals(inputs), strict=True):
        np.testing.assert_allclose(mine["max_prob"], other["max_prob"], atol=1e-5)
        assert mine.decision.dtype == np.int64
        assert mine.decision.tolist() == other.decision.tolist()
    for exit_ in range(3):
        np.testing.assert_allclose(host.forced(inputs, exit_).outputs, usual.forced(inputs, exit_).outputs, atol=1e-5)


def _assume_clear(network: CascadeEngine, inputs: np.ndarray, thresholds: tuple[float, float]) -> None:
    """No score on its threshold: sums of another batch size may round otherwise."""
    from sdcompress.policies import restore, scores

    policy = network.manifest.policy
    assert policy is not None
    found = scores(restore(policy.name, policy.parameters, network.task), network.signals(inputs))
    assume(np.abs(found - np.float32(thresholds)[:, None]).min() > 1e-6)


def test_only_signals_and_the_logits_of_exiting_rows_are_downloaded(tiny_artifact: Write) -> None:
    host = OnHost(open_artifact(tiny_artifact(policy=(0.6, 0.6))), [1, 8, 64])
    downloads: list[int] = []
    download, host.device.download = (
        host.device.download,
        lambda array, start: (  # type: ignore[method-assign]
            downloads.append(array.nbytes),
            download(array, start),
        ),
    )
    waits: list[int] = []
    finish = host.device.finish
    host.device.finish = lambda: (waits.append(1), finish())  # type: ignore[method-assign]
    prediction = host.network(inputs_of(64))
    assert len(waits) == 3  # once for each exit
    active = [64, int((prediction.exit_index > 0).sum()), int((prediction.exit_index > 1).sum())]
    assert 64 > active[1] > active[2] > 0
    allocated = [64, *(rows if host.executor.rows(rows) < 64 else 64 for rows in active[1:])]
    # values and answers lie side by side: 64 rows of 12 bytes, then int64; logits are 12 bytes a row
    assert downloads == [
        768 + 8 * allocated[0],
        12 * allocated[0],
        768 + 8 * allocated[1],
        12 * allocated[1],
        12 * allocated[2],
    ]


def test_rows_move_only_where_the_next_bucket_is_smaller(tiny_artifact: Write) -> None:
    artifact = open_artifact(tiny_artifact(policy=(0.6, 2.0)))
    inputs = inputs_of(64)
    left = int((arrays(artifact)(inputs).exit_index > 0).sum())
    assert 8 < left < 64
    fits, too_large = OnHost(artifact, [left, 64]), OnHost(artifact, [left - 1, 64])
    for host in (fits, too_large):
        assert (host.network(inputs).exit_index > 0).sum() == left
    assert [program.rows_run for program in fits.programs] == [[64], [left], [left]]
    assert [program.rows_run for program in too_large.programs] == [[64], [64], [64]]
    assert too_large.device.moved == []
    # the network's input (64 bytes a row) and 'hidden' (24) go on; as many rows move as left in front of the last ones
    moved = sum(fits.device.moved)
    assert 0 < moved <= (64 - left) * (64 + 24)
    assert moved % (64 + 24) == 0


def test_measured_times_are_those_of_buckets(tiny_artifact: Write) -> None:
    times = StageTimes(rows=(1, 64), ms=((1.0, 64.0),) * 3, move_ms=(1e3, 1e-3))
    artifact = open_artifact(tiny_artifact(policy=(0.6, 2.0), stage_times=times))
    host = OnHost(artifact, list(range(1, 65)))
    host.network(inputs_of(64))
    assert [program.rows_run[0] for program in host.programs][:2] == [64, 64]
    assert host.programs[2].rows_run[0] < 64


def test_a_deadline_ends_a_part_of_a_batch_where_it_is(tiny_artifact: Write) -> None:
    host = OnHost(open_artifact(tiny_artifact(policy=(2.0, 2.0))), [4])  # stages of 1 ms
    assert host.network(inputs_of(9), deadline_ms=0.0).exit_index.tolist() == [0] * 9
    assert host.network(inputs_of(9), deadline_ms=1e6).exit_index.tolist() == [2] * 9


def test_answers_are_the_callers_own(tiny_artifact: Write) -> None:
    host = OnHost(open_artifact(tiny_artifact(policy=(0.6, 0.6))), [8]).network
    first, signals, exits = host(inputs_of(8)), host.signals(inputs_of(8)), host.exits(inputs_of(8))
    forced, copies = (
        host.forced(inputs_of(8), 1),
        [first.outputs.copy(), signals[0]["max_prob"].copy(), exits.copy()],
    )
    kept = forced.outputs.copy()
    host(inputs_of(8, seed=5)), host.exits(inputs_of(8, seed=6))
    for mine, before in zip(
        [first.outputs, signals[0]["max_prob"], exits, forced.outputs], [*copies, kept], strict=True
    ):
        np.testing.assert_array_equal(mine, before)


def test_calls_of_several_threads_wait_for_each_other(tiny_artifact: Write) -> None:
    host = OnHost(open_artifact(tiny_artifact(policy=(0.6, 0.6))), [4, 16]).network
    batches = [inputs_of(1 + seed % 16, seed) for seed in range(64)]
    expected = [host(batch) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        for one, other in zip(expected, threads.map(host, batches), strict=True):
            np.testing.assert_array_equal(one.outputs, other.outputs)
            np.testing.assert_array_equal(one.exit_index, other.exit_index)


def test_a_call_that_fails_leaves_the_queue_empty_and_the_lock_free(tiny_artifact: Write) -> None:
    host = OnHost(open_artifact(tiny_artifact(policy=(2.0, 2.0))), [4])
    launch = host.executor._launches[0][1]

    def broken() -> None:
        raise RuntimeError("a kernel")

    host.executor._launches[0][1] = broken
    with pytest.raises(RuntimeError, match="a kernel"):
        host.network(inputs_of(3))
    host.executor._launches[0][1] = launch
    assert host.device._queue == []
    assert host.network(inputs_of(3)).exit_index.tolist() == [2, 2, 2]


def test_the_memory_of_a_chain_goes_with_it_without_a_collection(tiny_artifact: Write) -> None:
    host = OnHost(open_artifact(tiny_artifact(policy=(0.6, 0.6))), [4])
    host.network(inputs_of(3))
    executor, program = weakref.ref(host.executor), weakref.ref(host.programs[0])
    gc.disable()
    try:
        del host
        assert (executor(), program()) == (None, None)
    finally:
        gc.enable()


def test_an_array_on_the_device_is_taken_as_it_is(tiny_artifact: Write) -> None:
    host = OnHost(open_artifact(tiny_artifact(policy=(0.6, 0.6))), [4])
    inputs = inputs_of(9)
    on_device = DeviceArray(inputs.ctypes.data, inputs.shape, inputs.dtype, inputs)
    expected, prediction = host.network(inputs), host.network(on_device)
    np.testing.assert_array_equal(expected.outputs, prediction.outputs)
    assert len(host.network(on_device[:0]).outputs) == 0
    with pytest.raises(InputError, match=r"float64 of the shape \[9, 1, 4, 4\], on the device"):
        host.network(DeviceArray(0, inputs.shape, np.dtype("float64"), None))
    with pytest.raises(InputError, match="a list, not an array"):
        host.network([1.0])


def test_arrays_on_the_device_of_different_numbers_of_rows_are_refused(tiny_artifact: Write) -> None:
    executor = OnHost(open_artifact(tiny_artifact()), [4]).executor
    tensors = tuple(Tensor(name=name, dtype="float32", shape=("batch", 2)) for name in ("a", "b"))
    executor._modality = SimpleNamespace(tensors=tensors)
    rows = {name: np.zeros((count, 2), np.float32) for name, count in (("a", 3), ("b", 2))}
    executor.memory = executor.memory._replace(staging=rows)
    on_device = {name: DeviceArray(a.ctypes.data, a.shape, a.dtype, a) for name, a in rows.items()}
    with pytest.raises(InputError, match=r"different numbers of rows: {'a': 3, 'b': 2}"):
        executor.checked(on_device)
    assert len(executor.checked({"a": on_device["a"][:2], "b": on_device["b"]})) == 2


def test_warming_up_runs_every_stage_twice_in_every_bucket(tiny_artifact: Write) -> None:
    artifact = open_artifact(tiny_artifact())
    host = OnHost(artifact, [1, 8])
    host.executor.warm_up()
    assert [program.rows_run for program in host.programs] == [[1, 8, 1, 8]] * 3
    moved = host.network.move_ms(0)
    assert moved is not None
    assert moved > 0
    assert OnHost(artifact, [1]).network.move_ms(0) is None


def test_tensors_of_other_types_come_out_as_the_contract_says(tiny_artifact: Write) -> None:
    artifact = open_artifact(tiny_artifact(policy=(0.6, 0.6)))
    signals = artifact.manifest.exits[0].signals
    assert signals is not None
    # TensorRT 8 has no int64, and FP16 engines may hand on and answer in float16
    types = {signals.decision: "int32", signals.values: "float16", "hidden": "float16", "final_outputs": "float16"}
    host, usual, inputs = OnHost(artifact, [8, 64], types=types).network, arrays(artifact), inputs_of(50)
    actual, exits = host(inputs), host.exits(inputs)
    assert actual.outputs.dtype == exits.dtype == np.float32
    assert actual.exit_index.dtype == np.int64
    np.testing.assert_allclose(exits, usual.exits(inputs), atol=2e-2)
    for mine, other in zip(host.signals(inputs), usual.signals(inputs), strict=True):
        assert (mine["max_prob"].dtype, mine.decision.dtype) == (np.float32, np.int64)
        np.testing.assert_allclose(mine["max_prob"], other["max_prob"], atol=2e-2)


def test_engines_that_do_not_fit_each_other_are_refused(tiny_artifact: Write) -> None:
    artifact = open_artifact(tiny_artifact())
    host = OnHost(artifact, [4])
    host.programs[1].inputs["hidden"] = TensorSpec(np.dtype(np.float16), (6,))
    again = (host.device, artifact.manifest, host.programs, host.executor.buckets, ExecutionTarget("host", "cpu"))
    with pytest.raises(ArtifactError, match=r"Engine 1 takes 'hidden' as float16 \['batch', 6\]") as caught:
        DeviceExecutor(*again)
    assert "float32 ['batch', 6], as it is made" in str(caught.value)
    assert "sdcompress build-engines" in str(caught.value)
    host.programs[1].inputs["hidden"], kept = (
        host.programs[0].outputs["hidden"],
        dict(host.programs[0].outputs),
    )
    host.programs[0].outputs["hidden"] = TensorSpec(np.dtype(np.float32), (-1,))
    with pytest.raises(ArtifactError, match=r"'hidden' of engine 0 has the shape \['batch', -1\]"):
        DeviceExecutor(*again)
    host.programs[0].outputs.clear()
    host.programs[0].outputs.update(kept)
    del host.programs[0].outputs["hidden"]
    with pytest.raises(ArtifactError, match="Engine 0 has the inputs"):
        DeviceExecutor(*again)


def test_all_work_is_queued_and_awaited_while_the_device_is_the_threads(tiny_artifact: Write) -> None:
    """CUDA takes kernels for the current GPU alone, and other code of the thread may have chosen another one."""
    host, within = OnHost(open_artifact(tiny_artifact(policy=(0.6, 0.6))), [1, 8, 64]), [0]
    queue, finish = host.device.queue, host.device.finish

    @contextmanager
    def current() -> Iterator[None]:
        within.append(1)
        yield
        within.pop()

    def checked_queue(work: Callable[[], object]) -> None:
        assert within[-1]
        queue(work)

    def checked_finish() -> None:
        assert within[-1]
        finish()

    host.device.current, host.device.queue, host.device.finish = current, checked_queue, checked_finish  # type: ignore[method-assign]
    host.executor.warm_up()
    assert host.network.move_ms(0) is not None
    assert len(host.network(inputs_of(20)).outputs) == 20
    assert within == [0]


def test_programs_without_int64_take_the_networks_integers_as_int32(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the categories of tables in TensorRT 8; what is staged is cast, and an array on the device must be int32."""
    listed = Tensor(name="categories", dtype="int64", shape=("batch", 3))
    monkeypatch.setattr(memory, "modality_of", lambda _: SimpleNamespace(tensors=(listed,)))
    segment = SimpleNamespace(inputs=(listed,), outputs=())
    narrow, wide = TensorSpec(np.dtype(np.int32), (3,)), TensorSpec(np.dtype(np.int64), (3,))

    def specs(*taken: TensorSpec) -> dict[str, TensorSpec]:
        programs: Any = [SimpleNamespace(inputs={"categories": spec}, outputs={}) for spec in taken]
        manifest: Any = SimpleNamespace(segments=[segment] * len(taken))
        return memory.tensor_specs(manifest, programs)

    assert specs(narrow, narrow) == {"categories": narrow}
    assert specs(wide, wide) == {"categories": wide}
    int16, four = narrow._replace(dtype=np.dtype(np.int16)), narrow._replace(row=(4,))
    for taken in ((narrow, wide), (wide, narrow), (int16,), (four,)):
        with pytest.raises(ArtifactError, match="takes 'categories' as"):
            specs(*taken)
