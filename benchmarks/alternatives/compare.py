"""Early exit against what a user would pick instead: accuracy on the test images, and milliseconds in one run.

Everything that exits early has thresholds with a certificate: with 95 % confidence at most one point less accurate than
its own last network, in 8 bits than the whole network in fp32, from the validation images. The test images only report.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from two_networks import two_networks

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "speed"), str(HERE.parent / "certificates")]

from record import Record, against  # noqa: E402
from turns import calls_in_turn  # noqa: E402

import sdcompress  # noqa: E402
from sdcompress.artifact.read import Artifact, open_artifact  # noqa: E402
from sdcompress.benchmarking.stats import ratio_of_means  # noqa: E402
from sdcompress.data.samples import Dataset, Samples  # noqa: E402
from sdcompress.errors import VerificationError  # noqa: E402
from sdcompress.evaluation.trained_model import open_trained_model  # noqa: E402
from sdcompress.options import EngineOptions, Options  # noqa: E402
from sdcompress.runtime.backends.onnxruntime import load  # noqa: E402
from sdcompress.runtime.cascade import array_cascade  # noqa: E402
from sdcompress.runtime.engine import ExitCost, Float  # noqa: E402
from sdcompress.runtime.open import open_engine, open_one_graph  # noqa: E402

POLICIES = ("max_prob", "margin", "entropy", "pcee", "learned", "fixed")
POLICIES_IN_UINT8 = ("max_prob", "learned", "margin")
DROP, CONFIDENCE = 0.01, 0.95
TIMED = 1000  # test images, in random order


@dataclass(frozen=True)
class Row:
    """One way to answer.

    Attributes:
        name: in the table.
        call: from inputs [B, C, H, W] to classes [B].
        timed: what is timed: the same without the argmax of the caller.
        exits: from inputs to the exit of each; None: there is one.
        said: what else is to be said.
        predicted_ms: the mean time that the calibration says.
        cost: of an image that runs to the end.
    """

    name: str
    call: Callable[[Float], npt.NDArray[np.int64]]
    timed: Callable[[Float], Any]
    exits: Callable[[Float], npt.NDArray[np.int64]] | None = None
    said: str = ""
    predicted_ms: float | None = None
    cost: ExitCost | None = None


def of_engine(name: str, engine: Any, said: str = "", predicted_ms: float | None = None) -> Row:
    several = len(engine.exit_names) > 1
    return Row(
        name,
        lambda inputs: engine(inputs).decision,
        engine,
        (lambda inputs: engine(inputs).exit_index) if several else None,
        said,
        predicted_ms,
        engine.exit_costs[-1],
    )


def rows(given: argparse.Namespace, folder: Path, dataset: Dataset) -> Iterator[Row]:
    """Every candidate; the whole self-distilled network first."""
    cascade = made(folder / "cascade", given.run, given.data_dir, layout="cascade")
    names = [exit_.name for exit_ in open_artifact(cascade).manifest.exits]
    singles = {
        exit_: made(folder / exit_, given.run, given.data_dir, layout="single", truncate_at=exit_)
        for exit_ in reversed(names)
    }
    for exit_, single in singles.items():
        what = "whole network" if exit_ == names[-1] else f"truncated at {exit_}"
        yield of_engine(f"{what}, self-distilled", open_engine(single, threads=1))
    for policy in POLICIES:
        yield certified(f"early exit, {policy}", cascade, folder / f"certified-{policy}", policy, given.data_dir)
    yield from of_earlyon(cascade, dataset.split("validation"))
    plain = made(folder / "plain", given.plain, given.data_dir, layout="single")
    yield of_engine("whole network, trained without exits", open_engine(plain, threads=1))
    if given.small:
        small = made(folder / "small", given.small, given.data_dir, layout="single")
        yield of_engine("smaller network, trained as long", open_engine(small, threads=1))
        two_networks(small, singles[names[-1]], folder / "two")
        yield certified(
            "two networks: smaller, then whole", folder / "two", folder / "two-certified", "max_prob", given.data_dir
        )
    whole, data_dir = singles[names[-1]], given.data_dir
    for precision in ("int8", "uint8"):
        path = quantised(whole, folder / precision, data_dir, precision)
        yield of_engine(f"whole network in {precision}", open_engine(path, threads=1), "sdcompress quantize")
    cascade_in_8_bits = quantised(cascade, folder / "cascade-uint8", data_dir)
    for policy in POLICIES_IN_UINT8:
        out = folder / f"uint8-certified-{policy}"
        yield certified(f"uint8, early exit, {policy}", cascade_in_8_bits, out, policy, data_dir, against=whole)
    yield from one_graph("uint8, early exit, margin, in one graph", out, folder / "uint8-graph", data_dir)
    yield from of_chosen_exits(given, folder, names, whole)


def made(out: Path, run: Path, data_dir: Path | None, settings: Any = None, **what: Any) -> Path:
    """Export, unless that was done before."""
    if not out.exists():
        sdcompress.export(run, out, settings, Options(data_dir=data_dir), **what)
    return out


def certified(
    name: str,
    cascade: Path,
    out: Path,
    policy: str,
    data_dir: Path | None,
    *,
    against: Path | None = None,
    confidence: float = CONFIDENCE,
) -> Row:
    manifest = sdcompress.calibrate(
        cascade,
        out,
        {"policy": policy, "max_drop": DROP, "confidence": confidence},
        Options(data_dir=data_dir),
        reference=against,
        overwrite=True,
    )
    assert manifest.policy is not None
    found = manifest.policy
    return of_engine(name, open_engine(out, threads=1), found.guarantee, found.mean_ms)


def of_earlyon(cascade: Path, samples: Samples) -> Iterator[Row]:
    """The thresholds that earlyon 0.3.0 chooses for the same drop, run by our cascade: its own needs torch modules."""
    if find_spec("earlyon") is None:
        print("earlyon is not installed: no row for it")
        return
    from calibrators import Held, earlyon

    from sdcompress.calibration.stage_timing import stage_ms
    from sdcompress.evaluation.exit_outcomes import exit_outputs

    artifact = open_artifact(cascade)
    engine = open_engine(cascade, threads=1)
    held = Held(exit_outputs(engine, samples), samples.targets, stage_ms(engine, samples))
    chosen = earlyon(held, np.arange(len(samples)), DROP)
    policy = open_artifact(cascade.with_name("certified-max_prob")).manifest.policy
    assert policy is not None
    changed = {"thresholds": chosen.thresholds, "guarantee": "none"}
    manifest = artifact.manifest.model_copy(update={"policy": policy.model_copy(update=changed)})
    network = array_cascade(
        Artifact(artifact.path, manifest),
        lambda segment: load(artifact.file(segment), segment, threads=1, device="cpu"),
    )
    yield of_engine("early exit, thresholds of earlyon 0.3.0", network, "none")


def quantised(artifact: Path, out: Path, data_dir: Path | None, precision: str = "uint8") -> Path:
    """In 8 bits, unless that was done before."""
    if not out.exists():
        sdcompress.quantize(artifact, out, precision, None, Options(data_dir=data_dir))
    return out


def of_chosen_exits(given: argparse.Namespace, folder: Path, names: list[str], whole: Path) -> Iterator[Row]:
    """The choice of exits that is fastest by its calibration, in fp32 and in uint8.

    Every choice is certified with 1 - 0.05 / choices, so that the one that is taken keeps 95 %.
    """
    choices = [kept for count in (1, 2, 3) for kept in combinations(names[:-1], count)]
    confidence = 1 - (1 - CONFIDENCE) / len(choices)
    for precision in ("fp32", "uint8"):
        found = []
        for kept in choices:
            at = folder / f"kept-{'-'.join(kept)}"
            artifact = made(at, given.run, given.data_dir, settings={"keep_exits": kept}, layout="cascade")
            if precision == "uint8":
                artifact = quantised(artifact, at.with_name(f"{at.name}-uint8"), given.data_dir)
            out = artifact.with_name(f"{artifact.name}-certified")
            name = f"{precision}, early exit, margin, only {' and '.join(kept)}"
            found.append(certified(name, artifact, out, "margin", given.data_dir, against=whole, confidence=confidence))
        yield min(found, key=lambda row: row.predicted_ms or float("inf"))


def one_graph(name: str, calibrated: Path, out: Path, data_dir: Path | None) -> Iterator[Row]:
    """The same in one file that exits by itself, if that was not refused for being no faster."""
    try:
        sdcompress.export(calibrated, out, None, Options(data_dir=data_dir), layout="graph", overwrite=True)
    except VerificationError as error:
        print(f"{name}: {error.problem}")
        return
    engine = open_one_graph(out, EngineOptions(threads=1))
    yield Row(name, lambda inputs: engine(inputs).decision, engine, lambda inputs: engine(inputs).exit_index)


def measure(found: list[Row], dataset: Dataset, rounds: int, seconds: float) -> list[dict[str, Any]]:
    samples = dataset.split("test")
    engine = found[0].timed
    order = np.random.default_rng(0).permutation(len(samples))
    inputs = engine.preprocess(samples.examples(order))  # type: ignore[attr-defined]
    labels = samples.targets[order]
    right = {row.name: _in_batches(row.call, inputs) == labels for row in found}
    images = [inputs[at : at + 1] for at in range(TIMED)]
    times = calls_in_turn({row.name: row.timed for row in found}, images, rounds=rounds, seconds=seconds)
    whole = found[0].name
    table = []
    for row in found:
        gap = right[whole].astype(float) - right[row.name]
        spread = 1.96 * gap.std(ddof=1) / np.sqrt(len(gap))
        took = np.concatenate(times[row.name])
        line = {
            "row": row.name,
            "test_accuracy": round(float(right[row.name].mean()), 4),
            "drop_points": [round(100 * float(gap.mean() + at * spread), 2) for at in (0, -1, 1)],
            "mean_ms": round(float(took.mean()), 4),
            "p50_ms": round(float(np.percentile(took, 50)), 4),
            "p95_ms": round(float(np.percentile(took, 95)), 4),
            "speed_up": against(ratio_of_means(times[whole], times[row.name]), None),
            "said": row.said,
        }
        if row.cost is not None:
            line |= {"macs_to_the_end": row.cost.macs, "parameters": row.cost.parameters}
        if row.predicted_ms is not None:
            line |= {
                "predicted_ms": round(row.predicted_ms, 4),
                "predicted / measured": round(row.predicted_ms / took.mean(), 4),
            }
        if row.exits is not None:
            left = _in_batches(row.exits, inputs)
            line["shares"] = [round(float((left == exit_).mean()), 4) for exit_ in range(int(left.max()) + 1)]
        table.append(line)
        print(json.dumps(line), flush=True)
    return table


def _in_batches(call: Callable[[Float], npt.NDArray[np.int64]], inputs: Float) -> npt.NDArray[np.int64]:
    return np.concatenate([call(inputs[at : at + 200]) for at in range(0, len(inputs), 200)])


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--run", type=Path, required=True, help="trained with exits (half.yaml)")
    read.add_argument("--plain", type=Path, required=True, help="the same network trained without exits")
    read.add_argument("--small", type=Path, help="the smaller network, trained as long")
    read.add_argument("--name", default="compare", help="of the JSON")
    read.add_argument("--folder", type=Path, required=True, help="for the artifacts")
    read.add_argument("--data-dir", type=Path)
    read.add_argument("--rounds", type=int, default=20)
    read.add_argument("--seconds", type=float, default=0.3, help="of one turn")
    given = read.parse_args()
    record = Record(HERE, given.name)
    given.folder.mkdir(parents=True, exist_ok=True)
    dataset = open_trained_model(given.run, Options(data_dir=given.data_dir)).dataset()
    found = list(rows(given, given.folder, dataset))
    table = measure(found, dataset, given.rounds, given.seconds)
    record.write({"rows": table}, threads=1, batch=1, max_drop=DROP, confidence=CONFIDENCE, images=TIMED)


if __name__ == "__main__":
    main()
