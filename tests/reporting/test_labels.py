"""Names never lie on each other."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from sdcompress.reporting._figure import Label, _spread, beside_points, name_lines, shortened


def test_names_of_points_that_almost_touch_do_not_overlap() -> None:
    figure = Figure(figsize=(460 / 72, 400 / 72), dpi=72, layout="constrained")
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.subplots()
    axes.set_xlim(0, 5)
    axes.set_ylim(80, 95)
    names = ["one", "two", "a long name of three", "four"]
    beside_points(axes, [Label(name, 4.4 + 0.01 * i, 92 + 0.1 * i, "black") for i, name in enumerate(names)])
    figure.draw_without_rendering()
    texts = [child for child in axes.get_children() if isinstance(child, Annotation)]
    boxes = [text.get_window_extent(renderer) for text in texts]
    assert [text.get_text() for text in texts] == names
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    frame = axes.get_window_extent(renderer)
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)


def test_far_heights_stay_and_near_ones_are_centred() -> None:
    assert _spread([0.0, 100.0], gap=10.0) == [0.0, 100.0]
    assert _spread([10.0, 10.0, 10.0], gap=10.0) == [0.0, 10.0, 20.0]


@settings(max_examples=50)
@given(st.lists(st.floats(0, 300), min_size=1, max_size=10))
def test_heights_keep_their_order_and_their_distance(wanted: list[float]) -> None:
    heights = _spread(sorted(wanted), gap=13.0)
    assert len(heights) == len(wanted)
    assert all(b - a >= 13.0 - 1e-6 for a, b in itertools.pairwise(heights))
    assert abs(sum(heights) - sum(wanted)) < 1e-6 * max(1.0, sum(wanted))  # moved apart, not away


def test_of_a_long_name_both_ends_stay() -> None:
    assert shortened("abcdefgh", 8) == "abcdefgh"
    assert shortened("abcdefghi", 8) == "abcd…ghi"
    assert shortened("abcdefghi", 7) == "abc…ghi"


def test_long_names_of_lines_leave_room_for_the_axes() -> None:
    figure = Figure(figsize=(460 / 72, 120 / 72), dpi=72, layout="constrained")
    axes = figure.subplots()
    name_lines(axes, ["n" * 60])
    figure.draw_without_rendering()
    assert axes.get_position().width > 0.4
