"""CUDA's layer: what an error says, and (-m gpu) memory, order, events and captures on a real GPU."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from sdcompress.errors import DeviceError, SetupError
from sdcompress.tensorrt.nvidia.cuda import Cuda, _gc_disabled, check_result, first_gpu, load_runtime
from sdcompress.tensorrt.nvidia.gpu_query import probe_cuda


def test_without_a_driver_there_is_no_runtime() -> None:
    try:
        probe_cuda()
    except SetupError as error:
        message = error.problem
    else:
        pytest.skip("there is a GPU here")
    with pytest.raises(SetupError) as caught:
        load_runtime()
    assert caught.value.problem == message


def test_an_error_has_its_name_and_the_failed_action() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    code = runtime.cudaError_t
    assert check_result(runtime, (code.cudaSuccess,), "waiting") == ()
    assert check_result(runtime, (code.cudaSuccess, 7), "waiting") == 7
    assert check_result(runtime, (code.cudaSuccess, 7, 8), "waiting") == (7, 8)
    with pytest.raises(DeviceError, match="CUDA failed while copying: cudaErrorIllegalAddress") as caught:
        check_result(runtime, (code.cudaErrorIllegalAddress,), "copying")
    assert "new process" in caught.value.next_step
    with pytest.raises(DeviceError, match="cudaErrorMemoryAllocation") as caught:
        check_result(runtime, (code.cudaErrorMemoryAllocation, None), "allocating 8 bytes on the GPU")
    assert "sdcompress build-engines ARTIFACT --batch" in caught.value.next_step
    with pytest.raises(DeviceError, match="pinning") as caught:
        check_result(runtime, (code.cudaErrorMemoryAllocation, None), "pinning 8 bytes", memory_step="buy some")
    assert caught.value.next_step == "buy some"


def test_the_real_bindings_take_every_call_as_it_is_made_and_the_driver_is_what_is_missing() -> None:
    """Arguments are converted before the driver is asked, so that a wrong type would be another error."""
    runtime = pytest.importorskip("cuda.bindings.runtime")
    try:
        probe_cuda()
    except SetupError:
        pass
    else:
        pytest.skip("there is a GPU here, and addresses of nothing would end this process")
    with pytest.raises(SetupError, match="while choosing the GPU: cudaErrorInsufficientDriver"):
        Cuda(runtime)
    cuda, kinds, host = Cuda.__new__(Cuda), runtime.cudaMemcpyKind, np.zeros(16, np.uint8)
    cuda._rt, cuda._mode = runtime, runtime.cudaStreamCaptureMode
    cuda._up, cuda._down = kinds.cudaMemcpyHostToDevice, kinds.cudaMemcpyDeviceToHost
    cuda._within, cuda._stream, cuda._event = (
        kinds.cudaMemcpyDeviceToDevice, runtime.cudaStream_t(0), runtime.cudaEvent_t(0)
    )  # fmt: skip
    cuda._blocks, cuda._host, cuda._graphs, cuda._events, cuda._closed = [], [], [], [], False
    calls = [
        lambda: cuda.alloc(16), lambda: cuda.pinned(16), lambda: cuda.upload(4096, host),
        lambda: cuda.download(host, 4096), lambda: cuda.copy(8192, 4096, 16), cuda.finish, lambda: cuda.wait_for(1),
        cuda.wait_for_all, cuda.current().__enter__, cuda.event, lambda: cuda.record(cuda._event),
        lambda: cuda.elapsed_ms(cuda._event, cuda._event), lambda: cuda.capture(lambda: None),
        lambda: cuda.launch(runtime.cudaGraphExec_t(0)),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(SetupError, match="cudaErrorInsufficientDriver"):
            call()
    cuda.close()


@pytest.mark.parametrize(("before", "set_to"), [(0, []), (1, [0, 1])])
def test_a_thread_has_its_own_gpu_again_also_after_an_error(before: int, set_to: list[int]) -> None:
    """Only which calls are made; what they do, no machine without two GPUs can tell."""
    calls: list[int] = []
    runtime = SimpleNamespace(cudaGetDevice=lambda: (0, before), cudaSetDevice=lambda gpu: (calls.append(gpu), (0,))[1])
    with first_gpu(runtime):
        assert calls == set_to[:1]
    assert calls == set_to
    with pytest.raises(KeyError), first_gpu(runtime):
        raise KeyError
    assert calls == 2 * set_to


def test_nothing_is_collected_while_work_is_captured() -> None:
    assert gc.isenabled()
    with _gc_disabled():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with _gc_disabled():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.fixture
def cuda() -> Iterator[Cuda]:
    device = Cuda(load_runtime())
    yield device
    device.close()


@pytest.mark.gpu
def test_bytes_come_back_as_they_went_in_order(cuda: Cuda) -> None:
    source, target = cuda.alloc(4096), cuda.alloc(4096)
    assert source % 256 == target % 256 == 0
    sent, got, zero = cuda.pinned(4096), cuda.pinned(4096), cuda.pinned(16)
    zero[:] = 1
    cuda.download(zero, target)
    sent[:] = np.arange(4096) % 251
    cuda.upload(source, sent)
    cuda.copy(target, source + 16, 2048)
    cuda.download(got, target)
    cuda.finish()
    assert zero.tolist() == [0] * 16
    np.testing.assert_array_equal(got[:2048], sent[16:2064])
    assert not got[2048:].any()


@pytest.mark.gpu
def test_events_tell_the_time_of_what_lies_between(cuda: Cuda) -> None:
    size = 1 << 28
    source, target, marks = cuda.alloc(size), cuda.alloc(size), [cuda.event(), cuda.event()]
    cuda.record(marks[0])
    cuda.copy(target, source, size)
    cuda.record(marks[1])
    cuda.finish()
    assert 0.01 < cuda.elapsed_ms(*marks) < 1000


@pytest.mark.gpu
def test_a_graph_does_again_what_was_captured(cuda: Cuda) -> None:
    source, target, host = cuda.alloc(256), cuda.alloc(256), cuda.pinned(256)
    graph = cuda.capture(lambda: cuda.copy(target, source, 256))
    assert graph is not None
    for value in (3, 4):
        host[:] = value
        cuda.upload(source, host)
        cuda.launch(graph)
        cuda.download(host, target)
        cuda.finish()
        assert host.tolist() == [value] * 256


@pytest.mark.gpu
def test_what_cannot_be_captured_leaves_everything_as_before(cuda: Cuda) -> None:
    assert cuda.capture(cuda.finish) is None  # to wait within a capture is not permitted
    source, host = cuda.alloc(16), cuda.pinned(16)
    host[:] = 9
    cuda.upload(source, host)
    cuda.finish()
    assert cuda.capture(lambda: cuda.download(host, source)) is not None


@pytest.mark.gpu
def test_too_much_memory_is_refused_with_a_way_out(cuda: Cuda) -> None:
    with pytest.raises(SetupError, match="allocating") as caught:
        cuda.alloc(2 * probe_cuda().memory_bytes)
    assert "smaller batches" in caught.value.next_step
    cuda.alloc(16)  # and goes on


@pytest.mark.gpu
def test_closing_twice_is_no_error() -> None:
    device = Cuda(load_runtime())
    device.close()
    device.close()
