"""Values of options: shares with and without a percent sign, times with a unit; options that exclude each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdcompress.cli.options import in_data_dir, milliseconds, share
from sdcompress.errors import UsageError


@pytest.mark.parametrize(("text", "fraction"), [("1%", 0.01), ("0.7%", 0.007), ("0.01", 0.01), ("0", 0), ("100%", 1)])
def test_a_share_is_read_with_and_without_a_percent_sign(text: str, fraction: float) -> None:
    assert share(text, "--max-drop") == fraction


@pytest.mark.parametrize("text", ["", "%", "1", "101%", "-1%", "inf", "nan", "nan%", "-nan", "snan"])
def test_what_is_no_share_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"--max-drop is .*(?s:.)*next: e\.g\. --max-drop 1%"):
        share(text, "--max-drop")


@pytest.mark.parametrize(("text", "value"), [("200ms", 200.0), ("1.5s", 1500.0)])
def test_a_time_is_read_with_its_unit(text: str, value: float) -> None:
    assert milliseconds(text, "--warmup") == value


@pytest.mark.parametrize("text", ["", "ms", "200", "0ms", "-1s", "nans"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(
        UsageError,
        match=r"--warmup is .*(?s:.)*above 0 with its unit, e\.g\. 200ms(?s:.)*next: write e\.g\. --warmup 200ms",
    ):
        milliseconds(text, "--warmup")


@pytest.mark.parametrize(
    "words",
    [
        "predict artifact photos --csv --json",
        "evaluate artifact --split validation --samples photos",
        "train --from run -c digits --print-config",
        "compress run --max-drop 1% --target 2ms --out out",
        "export run --ensemble geometric --no-ensemble --out out",
    ],
)
def test_of_two_options_that_exclude_each_other_none_is_left_out_silently(cli: Any, words: str) -> None:
    done = cli(*words.split())
    assert done.code == 2
    assert "Both --" in done.err
    assert not done.out


def test_the_command_that_is_printed_next_reads_the_same_data() -> None:
    assert in_data_dir(None) == ""
    assert in_data_dir(Path("my data")) == " --data-dir 'my data'"
