"""Make untrusted text safe for terminals, logs and pages: escaped and of limited length."""

from __future__ import annotations

import re

__all__ = ["has_surrogates", "json_safe", "plural", "printable"]

# control characters, line separators, bidirectional marks, and lone surrogates, which no encoding can write
_C0 = r"\x00-\x1f"
_OTHERS = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_ACTIVE, _ACTIVE_IN_JSON = re.compile(f"[{_C0}{_OTHERS}]"), re.compile(f"[{_OTHERS}]")


def printable(text: str, limit: int = 4000) -> str:
    r"""Return the text on one line with control characters escaped.

    Args:
        text: possibly untrusted.
        limit: characters to keep; the middle of a longer text is removed.

    Returns:
        The text with such characters escaped as in Python literals: ``\x1b``, ``\n``, ``\u202e``.
    """
    if len(text) > limit:
        head = limit * 2 // 3
        text = f"{text[:head]} [... {len(text) - limit} characters left out ...] {text[head - limit :]}"
    return _ACTIVE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def has_surrogates(text: str) -> bool:
    """Return whether a text holds half a character, as which Python represents bytes that are not text."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def json_safe(text: str) -> str:
    """Escape characters in JSON text on which a terminal would act. Value and layout stay the same."""
    return _ACTIVE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def plural(word: str) -> str:
    """Return the plural of an English noun, such as a task's word for a stratum."""
    return "strata" if word == "stratum" else word + ("es" if word.endswith("s") else "s")
