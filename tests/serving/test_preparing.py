"""The threads that prepare raw examples, and the wait that they predict."""

from __future__ import annotations

from threading import Event

import numpy as np

from sdcompress.serving.preparing import Preparing, PreparingTime
from sdcompress.serving.protocol.tensors import Tensor


def raw(rows: int) -> Tensor:
    return Tensor("UINT8", (rows, 1, 1, 1), np.zeros((rows, 1, 1, 1), np.uint8))


def test_nothing_waits_once_all_is_prepared_whatever_rounding_leaves() -> None:
    preparing, time, go = Preparing(), PreparingTime(), Event()
    time.observe(raw(1), 0.1)
    futures = [preparing.submit(go.wait, raw(rows), time) for rows in (1, 2, 3)]  # as 0.1 + 0.2 + 0.3
    assert preparing.wait_s > 0
    go.set()
    for future in futures:
        future.result()
    preparing.stop()
    assert preparing.wait_s == 0
