"""Measure the latency of a network as it will run: exported to its last exit, in ONNX Runtime, by one thread."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from sdcompress.benchmarking.timed_calls import TimedPreparation, interleaved
from sdcompress.exporting.graph import export_all_exits
from sdcompress.exporting.layout import cut_layout
from sdcompress.modalities import Inputs, Modality
from sdcompress.models.multiexit import MultiExit
from sdcompress.onnx_graph.cpu_session import cpu_session
from sdcompress.tasks import Task

__all__ = ["Latencies", "milliseconds", "session"]

# a fifth of a second for each network
_ROUNDS, _SECONDS, _WARM_UP_MS = 20, 0.01, 20.0

Latencies = tuple[float, float]


def session(net: MultiExit, task: Task, modality: Modality) -> Any:
    """Return a session of ONNX Runtime with one thread, of the network to its last exit.

    Raises:
        UsageError: if torch cannot export it.
    """
    graph = export_all_exits(net.logits_only(), net.exit_names, modality)
    layout = cut_layout(graph, "single", net.exit_names[-1:], task)
    return cpu_session(layout.graphs["model.onnx"], threads=1)


def milliseconds(whole: Any, pruned: Any, inputs: Inputs) -> Latencies:
    """Return the median times of both networks for one sample, in interleaved rounds.

    Args:
        whole: session of the network before.
        pruned: session of the network after.
        inputs: of one sample.
    """
    feed: Mapping[str, Any] = dict(inputs.arrays)
    calls = [TimedPreparation(partial(_run, each), [feed]) for each in (whole, pruned)]
    for call in calls:
        call.warm_up(_WARM_UP_MS)
    for call in interleaved(calls, _ROUNDS):
        call.measure(_SECONDS)
    before, after = (float(np.median(call.ms)) for call in calls)
    return before, after


def _run(opened: Any, feed: Mapping[str, Any]) -> Any:
    return opened.run(None, feed)
