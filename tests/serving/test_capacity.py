"""The simulation against queues whose results are known, and the verb on a tiny artifact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sdcompress
from sdcompress.errors import UsageError
from sdcompress.options import EngineOptions
from sdcompress.runtime.cost_model import CostModel
from sdcompress.schema.manifest import StageTimes
from sdcompress.serving.costs import StageCosts
from sdcompress.serving.options import ServiceOptions
from sdcompress.serving.simulation import Simulation, _one_after_the_other

OPEN = ServiceOptions(latency_bound=1000.0, queue_rows=10**6)


def simulation(ms: tuple[float, ...], shares: tuple[float, ...], **more: Any) -> Simulation:
    """Stages that take so long for 1, 2, 4 and 8 rows."""
    times = StageTimes(rows=(1, 2, 4, 8), ms=(ms,) * len(shares), move_ms=(0.0,) * (len(shares) - 1))
    costs = StageCosts(CostModel(None, times=times), times.rows, shares)
    return Simulation(costs, shares, **{"options": OPEN, **more})


ALONE = (10.0, 20.0, 40.0, 80.0)  # batches save nothing: a queue with one server


def test_one_stage_without_batches_is_the_queue_of_the_textbook() -> None:
    # M/D/1 (Pollaczek and Khinchine): the mean wait is load / (2 - 2 load) times the service time, its 0.5 here
    queue = simulation(ALONE, (1.0,))
    sent = np.cumsum(np.random.default_rng(1).exponential(1 / 50, 10000))
    answered, *_ = queue._answered(sent, np.zeros(len(sent), np.int64))
    assert np.mean(answered - sent) == pytest.approx(0.010 + 0.5 * 0.010, rel=0.04)
    point = queue.run(50.0, 3000)
    assert point.busy == pytest.approx(0.5, rel=0.05)
    assert (point.refused, point.batch_rows) == (0, 1)


def test_rows_take_the_stages_up_to_their_exits() -> None:
    point = simulation(ALONE, (0.6, 0.4)).run(0.1, 2000)  # nearly no queue: 10 or 20 ms
    assert point.p50_ms == pytest.approx(10)
    assert point.p99_ms == pytest.approx(20)
    assert point.busy == pytest.approx(0.1 * 0.014, rel=0.1)


def test_the_peak_is_that_of_full_batches() -> None:
    # 8 rows in 28 ms: 3.5 ms a row, at two stages of which half of the rows reach the second
    assert simulation((10.0, 12.0, 16.0, 28.0), (0.5, 0.5)).peak == pytest.approx(1000 / (3.5 * 1.5))
    assert simulation(ALONE, (1.0,), request_s=0.05).peak == pytest.approx(0.95 / 0.05)


def test_the_limit_keeps_the_bound_and_more_load_does_not() -> None:
    bounded = simulation(ALONE, (1.0,), options=ServiceOptions(latency_bound=0.1))
    limit = bounded.limit(2000)
    below, above = bounded.run(0.9 * limit, 2000), bounded.run(2 * limit, 2000)
    assert 60 < limit < 100  # 100 a second is all that it could do
    assert below.p99_ms is not None
    assert below.p99_ms <= 100
    assert below.refused <= 0.01
    assert above.refused > 0.2
    assert limit < above.good_per_s < 100


def test_early_exits_raise_the_limit() -> None:
    options = ServiceOptions(latency_bound=0.5)
    early = simulation(ALONE, (0.8, 0.2), options=options).limit(2000)
    whole = simulation(ALONE, (0.0, 1.0), options=options).limit(2000)
    assert early / whole == pytest.approx(2 / 1.2, rel=0.1)


def test_the_http_side_is_a_queue_before_the_worker() -> None:
    sent = np.array([0.0, 0.1, 0.2, 5.0])
    assert _one_after_the_other(sent, 1.0).tolist() == pytest.approx([1.0, 2.0, 3.0, 6.0])
    assert _one_after_the_other(sent, 0.0).tolist() == pytest.approx(sent.tolist())


def test_the_same_seed_gives_the_same_figures_and_leaves_the_costs_alone() -> None:
    requests = simulation(ALONE, (0.5, 0.5))
    assert requests.run(60.0, 500) == requests.run(60.0, 500)


def test_the_verb_measures_and_simulates(tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdcompress.serving.capacity._MOST_REQUESTS", 200)
    artifact = tiny_artifact(policy=(0.7, 0.6))
    result = sdcompress.capacity(artifact, EngineOptions(threads=1), ServiceOptions(latency_bound=0.05))
    assert result.exits == ("exit1", "exit2", "final")
    assert len(result.stage_ms) == len(result.full_batch_rows) == 3
    assert 0 < result.limit_per_s <= 0.95 / 0.001
    assert [one.requests_per_s for one in result.loads] == sorted(one.requests_per_s for one in result.loads)
    assert result.loads[0].refused == 0
    with pytest.raises(UsageError, match="request_ms is -1"):
        sdcompress.capacity(artifact, request_ms=-1)
