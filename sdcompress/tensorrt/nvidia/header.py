"""Read the documented part of a TensorRT plan's header.

Source: ``printPlanVersion`` in samples/common/sampleEngines.cpp of github.com/NVIDIA/TensorRT, which ``trtexec
--getPlanVersionOnly`` runs. It reads a tag, the version of the serialization, and for version 0 the four numbers of the
TensorRT version in bytes 24 to 27. Nothing else is documented, and TensorRT before 8.6 may differ. A version that
cannot be read is None; the manifest has it too.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["PlanHeader", "read_header"]

_TAG, _SERIALIZATION, _VERSION = b"ftrt", b"\0\0\0\0", slice(24, 28)


class PlanHeader(NamedTuple):
    """The header of a file.

    Attributes:
        tagged: whether it has the tag of a plan.
        version: of the TensorRT that wrote it, e.g. "10.9.0.34"; None if it cannot be read.
    """

    tagged: bool
    version: str | None


def read_header(plan: bytes) -> PlanHeader:
    """Read the header of a plan.

    Args:
        plan: its bytes.
    """
    start = plan[: _VERSION.stop]
    tagged = start[:4] == _TAG
    if not tagged or len(start) < _VERSION.stop or start[4:8] != _SERIALIZATION:
        return PlanHeader(tagged, None)
    return PlanHeader(tagged, ".".join(str(number) for number in start[_VERSION]))
