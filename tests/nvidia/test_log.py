"""What is kept of a log, and what is made of a factory that makes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sdcompress.errors import SetupError
from sdcompress.nvidia.log import Log, created


def test_warnings_and_worse_are_kept_apart_and_verbose_lines_nowhere() -> None:
    log = Log()
    for severity, text in enumerate(("internal", "error", "warning", "info", "verbose")):
        log.log(severity, text)
    log.note("ours")
    assert log.lines == ["[F] internal", "[E] error", "[W] warning"]
    assert log.everything == [*log.lines, "[I] info", "ours"]


def test_the_reason_is_the_last_errors_else_the_last_warnings() -> None:
    log = Log()
    assert log.reason() == "TensorRT gives no reason"
    log.log(2, "a warning")
    assert log.reason() == "[W] a warning"
    for number in range(5):
        log.log(1, str(number))
    assert log.reason() == "[E] 2 | [E] 3 | [E] 4"


def null() -> int:
    raise TypeError("pybind11::init(): factory function returned nullptr")  # as TensorRT 8.5.3.1 says without a GPU


def nothing() -> None:
    return None


@pytest.mark.parametrize("make", [null, nothing])
def test_a_factory_that_makes_nothing_is_an_error_with_the_logs_reason(make: Callable[[], int | None]) -> None:
    log = Log()
    log.log(2, "CUDA initialization failure with error: 35")
    with pytest.raises(SetupError, match=r"cannot make a builder: .*error: 35") as caught:
        created(make, log, "a builder")
    assert "doctor" in caught.value.next_step


def test_another_type_error_is_a_bug_and_stays_one() -> None:
    def wrong() -> int:
        raise TypeError("incompatible constructor arguments")

    with pytest.raises(TypeError, match="incompatible"):
        created(wrong, Log(), "a builder")


def test_what_was_made_is_returned() -> None:
    assert created(lambda: 3, Log(), "a number") == 3
