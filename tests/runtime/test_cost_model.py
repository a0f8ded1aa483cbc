"""What is still to come: between the measured numbers of rows, beyond them, and where nothing was measured."""

from __future__ import annotations

import numpy as np
import pytest

from sdcompress.modalities import Inputs
from sdcompress.runtime.cost_model import CostModel, sample_size
from sdcompress.schema.manifest import Policy, StageTimes, Tensor


def policy(times: StageTimes | None) -> Policy:
    return Policy(
        thresholds=(0.5,),
        max_drop=0.01,
        samples=1,
        metric=1.0,
        reference_metric=1.0,
        shares=(1.0, 0.0),
        stage_ms=(2.0, 3.0),
        stage_times=times,
    )


TIMES = StageTimes(rows=(1, 4, 8), ms=((1.0, 2.0, 6.0), (10.0, 12.0, 12.0)), move_ms=(0.5,))


@pytest.mark.parametrize(
    ("stage", "rows", "ms"),
    [
        *((0, 1, 1.0), (0, 4, 2.0), (0, 8, 6.0)),  # as measured
        *((0, 2, 1 + 1 / 3), (0, 6, 4.0)),  # straight between
        *((0, 10, 7.5), (1, 64, 96.0)),  # as much for each row as with 8
    ],
)
def test_of_a_stage(stage: int, rows: int, ms: float) -> None:
    assert CostModel(policy(TIMES)).ms(stage, rows) == pytest.approx(ms)


def test_one_number_of_rows_alone_is_taken_for_proportional() -> None:
    assert CostModel(policy(TIMES.model_copy(update={"rows": (2,), "ms": ((3.0,), (5.0,))}))).ms(1, 6) == pytest.approx(
        15
    )


def test_without_batches_it_is_the_time_of_one_and_without_a_policy_nothing() -> None:
    assert CostModel(policy(None)).ms(1, 4) == 12
    assert CostModel(None).ms(1, 4) == 0


@pytest.mark.parametrize(
    ("allocated", "active", "pays"),
    [
        (4, 1, True),  # saves 2 ms for moving one row at most: .5 ms
        (8, 4, False),  # stage 1 takes as long with 4 as with 8
        (4, 3, True),  # saves .67 for one row
        (3, 2, True),
        (8, 7, False),
    ],
)
def test_compaction_pays_where_the_next_stage_saves_more_than_moving_costs(
    allocated: int, active: int, pays: bool
) -> None:
    assert CostModel(policy(TIMES)).compaction_pays(0, allocated, active) is pays


@pytest.mark.parametrize(("unused", "pays"), [((), False), ((1,), True), ((0,), False), ((1, 2), True)])
def test_stages_up_to_the_next_exit_that_rows_take_count_together(unused: tuple[int, ...], pays: bool) -> None:
    """With 2 of 4 rows each stage takes 2 ms less, and moving 2 rows 3 ms: that pays for two stages, not for one."""
    times = StageTimes(rows=(2, 4), ms=((1.0, 3.0),) * 4, move_ms=(1.5,) * 3)
    assert CostModel(None, times=times, unused=unused).compaction_pays(0, 4, 2) is pays


def test_it_always_pays_where_nothing_is_known() -> None:
    assert CostModel(None).compaction_pays(0, 64, 63)
    assert CostModel(policy(None)).compaction_pays(0, 64, 63)


OF_TEXTS = StageTimes(rows=(1, 2), sizes=(10.0, 20.0), ms=((1.0, 4.0), (2.0, 5.0)), move_ms=(0.5,))


@pytest.mark.parametrize(
    ("rows", "size", "ms"),
    [(1, 10, 2.0), (2, 20, 5.0), (1, 40, 5.0), (1, 25, 3.5), (2, 40, 10.0), (1, 3, 2.0)],
)
def test_rows_and_their_tokens_count_together(rows: int, size: int, ms: float) -> None:
    assert CostModel(policy(OF_TEXTS)).ms(1, rows, size) == pytest.approx(ms)


def test_longer_rows_take_longer_to_move() -> None:
    """With 40 tokens stage 1 takes 10 ms for two rows and 5 for one; moving one takes twice what one of 20 takes."""
    slow = OF_TEXTS.model_copy(update={"move_ms": (2.4,)})
    assert CostModel(policy(slow)).compaction_pays(0, 2, 1, 40)
    assert not CostModel(policy(OF_TEXTS.model_copy(update={"move_ms": (2.6,)}))).compaction_pays(0, 2, 1, 40)


def test_the_size_of_a_sample_is_what_varies_beside_the_batch() -> None:
    ids = Tensor(name="ids", dtype="int64", shape=("batch", "tokens", 3))
    mask = Tensor(name="mask", dtype="int64", shape=("batch", "tokens"))
    inputs = Inputs({"ids": np.zeros((2, 7, 3), np.int64), "mask": np.zeros((2, 7), np.int64)})
    assert sample_size((ids, mask), inputs) == 7
    assert sample_size((Tensor(name="ids", dtype="int64", shape=("batch", 7, 3)),), inputs) == 1


@pytest.mark.parametrize(
    ("lengths", "parts"),
    [
        # a call costs 2 of 7 ms of 40 tokens: 120 / 7 = 17.1 tokens
        ([30, 10, 30, 11], [[0, 2], [1, 3]]),  # two rows of 11 tokens save 2 * 19
        ([30, 20, 30, 30], [[0, 1, 2, 3]]),  # a row saves 10
        ([30, 12, 30, 30], [[0, 2, 3], [1]]),  # a row saves 18
        ([60, 5, 30, 5], [[0], [2], [1, 3]]),  # 2 * 55, and then 30 among the longer ones
        ([7, 7, 7], [[0, 1, 2]]),
        ([9], [[0]]),
    ],
)
def test_rows_run_with_those_of_like_lengths_where_that_saves_more_tokens_than_a_call_costs(
    lengths: list[int], parts: list[list[int]]
) -> None:
    times = StageTimes(rows=(1, 2), sizes=(10.0, 20.0), ms=((1.0, 2.0), (2.0, 5.0)), move_ms=(0.5,))
    found = [sorted(rows.tolist()) for rows in CostModel(policy(times)).parts(np.array(lengths))]
    assert sorted(found) == sorted(parts)


@pytest.mark.parametrize("times", [None, TIMES])
def test_without_times_of_lengths_a_batch_stays_whole(times: StageTimes | None) -> None:
    assert [rows.tolist() for rows in CostModel(policy(times)).parts(np.array([9, 500, 1]))] == [[2, 0, 1]]
