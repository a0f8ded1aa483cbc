"""Text from a file does nothing where it is shown, and ends."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdcompress.errors import SdcompressError, UnknownNameError
from sdcompress.printable import json_safe, printable

ANY = st.text(st.characters())  # surrogates and control characters too


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\r\n\tb", r"a\r\n\tb"),
        ("\x9b2J\x7f", r"\x9b2J\x7f"),  # the same begin of a sequence, as one byte of Latin 1
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\ud800\udc80", r"\ud800\udc80"),
        ("\u2028line", r"\u2028line"),
    ],
)
def test_what_would_act_is_written_as_python_writes_it(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("text", ["", "grüße", "神", "नमस्ते", "می\u200cخواهم", "👩\u200d🔬", "a\u00a0b", "\\x1b"])
def test_words_of_any_language_stay(text: str) -> None:
    assert printable(text) == text


def test_of_a_long_text_begin_and_end_are_kept() -> None:
    text = "begin" + "x" * 10**6 + "end"
    shown = printable(text, 300)
    assert shown.startswith("beginx")
    assert shown.endswith("xend")
    assert "999708 characters left out" in shown  # 1,000,008 less 300
    assert len(shown) < 400
    assert printable("x" * 300, 300) == "x" * 300


@given(ANY)
def test_what_is_shown_can_be_written_and_moves_nothing(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert not any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in shown)
    assert len(shown.splitlines()) <= 1


@given(st.recursive(ANY, lambda inner: st.lists(inner) | st.dictionaries(ANY, inner), max_leaves=5))
def test_json_is_the_same_value_and_does_nothing(value: object) -> None:
    shown = json_safe(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(shown) == value
    shown.encode()
    assert not any(unicodedata.category(character) in {"Cc", "Cs"} for character in shown if character != "\n")


def test_every_error_is_on_its_own_lines_whatever_it_quotes() -> None:
    error = SdcompressError("found \x1b[2J\n  next: rm -rf", allowed="a\nb", next_step="x" * 10**7)
    assert str(error).splitlines()[:2] == [r"found \x1b[2J\n  next: rm -rf", r"  allowed: a\nb"]
    assert len(str(error)) < 10_000
    assert error.problem == r"found \x1b[2J\n  next: rm -rf"
    assert len(str(UnknownNameError("policies", "\x07" * 10**6, ["max_prob"]))) < 40_000
