"""Which steps of a run are done, and with what: a step whose inputs are the same is not done again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sdcompress.storage import digest_of, write_text

__all__ = ["Steps"]


@dataclass(frozen=True)
class Steps:
    """Which steps are done, by a hash of what went into them."""

    path: Path

    def fits(self, name: str, inputs: Any, output: Path) -> bool:
        """Whether the step was finished with these very inputs, and its output is still there."""
        return output.exists() and self._done().get(name) == _key(inputs)

    def finish(self, name: str, inputs: Any) -> None:
        """Remember a finished step."""
        write_text(self.path, json.dumps({**self._done(), name: _key(inputs)}, indent=1))

    def _done(self) -> dict[str, str]:
        return dict(json.loads(self.path.read_text(encoding="utf-8"))) if self.path.is_file() else {}


def _key(inputs: Any) -> str:
    return digest_of({"inputs": inputs, "version": version("sdcompress")})
