"""Text that comes from a file, as a terminal, a log or a page may see it: nothing in it acts, nothing is endless."""

from __future__ import annotations

import re

__all__ = ["json_safe", "printable"]

# control characters (escape sequences begin with one), line separators, marks that turn the direction of writing round,
# and halves of surrogate pairs, which no encoding can write
_C0 = r"\x00-\x1f"
_OTHERS = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_ACTIVE, _ACTIVE_IN_JSON = re.compile(f"[{_C0}{_OTHERS}]"), re.compile(f"[{_OTHERS}]")


def printable(text: str, limit: int = 4000) -> str:
    r"""The text on one line, without characters that a terminal or a page would act on.

    Args:
        text: from anywhere.
        limit: characters that are kept of it; of a longer text the middle is left out.

    Returns:
        The text with such characters as Python's literals write them: ``\x1b``, ``\n``, ``\u202e``.
    """
    if len(text) > limit:
        head = limit * 2 // 3
        text = f"{text[:head]} [... {len(text) - limit} characters left out ...] {text[head - limit :]}"
    return _ACTIVE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def json_safe(text: str) -> str:
    """JSON of the same value in which a terminal finds nothing to act on; the layout of the JSON is kept."""
    return _ACTIVE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
