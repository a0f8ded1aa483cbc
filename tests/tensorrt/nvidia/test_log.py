"""What is kept of a log, and what is made of a factory that makes nothing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from sdcompress.errors import DeviceError, SetupError
from sdcompress.tensorrt.nvidia.log import Log, create, dispatch, failure, require


def test_warnings_and_worse_are_kept_apart_and_verbose_lines_nowhere() -> None:
    log = Log()
    for severity, text in enumerate(("internal", "error", "warning", "info", "verbose")):
        log.log(severity, text)
    log.note("ours")
    assert list(log.lines) == ["[F] internal", "[E] error", "[W] warning"]
    assert list(log.all_lines) == [*log.lines, "[I] info", "ours"]


def test_the_reason_is_the_last_errors_else_the_last_warnings() -> None:
    log = Log()
    assert log.reason() == "TensorRT gives no reason"
    log.log(2, "a warning")
    assert log.reason() == "[W] a warning"
    for number in range(5):
        log.log(1, str(number))
    assert log.reason() == "[E] 2 | [E] 3 | [E] 4"


def test_every_log_receives_the_only_logger_and_none_keeps_another_alive() -> None:
    first, second = Log(), Log()
    dispatch(1, "one")
    del first
    third = Log()
    dispatch(1, "two")
    assert list(second.lines) == ["[E] one", "[E] two"]
    assert list(third.lines) == ["[E] two"]


def test_an_engine_that_runs_for_months_keeps_the_last_lines_only() -> None:
    log = Log(3)
    for number in range(5):
        log.log(2, str(number))
        log.log(3, "said")
    assert list(log.lines) == ["[W] 2", "[W] 3", "[W] 4"]
    assert len(log.all_lines) == 3


def test_it_is_heard_from_any_thread_while_logs_come_and_go() -> None:
    log = Log(10)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: (Log(1), dispatch(1, str(number)), log.reason()), range(2000)))
    assert len(log.lines) == 10


def test_what_is_not_done_is_an_error_whether_it_is_false_or_raised() -> None:
    log = Log()
    log.log(1, "profile 7 does not exist")

    def refuse() -> bool:
        raise RuntimeError("Error in set optimization profile async.")  # as the bindings turn false into

    require(lambda: None, log, "do nothing")
    require(lambda: True, log, "do something")
    for call in (refuse, lambda: False):
        with pytest.raises(SetupError, match=r"cannot use profile 7: .*profile 7 does not exist") as caught:
            require(call, log, "use profile 7", next_step="build again")
        assert caught.value.next_step == "build again"


def null() -> int:
    raise TypeError("pybind11::init(): factory function returned nullptr")  # as TensorRT 8.5.3.1 says without a GPU


def nothing() -> None:
    return None


@pytest.mark.parametrize("make", [null, nothing])
def test_a_factory_without_a_result_is_an_error_with_the_logs_reason(make: Callable[[], int | None]) -> None:
    log = Log()
    log.log(2, "CUDA initialization failure with error: 35")
    with pytest.raises(SetupError, match=r"cannot make a builder: .*error: 35") as caught:
        create(make, log, "a builder")
    assert "doctor" in caught.value.next_step


def test_another_type_error_is_a_bug_and_stays_one() -> None:
    def wrong() -> int:
        raise TypeError("incompatible constructor arguments")

    with pytest.raises(TypeError, match="incompatible"):
        create(wrong, Log(), "a builder")


def test_the_result_of_a_factory_is_returned() -> None:
    assert create(lambda: 3, Log(), "a number") == 3


def test_a_lack_of_memory_is_told_from_other_failures() -> None:
    """With the messages of TensorRT 10.13 and 8.6 (issues of NVIDIA/TensorRT); they are the only sign of it."""
    log = Log()
    log.log(1, "Error Code 4: Internal Error (kernel)")
    assert type(failure("TensorRT cannot load 'a.plan'", log, next_step="build")) is SetupError
    for message in (
        "[executionContext.cpp::625] Error Code 2: OutOfMemory (Requested size was 9 bytes.)",
        "[defaultAllocator.cpp::allocate::19] Error Code 1: Cuda Runtime (out of memory)",
    ):
        log = Log()
        log.log(1, message)
        with pytest.raises(DeviceError, match=r"cannot make an execution context: .*emory") as caught:
            create(nothing, log, "an execution context")
        assert "smaller batches" in caught.value.next_step
