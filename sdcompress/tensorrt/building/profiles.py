"""Parse the batch sizes of engines: ``--batch`` and trtexec's shapes.

    batch    = profile {"," profile}        one optimisation profile for each range of batches
    profile  = size ":" size ":" size       min, opt (tuned for), max
             | size                         all three are the same
    shapes   = name ":" size {"x" size}     as in trtexec, batch first: input:8x3x32x32

Profiles rise and leave no gap.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from sdcompress.errors import UsageError
from sdcompress.schema.engines import BatchProfile
from sdcompress.schema.graphs import Tensor

__all__ = ["DEFAULT", "describe", "parse_batch", "parse_bytes", "parse_shapes"]

DEFAULT = (BatchProfile(min=1, opt=8, max=32),)

_LARGEST = 65_536  # TensorRT's dimensions are 32-bit, a batch beyond this is a typing error
_UNITS = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def parse_batch(text: str) -> tuple[BatchProfile, ...]:
    """Return profiles from ``--batch``: "1:8:32", "16" or "1:1:1,2:4:8,9:16:32".

    Raises:
        UsageError: if it is none, or has a gap.
    """
    profiles = tuple(_profile(part, text) for part in text.split(","))
    for before, after in itertools.pairwise(profiles):
        if after.min > before.max + 1 or after.max <= before.max:
            raise _batch(text, f"{_text(after)} does not go on where {_text(before)} ends")
    return profiles


def parse_shapes(
    network_input: Tensor, *, smallest: str | None, opt: str | None, largest: str | None
) -> tuple[BatchProfile, ...]:
    """Return the profile of trtexec's ``--minShapes``, ``--optShapes`` and ``--maxShapes``.

    As in trtexec, ``opt`` alone sets all three.

    Args:
        network_input: of the artifact; only its batch may be chosen.
        smallest: "input:1x3x32x32".
        opt: likewise.
        largest: likewise.

    Raises:
        UsageError: if one of them is missing or wrong, names another tensor or another image, or they do not rise.
    """
    if opt is None or (smallest is None) != (largest is None):
        raise UsageError(
            "The shapes are not complete.",
            allowed="--min-shapes, --opt-shapes and --max-shapes together, or --opt-shapes alone for all three",
            next_step=f"e.g. --opt-shapes {_shape(network_input, 8)}",
        )
    batches = [_size(text, network_input) for text in (smallest or opt, opt, largest or opt)]
    if batches != sorted(batches):
        raise UsageError(
            f"The batches of the shapes do not rise: {batches[0]}, {batches[1]}, {batches[2]}.",
            allowed="smallest <= opt <= largest",
            next_step="exchange them",
        )
    return (BatchProfile(min=batches[0], opt=batches[1], max=batches[2]),)


def parse_bytes(text: str, flag: str) -> int:
    """Return bytes from "2GiB", "512M" or a number; K, M and G are powers of 1024, as in trtexec.

    Raises:
        UsageError: if it is none of these, or less than 1.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", text)
    if match is None or match[2] not in _UNITS or int(float(match[1]) * _UNITS[match[2]]) < 1:
        raise UsageError(
            f"{flag} is '{text}'.", allowed="a number with KiB, MiB or GiB (K, M, G)", next_step=f"e.g. {flag} 2GiB"
        )
    return int(float(match[1]) * _UNITS[match[2]])


def describe(profiles: Sequence[BatchProfile]) -> str:
    """Return profiles in the form of ``--batch``."""
    return ",".join(map(_text, profiles))


def _profile(text: str, option: str) -> BatchProfile:
    sizes = text.strip().split(":")
    if len(sizes) not in (1, 3) or not all(re.fullmatch(r"[1-9][0-9]{0,4}", size) for size in sizes):
        raise _batch(option, f"'{text}' is no profile")
    smallest, opt, largest = (int(size) for size in (sizes * 3 if len(sizes) == 1 else sizes))
    if not smallest <= opt <= largest <= _LARGEST:
        raise _batch(option, f"'{text}' does not rise")
    return BatchProfile(min=smallest, opt=opt, max=largest)


def _size(text: str, network_input: Tensor) -> int:
    name, _, shape = text.rpartition(":")
    sizes = shape.split("x")
    fixed = [str(size) for size in network_input.shape[1:]]
    if name != network_input.name or sizes[1:] != fixed or not re.fullmatch(r"[1-9][0-9]{0,4}", sizes[0]):
        raise UsageError(
            f"'{text}' is not a shape of the network's input.",
            allowed=f"{_shape(network_input, 1)}, with any batch in the place of 1; the shapes between segments follow",
            next_step=f"e.g. {_shape(network_input, 8)}",
        )
    return int(sizes[0])


def _shape(network_input: Tensor, batch: int) -> str:
    return f"{network_input.name}:{'x'.join(str(size) for size in (batch, *network_input.shape[1:]))}"


def _text(profile: BatchProfile) -> str:
    same = profile.min == profile.opt == profile.max
    return str(profile.min) if same else f"{profile.min}:{profile.opt}:{profile.max}"


def _batch(text: str, problem: str) -> UsageError:
    return UsageError(
        f"--batch is '{text}': {problem}.",
        allowed="min:opt:max, or one number; several with commas between them, rising, with no batch left out",
        next_step="e.g. --batch 1:8:32 or --batch 1:1:1,2:4:8,9:16:32",
    )
