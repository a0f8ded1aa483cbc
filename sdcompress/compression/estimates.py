"""Keep the estimates of a search, so that a resumed one builds and tests the finalists that it began with.

Times differ from run to run, and so would the finalists. The confidence of a search is shared by its finalists, which
are tested on the same samples. It would not count those that an earlier run has tested and dropped.

There is one file for each search of a folder, also for those that were thrown away: all used the same samples.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sdcompress.errors import VerificationError
from sdcompress.schema.compression import Candidate
from sdcompress.storage import digest_of, write_bytes
from sdcompress.untrusted import Refused, read_bytes

__all__ = ["ESTIMATES", "kept_candidates", "retire_estimates", "searches_in"]

ESTIMATES = "estimates"

_LIMIT = 2**28  # bytes
_CANDIDATES = TypeAdapter(list[Candidate])


def kept_candidates(folder: Path, inputs: Any, estimate: Callable[[], list[Candidate]]) -> list[Candidate]:
    """Return the candidates of a search, estimated once for the same inputs.

    Args:
        folder: of the search.
        inputs: JSON of all that decides on the candidates but the times.
        estimate: returns them, the best first.

    Raises:
        VerificationError: if the file of the estimates is damaged.
    """
    path = folder / ESTIMATES / f"{digest_of({'inputs': inputs, 'version': version('sdcompress')})}.json"
    try:
        return _CANDIDATES.validate_json(read_bytes(path, _LIMIT))
    except FileNotFoundError:
        pass
    except (OSError, Refused, ValidationError) as error:
        raise VerificationError(
            f"The estimates of this search cannot be read: {path} is damaged.",
            allowed="the JSON list that sdcompress wrote",
            next_step="search in another folder, or with --overwrite: other finalists may be chosen",
        ) from error
    ranked = estimate()
    write_bytes(path, _CANDIDATES.dump_json(ranked, indent=1))
    return ranked


def retire_estimates(folder: Path) -> None:
    """Give the estimates of a folder other names, so that the next search makes its own; they still count as searches.

    Args:
        folder: of the searches.
    """
    for path in list((folder / ESTIMATES).glob("*.json")):
        digest, _, retired = path.stem.partition(".")
        if not retired:
            number = len(list(path.parent.glob(f"{digest}.*.json")))
            path.rename(path.with_name(f"{digest}.{number}.json"))


def searches_in(folder: Path) -> int:
    """Return how many searches were begun in a folder, thrown away or not.

    Args:
        folder: of the searches.
    """
    return len(list((folder / ESTIMATES).glob("*.json")))
