"""Run steps whose inputs have changed, and record those that are finished."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sdcompress.errors import VerificationError
from sdcompress.progress import Progress, no_progress
from sdcompress.storage import digest_of, write_text
from sdcompress.untrusted import Refused, read_bytes

__all__ = ["Record", "Step", "StepProgress", "no_step_progress"]

_LIMIT = 2**24  # bytes
_RECORD = TypeAdapter(dict[str, str])


StepProgress = Callable[[str], AbstractContextManager[Progress]]
"""Called with the name of a step; a context manager that gives the function of (done, total) for its duration."""


@contextmanager
def no_step_progress(_name: str) -> Iterator[Progress]:
    """Show nothing, whatever the step."""
    yield no_progress


@dataclass(frozen=True)
class Step:
    """A step of a run.

    Attributes:
        name: shown, and in the record.
        work: does the step; called with a function of (done, total).
        inputs: JSON that determines the result; None: the step is run every time, and keeps its own record.
        outputs: files or folders that it writes.
    """

    name: str
    work: Callable[[Progress], object]
    inputs: Any = None
    outputs: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Record:
    """The finished steps of a run with hashes of their inputs, in a file.

    Raises:
        VerificationError: by every call, if the file is damaged.
    """

    path: Path

    def run(self, step: Step, step_progress: StepProgress) -> None:
        """Run a step, unless it was finished with the same inputs and its outputs exist."""
        key, recorded = digest_of({"inputs": step.inputs, "version": version("sdcompress")}), step.inputs is not None
        done = self._done() if recorded else {}
        if done.get(step.name) == key and all(path.exists() for path in step.outputs):
            return
        if done.pop(step.name, None):  # if it fails, some outputs may be of these inputs, and others of those before
            write_text(self.path, json.dumps(done, indent=1))
        with step_progress(step.name) as progress:
            step.work(progress)
        if recorded:
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
            allowed="the JSON object that sdcompress wrote",
            next_step="remove that file and give the same command again: trainings are kept, the other steps are done "
            "again",
        )
