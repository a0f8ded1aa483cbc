"""Read untrusted files: regular files of limited size, and JSON of limited depth, size and number range."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["Refused", "kind_of", "parse_json", "read_bytes"]

_VALUES = 100_000
_DEPTH = 64
_INTEGER = 2**63


class Refused(ValueError):
    """The reason why an untrusted file was refused. Callers turn it into an SdcompressError with a next step."""


def kind_of(mode: int) -> str:
    """Return the kind of a file that is not regular, as text; empty for a regular file.

    Args:
        mode: ``st_mode``.
    """
    if stat.S_ISREG(mode):
        return ""
    kinds = {stat.S_IFLNK: "a symlink", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    kind = kinds.get(stat.S_IFMT(mode), "a device")
    return kind if kind in {"a symlink", "a folder"} else f"{kind}, not a regular file"


def read_bytes(path: Path, limit: int, *, follow: bool = False) -> bytes:
    """Read a regular file of limited size, without blocking on pipes.

    Args:
        path: the file.
        limit: largest size in bytes.
        follow: allow a symlink to a regular file.

    Raises:
        Refused: if it is not a regular file, or too large.
        OSError: if it is missing or unreadable.
    """
    # opening a device may have effects, so that the kind is checked before and after
    if kind := kind_of((path.stat() if follow else path.lstat()).st_mode):
        raise Refused(f"it is {kind}")
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags if follow else flags | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if kind := kind_of(status.st_mode):
            raise Refused(f"it is {kind}")
        if status.st_size > limit:
            raise Refused(f"it has {status.st_size} bytes, more than {limit}")
        content = file.read(status.st_size + 1)  # read() allocates the requested size at once
    if len(content) != status.st_size:
        raise Refused(f"its {status.st_size} bytes changed while they were read")
    return content


def parse_json(content: bytes, *, values: int = _VALUES) -> Any:
    """Parse JSON in UTF-8 into a value that can be hashed, validated and written again.

    Args:
        content: of the file.
        values: largest number of values.

    Raises:
        Refused: if it is not JSON, has more values or 64 levels, or holds NaN, integers beyond 64 bits, floats beyond
            a double, or text that is not Unicode.
    """
    # upper bound: each value is followed by a comma, or is the last one of a list or an object
    if (most := content.count(b",") + content.count(b"[") + content.count(b"{")) > values:
        raise Refused(f"it holds up to {most} values, more than {values}")
    try:
        text = content.decode("utf-8")
        tree = json.loads(text, parse_constant=_not_json, parse_int=_integer, parse_float=_finite)
    except RecursionError:
        raise Refused(f"it is nested more than {_DEPTH} levels deep") from None
    except ValueError as error:  # JSON and UTF-8 errors are both ValueErrors
        raise error if isinstance(error, Refused) else Refused(f"it is not JSON: {error}") from error
    if _is_deeper(tree, _DEPTH):
        raise Refused(f"it is nested more than {_DEPTH} levels deep")
    if "\\ud" in text.lower():
        try:
            json.dumps(tree, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Refused("it holds half of a surrogate pair, which is not Unicode text") from None
    return tree


def _not_json(token: str) -> NoReturn:
    raise Refused(f"it is not JSON: {token} is not a number in JSON")


def _integer(token: str) -> int:
    if len(token) > 20 or not -_INTEGER <= (value := int(token)) < _INTEGER:
        raise Refused(f"it holds the integer {token[:24]}{'...' * (len(token) > 24)}, which is beyond 64 bits")
    return value


def _finite(token: str) -> float:
    if not math.isfinite(value := float(token)):
        raise Refused(f"it holds the number {token[:24]}, which is too large")
    return value


def _is_deeper(tree: Any, levels: int) -> bool:
    level = [tree]
    for _ in range(levels + 1):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return False
    return True
