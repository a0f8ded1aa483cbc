"""The grammar of batches, of trtexec's shapes and of sizes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdcompress.errors import UsageError
from sdcompress.schema.engines import BatchProfile
from sdcompress.schema.graphs import Tensor
from sdcompress.tensorrt.building.profiles import describe, parse_batch, parse_bytes, parse_shapes

INPUT = Tensor(name="input", dtype="float32", shape=("batch", 3, 32, 32))


@st.composite
def buckets(draw: st.DrawFn) -> tuple[BatchProfile, ...]:
    """Profiles that go on where the one before ends, or begin within it."""
    profiles: list[BatchProfile] = []
    for _ in range(draw(st.integers(1, 5))):
        before = profiles[-1].max if profiles else 0
        largest = draw(st.integers(before + 1, before + 1000))
        smallest = draw(st.integers(1, before + 1)) if profiles else draw(st.integers(1, largest))
        profiles.append(BatchProfile(min=smallest, opt=draw(st.integers(smallest, largest)), max=largest))
    return tuple(profiles)


@given(buckets())
def test_what_is_written_is_read_back(profiles: tuple[BatchProfile, ...]) -> None:
    assert parse_batch(describe(profiles)) == profiles


@given(st.text(alphabet="0123456789:,-x ", max_size=12))
def test_any_text_is_profiles_without_a_gap_or_refused(text: str) -> None:
    try:
        profiles = parse_batch(text)
    except UsageError:
        return
    assert all(1 <= one.min <= one.opt <= one.max for one in profiles)
    assert all(after.min <= before.max + 1 < after.max + 1 for before, after in itertools.pairwise(profiles))


def test_one_number_is_one_batch() -> None:
    assert parse_batch("16") == (BatchProfile(min=16, opt=16, max=16),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1:32", "'1:32' is no profile"),
        ("", "'' is no profile"),
        ("0:1:2", "is no profile"),
        ("8:4:16", "'8:4:16' does not rise"),
        ("1:1:70000", "does not rise"),
        ("1:1:4,6:8:16", "6:8:16 does not go on where 1:1:4 ends"),
        ("1:1:8,2:4:8", "does not go on"),
        ("1:8:32,", "'' is no profile"),
        ("eight", "is no profile"),
        ("\N{SUPERSCRIPT TWO}", "is no profile"),
    ],
)
def test_wrong_text_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_batch(text)
    assert words in caught.value.problem


@given(st.integers(1, 9999), st.integers(1, 9999), st.integers(1, 9999))
def test_trtexecs_shapes_are_a_profile(a: int, b: int, c: int) -> None:
    smallest, opt, largest = sorted((a, b, c))
    shapes = [f"input:{size}x3x32x32" for size in (smallest, opt, largest)]
    (profile,) = parse_shapes(INPUT, smallest=shapes[0], opt=shapes[1], largest=shapes[2])
    assert (profile.min, profile.opt, profile.max) == (smallest, opt, largest)


def test_opt_alone_stands_for_all_three_as_in_trtexec() -> None:
    assert parse_shapes(INPUT, smallest=None, opt="input:4x3x32x32", largest=None) == parse_batch("4")


@pytest.mark.parametrize(
    ("smallest", "opt", "largest"),
    [
        ("input:1x3x32x32", None, "input:8x3x32x32"),
        ("input:1x3x32x32", "input:8x3x32x32", None),
        (None, "images:8x3x32x32", None),
        (None, "input:8x3x64x64", None),
        (None, "input:0x3x32x32", None),
        (None, "input:8x3x32", None),
        (None, "8x3x32x32", None),
        (None, "input", None),
        ("input:9x3x32x32", "input:8x3x32x32", "input:16x3x32x32"),
    ],
)
def test_other_shapes_are_refused_with_an_example(smallest: str | None, opt: str | None, largest: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        parse_shapes(INPUT, smallest=smallest, opt=opt, largest=largest)
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GiB", 2**31), ("512M", 2**29), ("1.5G", 3 * 2**29), ("4096", 4096), ("8K", 8192), ("1MiB", 2**20), ("7B", 7)],
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert parse_bytes(text, "--workspace") == size


@pytest.mark.parametrize("text", ["", "GiB", "2GB", "-1G", "0", "1e9", "2 GiB", "0.1B"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--workspace is"):
        parse_bytes(text, "--workspace")
