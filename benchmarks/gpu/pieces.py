"""What is measured, in pieces of some minutes. Each returns figures, or raises ``NotMeasured`` with the reason."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
from clocks import Sample, in_turn, medians, ratio, wall

from sdcompress.artifact.certificate import plans_digest
from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.data.preprocess import normalise
from sdcompress.errors import SdcompressError
from sdcompress.policies import restore, scores
from sdcompress.runtime.engine import Float
from sdcompress.runtime.network import Network
from sdcompress.runtime.open import open_engine, open_network
from sdcompress.schema.manifest import Policy

__all__ = ["PIECES", "NotMeasured", "Place"]

PRECISIONS = ("fp32", "fp16", "int8")
BATCHES = (1, 8, 32, 64)
MIX = (0.50, 0.20, 0.15, 0.15)
POOL = 1024


class NotMeasured(Exception):
    """Why a piece cannot run here."""


@dataclass(frozen=True)
class Place:
    """Where a run reads and writes.

    Attributes:
        artifacts: made beforehand by make_artifacts.py.
        out: of the results; engines are built into it.
    """

    artifacts: Path
    out: Path

    def source(self, layout: str, precision: str) -> Path:
        """An artifact that was made beforehand."""
        path = self.artifacts / f"{layout}-{precision}"
        if not path.exists():
            raise NotMeasured(f"there is no artifact '{path.name}' in the folder of --artifacts")
        return path

    def built(self, layout: str, precision: str) -> Path:
        """The same with engines for this GPU, built by the piece ``build-PRECISION``."""
        path = self.out / "engines" / f"{layout}-{precision}"
        self.source(layout, precision)
        if not path.exists():
            raise NotMeasured(f"its engines were not built: see the piece build-{precision}")
        return path


def needs(*modules: str) -> None:
    """Say which package is missing, before anything slow."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise NotMeasured(f"this Python has no {module}")


def needs_gpu() -> None:
    """Say what is missing of driver and GPU."""
    from sdcompress.nvidia.probe import probe_cuda

    try:
        probe_cuda()
    except SdcompressError as error:
        raise NotMeasured(error.found) from error


def needs_tensorrt() -> None:
    """A GPU, TensorRT and cuda-bindings."""
    needs_gpu()
    needs("tensorrt", "cuda")


def engine(path: Path) -> Network:
    """Our engine of an artifact."""
    return open_network(path, backend="tensorrt", device="cuda", allow_uncertified=True)


def inputs_of(artifact: Artifact) -> Float:
    """The golden images as inputs, float32; what they show decides nothing about the time of a forced exit."""
    return normalise(artifact.golden().images, artifact.manifest.input.preprocess)


def ceilings(place: Place) -> dict[str, Any]:
    """What this card can do at most."""
    del place
    needs_tensorrt()
    from ceilings import copies, products

    return {"copies": copies(), "tflops": products()}


def build(place: Place, precision: str) -> dict[str, Any]:
    """Engines of the single network and of the cascade, one profile for each batch that is measured."""
    needs_tensorrt()
    from sdcompress.engines.build import build_engines
    from sdcompress.engines.settings import BuildSettings
    from sdcompress.schema.engines import BatchProfile

    single, cascade = place.source("single", precision), place.source("cascade", precision)
    sizes = tuple(BatchProfile(min=rows, opt=rows, max=rows) for rows in (1, 2, 4, 8, 16, 32, 64))
    # profiles leave no batch out between them: what lies between two sizes belongs to the larger one
    profiles = tuple(one.model_copy(update={"min": before.max + 1}) for before, one in pairwise(sizes))
    settings = BuildSettings(profiles=(sizes[0], *profiles), tf32=False)
    seconds = {}
    for source in (single, cascade):
        began = perf_counter_ns()
        build_engines(source, place.out / "engines" / source.name, settings=settings, overwrite=True)
        seconds[source.name] = round((perf_counter_ns() - began) / 1e9, 1)
    return {"build_s": seconds, "tf32": False}


def single(place: Place, precision: str) -> dict[str, Any]:
    """Our engine of the single network against a bare loop on the same plan."""
    needs_tensorrt()
    from bare import Bare

    path = place.built("single", precision)
    ours, artifact = engine(path), open_artifact(path)
    chain: Any = ours._chain  # noqa: SLF001 - its stream and its launches are what is timed
    chosen = next(e for e in artifact.manifest.engines if chain.where.plans == plans_digest(e))
    plan = artifact.file(chosen.plans[0]).read_bytes()
    found: dict[str, Any] = {}
    for rows in (size for size in BATCHES if size <= chain.largest):
        profile = next(at for at, one in enumerate(chosen.profiles) if one.min <= rows <= one.max)
        inputs, bare = np.resize(inputs_of(artifact), (rows, *ours.image)), Bare(plan, rows, profile)
        call = partial(ours.forced, inputs, -1)
        kernels = in_turn({"ours": stage_clock(chain, 0, rows), "bare": bare.compute_only})
        whole = in_turn({"ours": wall(call), "bare": partial(bare, inputs)})
        found[f"batch {rows}"] = {
            "gpu_compute": {**medians(kernels), "ours / bare": ratio(kernels, "ours", "bare", "gpu_compute")},
            "end_to_end": {**medians(whole), "ours / bare": ratio(whole, "ours", "bare", "end_to_end")},
            "target": 1.02,
        }
        bare.close()
    return {**found, "cuda graphs": recorded(chain)}


def recorded(chain: Any) -> dict[str, bool]:
    """Of which buckets all segments are replayed as CUDA graphs."""
    return {
        str(rows): all(launch.recorded for launch in launches)
        for rows, launches in zip(chain.buckets.rows, chain._launches, strict=True)  # noqa: SLF001
    }


def stage_clock(chain: Any, position: int, rows: int) -> Callable[[], Sample]:
    """The kernels of one stage between two events, what went before left as it is in memory."""
    cuda = chain.device
    marks = [cuda.event() for _ in range(2)]

    def once() -> Sample:
        cuda.record(marks[0])
        began = perf_counter_ns()
        chain.stage(position, rows)
        queued = perf_counter_ns()
        cuda.record(marks[1])
        cuda.finish()
        return {"gpu_compute": cuda.elapsed_ms(*marks), "enqueue": (queued - began) / 1e6}

    return once


def limits(place: Place, precision: str) -> dict[str, Any]:
    """Every stage of the cascade against the ceilings of the same card: counted operations and bytes, at the least."""
    needs_tensorrt()
    from ceilings import copies, products

    path = place.built("cascade", precision)
    ours, top, peaks = engine(path), copies(), products()
    chain: Any = ours._chain  # noqa: SLF001
    bandwidth, peak = top["device_gb_s"], peaks["fp16" if precision == "fp16" else "fp32"]
    if not isinstance(peak, float) or precision == "int8":
        raise NotMeasured(f"no ceiling of {precision} was measured: {peak if precision != 'int8' else 'FP16 and FP32'}")
    rows_of = [rows for rows in (1, 32, 64) if rows <= chain.largest]
    found: dict[str, Any] = {"ceilings": {"copies": top, "tflops": peaks}}
    for position, exit_ in enumerate(ours.manifest.exits):
        for rows in rows_of:
            ms = medians(in_turn({"stage": stage_clock(chain, position, rows)}, rounds=5))["stage"]
            operations, moved = counted(ours, chain, position, rows)
            least_ms = max(operations / peak / 1e9, moved / bandwidth / 1e6)
            found[f"{exit_.name}, batch {rows}"] = {
                **ms, "flops": operations, "bytes_at_least": moved, "least_ms": round(least_ms, 5),
                "bound_by": "operations" if operations / peak / 1e9 == least_ms else "bytes",
                "share_of_limit": round(least_ms / ms["gpu_compute_ms"], 3),
            }  # fmt: skip
    return found


def counted(network: Network, chain: Any, position: int, rows: int) -> tuple[int, int]:
    """Operations of a stage, two for each multiply-add, and the bytes that it must move: weights, inputs, outputs."""
    manifest, places = network.manifest, chain.memory.places
    first = manifest.exits[position - 1].segment + 1 if position else 0
    segments = manifest.segments[first : manifest.exits[position].segment + 1]
    element = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
    macs = sum(segment.macs for segment in segments)
    weights = sum(segment.parameters * element[segment.precision] for segment in segments)
    borders = sum(
        places[tensor.name].port.row_bytes for segment in segments for tensor in (*segment.inputs, *segment.outputs)
    )
    return 2 * macs * rows, weights + borders * rows


def cascade(place: Place, precision: str) -> dict[str, Any]:
    """Forced to the last exit against the single network; the host's work; a mix in batches of 32 against everybody."""
    needs_tensorrt()
    single_path, path = place.built("single", precision), place.built("cascade", precision)
    artifact, whole = open_artifact(path), engine(single_path)
    free, inputs = engine(path), inputs_of(open_artifact(path))
    found: dict[str, Any] = {}
    for rows in (1, 32):
        batch = np.resize(inputs, (rows, *inputs.shape[1:]))
        calls = {"cascade, last exit": wall(partial(free.forced, batch, -1)), "single": wall(partial(whole, batch))}
        times = in_turn(calls)
        found[f"last exit, batch {rows}"] = {
            **medians(times),
            "cascade / single": {**ratio(times, "cascade, last exit", "single", "end_to_end"), "target": 1.06},
        }
    found["host gate, us"] = gates(artifact, free, inputs)
    found["mix 50/20/15/15, batch 32"] = mix(artifact, free, inputs)
    return found


def gates(artifact: Artifact, free: Network, inputs: Float) -> dict[str, Any]:
    """What an exit costs beside its kernels: read-back, wait and decision, one image, nobody leaves."""
    exits = len(artifact.manifest.exits)
    asks = of_policy(artifact, free, policy_of((2.0,) * (exits - 1), 32))
    image = inputs[:1]
    times = in_turn({"asks": wall(partial(asks, image)), "forced": wall(partial(free.forced, image, -1))})
    made = medians(times)
    gap = made["asks"]["end_to_end_ms"] - made["forced"]["end_to_end_ms"]
    return {"each exit": round(1e3 * gap / (exits - 1), 2), "target": 15.0, **made}


def mix(artifact: Artifact, free: Network, inputs: Float) -> dict[str, Any]:
    """Images/s of the cascade, with noisy images so that scores differ, against everybody to the last exit."""
    rng = np.random.default_rng(0)
    pool = np.resize(inputs, (POOL, *inputs.shape[1:])) + rng.normal(size=(POOL, *inputs.shape[1:])).astype(np.float32)
    score = scores(restore("max_prob", {}), free.signals(pool))
    thresholds = thresholds_for(score, MIX[: len(score)] if len(score) == len(MIX) - 1 else None)
    leaves = of_policy(artifact, free, policy_of(thresholds, POOL))
    left = leaves(pool).exit_index
    batches = [pool[drawn(left, 32, seed)] for seed in range(8)]
    state = {"at": 0}

    def turn(call: Callable[[Float], Any]) -> None:
        state["at"] += 1
        call(batches[state["at"] % len(batches)])

    times = in_turn({"mix": wall(partial(turn, leaves)), "everybody": wall(partial(turn, free))})
    return {
        **medians(times),
        "images/s, mix / everybody": {**ratio(times, "everybody", "mix", "end_to_end"), "target": 1.6},
        "shares": [float((leaves(batches[0]).exit_index == exit_).mean()) for exit_ in range(len(score) + 1)],
    }


def thresholds_for(score: Any, wished: Sequence[float] | None) -> tuple[float, ...]:
    """Those at which these shares of the pool leave."""
    if wished is None:
        raise NotMeasured("the mix is of four exits; make the artifacts with --exits 3")
    here, found, rest = np.ones(score.shape[1], bool), [], 1.0
    for exit_, share in enumerate(wished):
        found.append(float(np.quantile(score[exit_, here], 1 - share / rest)))
        here &= score[exit_] < np.float32(found[-1])
        rest -= share
    return tuple(found)


def drawn(left: Any, batch: int, seed: int) -> Any:
    """A batch with the mix, as nearly as whole rows allow, in random order."""
    rng = np.random.default_rng(seed)
    counts = np.diff(np.round(np.cumsum(MIX) * batch).astype(int), prepend=0)
    chosen = [rng.choice(np.flatnonzero(left == exit_), count) for exit_, count in enumerate(counts)]
    return rng.permutation(np.concatenate(chosen))


def policy_of(thresholds: tuple[float, ...], samples: int) -> Policy:
    """A policy with these thresholds; nothing is measured in it, so that rows are always dropped."""
    return Policy(
        thresholds=thresholds, max_drop=1.0, samples=samples, accuracy=None, reference_accuracy=None,
        shares=(1.0, *(0.0,) * len(thresholds)), stage_ms=(1.0,) * (len(thresholds) + 1),
    )  # fmt: skip


def of_policy(artifact: Artifact, network: Network, policy: Policy) -> Network:
    """The same chain under another policy."""
    changed = Artifact(artifact.path, artifact.manifest.model_copy(update={"policy": policy}))
    return Network(changed, network._chain)  # noqa: SLF001 - its engines are opened once


def torch_beside(place: Place) -> dict[str, Any]:
    """Torch eager and compiled, FP32 and FP16, of the same network; TensorRT beside it where this Python has it."""
    needs("torch")
    import torch

    if not torch.cuda.is_available():
        raise NotMeasured("torch sees no GPU")
    checkpoint = place.artifacts / "checkpoint"
    if not checkpoint.exists():
        raise NotMeasured("there is no 'checkpoint' in the folder of --artifacts")
    from yardsticks import torch_calls

    found: dict[str, Any] = {}
    for rows in (1, 64):
        calls = torch_calls(checkpoint, rows)
        for precision in PRECISIONS[:2]:
            ours = _ours(place, precision, rows)
            if isinstance(ours, str):
                found[f"ours {precision}"] = ours
            else:
                calls[f"ours {precision}"] = ours
        times = in_turn(calls, rounds=6)
        found[f"batch {rows}"] = {
            **medians(times),
            "times against eager fp32": {
                name: ratio(times, "eager fp32", name, "end_to_end") for name in calls if name != "eager fp32"
            },
        }
    return found


def _ours(place: Place, precision: str, rows: int) -> Callable[[], Sample] | str:
    """Our engine in the same process as torch, or why it cannot be there."""
    try:
        path = place.built("single", precision)
        needs_tensorrt()
        network = engine(path)
    except (NotMeasured, SdcompressError) as error:
        return f"not measured: {str(error).splitlines()[0]}"
    batch = np.resize(inputs_of(open_artifact(path)), (rows, *network.image))
    return wall(partial(network, batch))


def ort_cuda(place: Place, precision: str = "fp32") -> dict[str, Any]:
    """ONNX Runtime on CUDA, from arrays to arrays."""
    needs_gpu()
    needs("onnxruntime")
    path = place.source("single", precision)
    try:
        network = open_engine(path, device="cuda", allow_uncertified=True)
    except SdcompressError as error:
        raise NotMeasured(error.found) from error
    inputs, found = inputs_of(open_artifact(path)), {}
    for rows in BATCHES:
        batch = np.resize(inputs, (rows, *inputs.shape[1:]))
        found[f"batch {rows}"] = medians(in_turn({"onnxruntime cuda": wall(partial(network, batch))}, rounds=5))
    return found


PIECES: dict[str, Callable[[Place], dict[str, Any]]] = {
    "ceilings": ceilings,
    **{
        f"{name}-{precision}": partial(piece, precision=precision)
        for precision in PRECISIONS
        for name, piece in (("build", build), ("single", single), ("cascade", cascade), ("limits", limits))
    },
    "torch": torch_beside,
    "onnxruntime": ort_cuda,
}
