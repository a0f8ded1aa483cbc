"""Read the JSON results of 'evaluate' and 'bench'."""

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
    """Read a result from a file or a pipe.

    Args:
        path: the file.
        kind: the expected schema.
        next_step: for the error message.

    Raises:
        UsageError: if the file is missing, holds something else, or exceeds 256 MiB.
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
        location = ".".join(map(str, first["loc"])) or "the file"
        raise _refused(path, kind, f"{location}: {first['msg']}", next_step) from error


def _refused(path: Path, kind: type[Frozen], problem: str, next_step: str) -> UsageError:
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    return UsageError(
        f"{path} does not hold {article} {kind.__name__}: {problem}.",
        allowed="a file made with 'sdcompress bench --json' or 'sdcompress evaluate --json'",
        next_step=next_step,
    )
