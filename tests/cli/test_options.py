"""Values of options: shares with and without a percent sign."""

from __future__ import annotations

import pytest

from sdcompress.cli.options import share
from sdcompress.errors import UsageError


@pytest.mark.parametrize(("text", "fraction"), [("1%", 0.01), ("0.7%", 0.007), ("0.01", 0.01), ("0", 0), ("100%", 1)])
def test_a_share_is_read_with_and_without_a_percent_sign(text: str, fraction: float) -> None:
    assert share(text, "--max-drop") == fraction


@pytest.mark.parametrize("text", ["", "%", "1", "101%", "-1%", "inf", "nan", "nan%", "-nan", "snan"])
def test_what_is_no_share_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"--max-drop is .*(?s:.)*next: e\.g\. --max-drop 1%"):
        share(text, "--max-drop")
