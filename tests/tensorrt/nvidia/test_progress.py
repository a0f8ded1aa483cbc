"""Phases of a build as one share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sdcompress.tensorrt.nvidia.progress import RESOLUTION, BuildProgress

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.sampled_from("abc"), st.sampled_from([None, "a", "b"]), st.integers(0, 5)),
        st.tuples(st.just("step"), st.sampled_from("abc"), st.integers(0, 5)),
        st.tuples(st.just("finish"), st.sampled_from("abc")),
    ),
    max_size=30,
)


def test_steps_of_an_inner_phase_are_parts_of_a_step_of_the_outer() -> None:
    reports: list[int] = []
    phases = BuildProgress(reports.append)
    phases.phase_start("build", None, 2)
    phases.phase_start("tactics", "build", 4)
    assert phases.step_complete("tactics", 0)
    phases.step_complete("tactics", 3)
    phases.phase_finish("tactics")
    phases.step_complete("build", 0)
    phases.step_complete("build", 1)
    phases.phase_finish("build")
    assert reports == [RESOLUTION // 8, RESOLUTION // 2, RESOLUTION]


@given(EVENTS)
def test_whatever_the_order_it_rises_stays_within_bounds_and_raises_nothing(events: list[tuple]) -> None:
    reports: list[int] = []
    phases = BuildProgress(reports.append)
    for kind, *rest in events:
        if kind == "start" and rest[0] != rest[1]:
            phases.phase_start(*rest)
        elif kind == "step":
            assert phases.step_complete(*rest) is True
        elif kind == "finish":
            phases.phase_finish(*rest)
    assert reports == sorted(set(reports))
    assert all(0 < part <= RESOLUTION for part in reports)


def test_an_exception_of_the_callback_only_stops_the_build() -> None:
    def fail(_part: int) -> None:
        raise BrokenPipeError

    phases = BuildProgress(fail)
    phases.phase_start("build", None, 2)
    assert phases.step_complete("build", 0) is False
    assert isinstance(phases.failed, BrokenPipeError)


def test_it_stops_on_request() -> None:
    phases = BuildProgress(lambda _part: None, lambda: True)
    phases.phase_start("build", None, 2)
    assert phases.step_complete("build", 0) is False
