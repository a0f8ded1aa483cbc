"""How an artifact is named by its content: SHA-256 of files, and of the manifest's canonical JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["digest_of", "sha256_of"]

_CHUNK = 2**20


def digest_of(fields: Mapping[str, Any]) -> str:
    """The digest that a manifest with these fields must carry.

    Canonical JSON: keys sorted, no spaces, UTF-8, numbers as Python's json writes them, ``digest`` left out.

    Args:
        fields: the manifest as JSON types; ``digest`` may be there or not.
    """
    rest = {name: value for name, value in fields.items() if name != "digest"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
