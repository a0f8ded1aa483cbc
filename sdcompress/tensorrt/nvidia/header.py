"""The first bytes of a TensorRT plan, as far as NVIDIA has made them public.

Source: ``printPlanVersion`` in samples/common/sampleEngines.cpp of github.com/NVIDIA/TensorRT, what ``trtexec
--getPlanVersionOnly`` runs: a tag, the version of the serialization, and for version 0 of it the four numbers of the
TensorRT version in bytes 24 to 27. Nothing else of a plan is documented, the GPU included, and TensorRT before 8.6 may
differ; so a version that is not read here is None, and the manifest says what the plan was built with and for.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["PlanHeader", "read_header"]

_TAG, _SERIALIZATION, _VERSION = b"ftrt", b"\0\0\0\0", slice(24, 28)


class PlanHeader(NamedTuple):
    """What a file says of itself.

    Attributes:
        tagged: whether it begins as plans do.
        version: of the TensorRT that wrote it, e.g. "10.9.0.34"; None where that cannot be read.
    """

    tagged: bool
    version: str | None


def read_header(plan: bytes) -> PlanHeader:
    """Read what is public of a plan's beginning.

    Args:
        plan: its bytes.
    """
    start = plan[: _VERSION.stop]
    tagged = start[:4] == _TAG
    if not tagged or len(start) < _VERSION.stop or start[4:8] != _SERIALIZATION:
        return PlanHeader(tagged, None)
    return PlanHeader(tagged, ".".join(str(number) for number in start[_VERSION]))
