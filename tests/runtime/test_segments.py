"""Segments over arrays: an input that a later segment reads goes on with its rows, and stays the caller's."""

from __future__ import annotations

import numpy as np
from signals import TASK

from sdcompress.modalities import Inputs
from sdcompress.runtime.active_rows import Moves
from sdcompress.runtime.segments import ArrayForwardPass, Stage
from sdcompress.schema.manifest import Exit


def test_a_mask_that_a_later_segment_reads_is_compacted_without_changing_the_callers() -> None:
    mask = np.array([[1, 1], [1, 0], [1, 1], [1, 0]])
    stages = (
        Stage(
            (((lambda feed: [feed["ids"] * 10.0, feed["ids"] + 0.0]), ("ids",), ("hidden", "early")),),
            Exit(name="exit1", segment=0, outputs="early"),
            ("hidden", "mask"),
            TASK,
        ),
        Stage(
            (((lambda feed: [(feed["hidden"] * feed["mask"]).sum(axis=1)]), ("hidden", "mask"), ("late",)),),
            Exit(name="final", segment=1, outputs="late"),
            (),
            TASK,
        ),
    )
    inputs = Inputs({"ids": np.array([[1, 2], [3, 4], [5, 6], [7, 8]]), "mask": mask.copy()})
    with ArrayForwardPass(stages, inputs) as forward:
        forward.stage(0)
        early = forward.outputs(0)
        forward.compact(0, Moves(np.array([0]), np.array([3]), 2))  # rows 0 and 2 have exited; row 3 fills the first
        forward.stage(1)
        assert forward.outputs(1).tolist() == [70.0, 30.0]
    assert early.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]
    np.testing.assert_array_equal(inputs.arrays["mask"], mask)
