"""Read results that 'evaluate' and 'bench' wrote as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from sdcompress.errors import UsageError
from sdcompress.schema.base import Frozen

__all__ = ["read_result"]

Result = TypeVar("Result", bound=Frozen)

_LIMIT = 2**28  # bytes


def read_result(path: Path, kind: type[Result], next_step: str = "make it again") -> Result:
    """A result from its file; a pipe will do.

    Args:
        path: the file.
        kind: what it holds.
        next_step: for the error.

    Raises:
        UsageError: if the file is not there, holds something else or has more than 256 MiB.
    """
    try:
        content = bytearray()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                content += block
                if len(content) > _LIMIT:
                    raise _refused(path, kind, f"it has more than {_LIMIT} bytes", next_step)
        return kind.model_validate_json(bytes(content))
    except OSError as error:
        raise _refused(path, kind, str(error.strerror or error), next_step) from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise _refused(path, kind, f"{where}: {first['msg']}", next_step) from error


def _refused(path: Path, kind: type[Frozen], why: str, next_step: str) -> UsageError:
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    return UsageError(
        f"{path} does not hold {article} {kind.__name__}: {why}.",
        allowed="a file made with 'sdcompress bench --json' or 'sdcompress evaluate --json'",
        next_step=next_step,
    )
