"""Which steps of a run are done, and with what: a step whose inputs are the same is not done again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sdcompress.errors import VerificationError
from sdcompress.storage import digest_of, write_text
from sdcompress.untrusted import Refused, read_bytes

__all__ = ["Steps"]

_LIMIT = 2**24  # bytes
_RECORD = TypeAdapter(dict[str, str])


@dataclass(frozen=True)
class Steps:
    """Which steps are done, by a hash of what went into them.

    Every call raises a VerificationError where the record is damaged.
    """

    path: Path

    def fits(self, name: str, inputs: Any, output: Path) -> bool:
        """Whether the step was finished with these very inputs, and its output is still there."""
        return output.exists() and self._done().get(name) == _key(inputs)

    def finish(self, name: str, inputs: Any) -> None:
        """Remember a finished step."""
        write_text(self.path, json.dumps({**self._done(), name: _key(inputs)}, indent=1))

    def _done(self) -> dict[str, str]:
        try:
            content = read_bytes(self.path, _LIMIT, follow=True)
        except FileNotFoundError:
            return {}
        except (OSError, Refused) as error:
            raise self._damaged(str(error)) from error
        try:
            return _RECORD.validate_json(content)
        except ValidationError as error:
            raise self._damaged(error.errors()[0]["msg"]) from error

    def _damaged(self, why: str) -> VerificationError:
        return VerificationError(
            f"The record of finished steps {self.path} cannot be read: {why}.",
            allowed="the JSON object that 'sdcompress run' wrote",
            next_step="remove that file and run again: trainings are kept, the steps after them are done again",
        )


def _key(inputs: Any) -> str:
    return digest_of({"inputs": inputs, "version": version("sdcompress")})
