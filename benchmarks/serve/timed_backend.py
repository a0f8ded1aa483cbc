"""A backend for capacity.py whose graphs take a set time: they compute, and then sleep for the rest of it.

So other work on the machine changes little. Milliseconds of a call and of each row come from the variable TIMED_MS.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import onnxruntime

from sdcompress.runtime.backends._base import Array, Graph
from sdcompress.schema.manifest import Segment

__all__ = ["load"]

FIRST_MS, EACH_MS = map(float, os.environ["TIMED_MS"].split(","))


def load(file: Path, segment: Segment, *, threads: int | None, device: str) -> Graph:
    """Load one graph."""
    del threads, device
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in segment.outputs]

    def graph(tensors: dict[str, Array]) -> list[Array]:
        end = time.perf_counter() + (FIRST_MS + EACH_MS * len(next(iter(tensors.values())))) / 1000
        outputs: list[Array] = session.run(names, tensors)
        time.sleep(max(0.0, end - time.perf_counter()))
        return outputs

    return graph
