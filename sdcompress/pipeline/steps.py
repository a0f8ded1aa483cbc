"""The steps of a run, and the record of those that are done: with the same inputs, none is done again."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sdcompress.errors import VerificationError
from sdcompress.progress import Progress
from sdcompress.storage import digest_of, write_text
from sdcompress.untrusted import Refused, read_bytes

__all__ = ["Record", "Stage", "Step"]

_LIMIT = 2**24  # bytes
_RECORD = TypeAdapter(dict[str, str])


Stage = Callable[[str], AbstractContextManager[Progress]]
"""Called with the name of what begins; gives the progress that is told (done, total) while it lasts."""


@dataclass(frozen=True)
class Step:
    """A step of a run.

    Attributes:
        name: as it is shown, and in the record.
        work: does it; is given where to tell how far it is.
        inputs: JSON of what decides the result; None: done every time, as it keeps a record of its own.
        outputs: the files or folders that it writes.
    """

    name: str
    work: Callable[[Progress], object]
    inputs: Any = None
    outputs: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Record:
    """Which steps are done, by a hash of what went into them.

    Every call raises a VerificationError where the record is damaged.
    """

    path: Path

    def do(self, step: Step, stage: Stage) -> None:
        """Do a step, unless it was finished with these very inputs and its outputs are still there."""
        key = digest_of({"inputs": step.inputs, "version": version("sdcompress")})
        there = step.inputs is not None and all(path.exists() for path in step.outputs)
        if there and self._done().get(step.name) == key:
            return
        with stage(step.name) as progress:
            step.work(progress)
        if step.inputs is not None:
            write_text(self.path, json.dumps({**self._done(), step.name: key}, indent=1))

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
