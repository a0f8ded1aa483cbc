"""Run all exits of a network once: what they and their ensembles say of the search samples, and what they cost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import reduce
from operator import itemgetter
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt

from sdcompress.calibration.stage_timing import decision_ms, stage_ms
from sdcompress.compression.candidates import Decided, Outcomes, subsets
from sdcompress.data.lengths import sorted_by_length
from sdcompress.data.samples import Samples
from sdcompress.evaluation.exit_outcomes import batches, check_finite, exit_losses
from sdcompress.policies import policy_class
from sdcompress.policies._base import Signals
from sdcompress.progress import Progress
from sdcompress.runtime.engine import Engine
from sdcompress.tasks import Task

__all__ = ["ensemble_ms", "ensembles_of", "outcomes_of", "run_exits"]

_BATCH = 256
_TIMED = 50  # ensembles, whose median is taken

Float = npt.NDArray[np.float32]
Members = tuple[int, ...]


def outcomes_of(
    cascade: Engine,
    whole: Engine,
    samples: Samples,
    *,
    source: int,
    label: str,
    precision: str,
    policies: Sequence[str],
    ensembles: bool,
    threads: int,
    progress: Progress | None = None,
) -> Outcomes:
    """Return what the candidates of a network in one precision are estimated from.

    Args:
        cascade: the network with all its exits.
        whole: its last exit alone.
        samples: of the search.
        source: index of the checkpoint.
        label: of the checkpoint, in names.
        precision: of the graphs.
        policies: that are tried for cascades.
        ensembles: also of exits, where the task has such a mean.
        threads: of torch, which computes the terms of ensembles.
        progress: called with (samples done, all samples).
    """
    from sdcompress.models.threads import torch_threads

    exits = cascade.exit_names
    with torch_threads(threads):
        averaging_ms = ensemble_ms(cascade.task) if ensembles and len(exits) > 1 else None
        members = [] if averaging_ms is None else ensembles_of(subsets(len(exits)))
        signals, loss = run_exits(cascade, samples, members, progress)
    own, own_loss = signals[: len(exits)], loss[: len(exits)]
    averaged = zip(members, signals[len(exits) :], loss[len(exits) :], strict=True)
    reach_ms = np.cumsum(stage_ms(cascade, samples))
    return Outcomes(
        source=source,
        label=label,
        exits=exits,
        precision=precision,
        signals=own,
        loss=own_loss,
        reach_ms=reach_ms,
        whole_ms=sum(stage_ms(whole, samples)) if len(exits) > 1 else float(reach_ms[-1]),
        decision_ms={
            name: decision_ms(policy_class(name).fit(own, own_loss), own)
            for name in policies
            if len(exits) >= max(2, policy_class(name).least_exits)
        },
        ensembles={exits_: Decided(*decided) for exits_, *decided in averaged},
        ensemble_ms=averaging_ms or 0.0,
    )


def ensembles_of(cascades: Iterable[Members]) -> list[Members]:
    """Return the exits of every ensemble that these cascades have, each once: at an exit, the kept ones up to it."""
    return list(dict.fromkeys(kept[: rank + 1] for kept in cascades for rank in range(len(kept))))


def run_exits(
    engine: Engine, samples: Samples, ensembles: Collection[Members], progress: Progress | None = None
) -> tuple[tuple[Signals, ...], Float]:
    """Return the signals and the losses of all exits, then those of ensembles, for all samples.

    The network runs once, however many ensembles there are: they are means of its outputs. Only of one batch are the
    outputs, and decisions that are large, in memory.

    Args:
        engine: runs the exits.
        samples: N of them.
        ensembles: indices of the exits of each.
        progress: called with (samples done, all samples).

    Returns:
        The signals of E exits and M ensembles, and float32 [E + M, N].

    Raises:
        DataError: if a target does not fit the task.
        VerificationError: if an output is not finite.
    """
    samples, back = sorted_by_length(samples, engine.modality)
    parts, losses = [], []
    for inputs, targets in batches(engine, samples, _BATCH, progress):
        outputs = check_finite(engine.exits(inputs))
        signals = [engine.task.signals(one) for one in (*outputs, *_averaged(engine.task, outputs, ensembles))]
        losses.append(exit_losses(engine.task, signals, targets))
        parts.append(Signals.condensed(signals))
    joined = tuple(Signals.joined(one).map(itemgetter(back)) for one in zip(*parts, strict=True))
    return joined, np.concatenate(losses, axis=1)[:, back]


def ensemble_ms(task: Task) -> float | None:
    """Return the milliseconds that one sample's terms and their mean take in torch; None: the task has no ensemble."""
    import torch

    outputs = torch.zeros(1, *task.output_shape)
    times_ns = []
    for _ in range(_TIMED):
        start = perf_counter_ns()
        terms = task.ensemble_terms(outputs)
        if terms is None:
            return None
        _ = (terms + terms) / 2
        times_ns.append(perf_counter_ns() - start)
    return float(np.median(times_ns)) / 1e6


def _averaged(task: Task, outputs: Float, ensembles: Collection[Members]) -> Iterator[Float]:
    """Yield the outputs of each ensemble, as ``exporting.ensemble`` defines them, of those of the exits [E, B, ...]."""
    if not ensembles:
        return
    import torch

    with torch.no_grad():
        of_task = [task.ensemble_terms(torch.from_numpy(one)) for one in outputs]
    terms = [one.numpy() for one in of_task if one is not None]
    for members in ensembles:
        yield np.divide(reduce(np.add, [terms[k] for k in members]), np.float32(len(members)))
