"""Measure what a user could deploy instead: metric, milliseconds, size, MACs and hash of every row of a plan.

    python benchmarks/answers/answer.py ROOT [KIND ...] [--train]

ROOT has a folder for each kind (a file of ``plans/``) with its data as ``data`` and its checkpoints and artifacts by
the names of the plan. What is missing and needs no training is exported, quantised and calibrated first; ``--train``
also prunes and trains, and goes on with trainings that were interrupted. Rows whose training is not finished are "not
measured". The rows of a kind are timed in interleaved rounds, one sample at a time, on one thread. ``<kind>.json`` has
the figures; ``table.md``, ``<kind>.svg`` (against the mean time) and ``<kind>-p50.svg`` are drawn from it (draw.py).
Evaluations are kept in ROOT/KIND/evaluations, by the artifact's digest.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "speed"), str(HERE)]

from draw import draw_all  # noqa: E402
from record import Record  # noqa: E402

import sdcompress  # noqa: E402
from sdcompress.artifact.read import open_artifact  # noqa: E402
from sdcompress.benchmarking.candidate import bench_samples  # noqa: E402
from sdcompress.benchmarking.timed_calls import TimedCall, clock_of, no_collection, split  # noqa: E402
from sdcompress.calibration.guarantee import split_of  # noqa: E402
from sdcompress.calibration.stage_timing import call_times, stage_ms  # noqa: E402
from sdcompress.checkpoint import open_checkpoint  # noqa: E402
from sdcompress.data.samples import Dataset, Subset  # noqa: E402
from sdcompress.errors import CheckpointError  # noqa: E402
from sdcompress.evaluation.paired import metric_difference  # noqa: E402
from sdcompress.evaluation.trained_model import open_trained_model  # noqa: E402
from sdcompress.options import EngineOptions, Options  # noqa: E402
from sdcompress.policies import exit_index_of  # noqa: E402
from sdcompress.reporting.quantities import ends  # noqa: E402
from sdcompress.reporting.report.build import build  # noqa: E402
from sdcompress.reporting.report.rows import error_of, own_exits, score_of  # noqa: E402
from sdcompress.runtime.open import open_cascade, open_one_graph  # noqa: E402
from sdcompress.schema.manifest import OneGraph, Policy  # noqa: E402
from sdcompress.schema.report import BenchReport, Evaluation, ReportRow  # noqa: E402

Figures = dict[str, Any]
ROUNDS, SECONDS = 10, 0.5  # in which a prediction is compared with test samples


@dataclass(frozen=True)
class Plan:
    """What is compared for one kind of data.

    Attributes:
        kind: name of the plan.
        folder: of the data, the checkpoints and the artifacts.
        seconds: of the timed calls of each row.
        further: name of a further metric of the task -> how the table calls it; with a % at its end, a share.
        make: name in the folder -> the arguments of sdcompress that write it.
        rows: name, kind and artifact of each, and a label where the plots show it; the first is the reference.
        title: network and data, for the page.
        example: of one sample, for the page.
        score: how the page calls the metric; default: as the task does.
    """

    kind: str
    folder: Path
    title: str
    example: str
    seconds: float
    make: dict[str, str]
    rows: list[dict[str, str]]
    further: dict[str, str]
    score: str = ""

    @classmethod
    def read(cls, kind: str, root: Path) -> Plan:
        """Read ``plans/<kind>.yaml``."""
        return cls(kind, root / kind, **yaml.safe_load((HERE / "plans" / f"{kind}.yaml").read_text(encoding="utf-8")))

    @property
    def options(self) -> Options:
        """One thread, the data of this kind, and its module in this folder."""
        return Options(threads=1, data_dir=self.folder / "data", trust_modules=True)

    def path(self, row: dict[str, str]) -> Path:
        """Return the folder of a row's artifact."""
        return self.folder / row["artifact"]


def make(plan: Plan, *, train: bool) -> None:
    """Run the commands of what is missing, in order, in the folder of the plan; what fails leaves its rows out.

    Args:
        plan: of the kind.
        train: prune and train too; else only export, quantise and calibrate what there is.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    for name, command in plan.make.items():
        verb, source, *_ = arguments = shlex.split(command)
        trains, out = verb in {"train", "prune"}, plan.folder / name
        begun = verb == "train" and out.exists() and not out.is_symlink() and not finished(out)
        if (out.exists() and not begun) or (trains and not train):
            continue
        if verb != "train" and not finished(plan.folder / source):
            continue
        words = ["-m", "sdcompress", *arguments, "--data-dir", "data", "--out", name]
        print(f"{plan.kind}: {shlex.join(['python', *words])}", flush=True)
        if subprocess.run([sys.executable, *words], cwd=plan.folder, env=environment, check=False).returncode:
            print(f"{plan.kind}: {name} is not there, its rows will say 'not measured'", flush=True)


def finished(source: Path) -> bool:
    """Return whether a checkpoint or an artifact can be used: it is there, and its training is finished."""
    if (source / "manifest.json").exists():
        return True
    try:
        return open_checkpoint(source).state.finished
    except CheckpointError:
        return False


def evaluated(plan: Plan, row: dict[str, str]) -> Evaluation:
    """Return the evaluation of a row's artifact on the test split, kept from an earlier run if it is the same."""
    kept = plan.folder / "evaluations" / f"{open_artifact(plan.path(row)).manifest.digest}.json"
    if not kept.is_file():
        evaluation = sdcompress.evaluate(plan.path(row), plan.options, name=row["name"])
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(evaluation.model_dump_json(), encoding="utf-8")
    evaluation = Evaluation.model_validate_json(kept.read_text(encoding="utf-8"))
    return evaluation.model_copy(update={"name": row["name"]})


class _AsOneGraph:
    """A cascade whose calls run its one graph."""

    def __init__(self, artifact: Path) -> None:
        self._cascade = open_cascade(artifact, EngineOptions(threads=1))
        self._graph = open_one_graph(artifact, EngineOptions(threads=1))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cascade, name)

    def with_policy(self, *_: Any) -> Any:
        return self._graph

    def __call__(self, inputs: Any) -> Any:
        return self._graph(inputs)


def predicted(artifact: Path, dataset: Dataset, clock: Literal["wall", "thread"]) -> Figures | None:
    """Return the mean that ``calibrate`` predicts and the mean of test samples, in ms, measured in interleaved rounds.

    In each round the exits are timed on the samples that certified the artifact, as ``calibrate`` does it, and then
    test samples run in random order. So what else the machine does changes both. None: there is no policy.
    """
    opened = open_artifact(artifact)
    manifest = opened.manifest
    if manifest.policy is None:
        return None
    engine: Any = _AsOneGraph(artifact) if manifest.one_graph else open_cascade(opened, EngineOptions(threads=1))
    reads = clock_of(clock)
    validation = dataset.split("validation")
    samples = Subset(validation, split_of(manifest, validation)[0].certify)
    policy = manifest.policy.model_copy(update={"stage_ms": stage_ms(engine, samples)})
    exits = exit_index_of(opened.evidence().scores, policy.thresholds)
    examples, _ = bench_samples(dataset.split("test"))
    timed = TimedCall(engine, split(engine.modality.collate(examples), 1), reads)
    temperatures = [exit_.temperature for exit_ in manifest.exits]
    policies = []
    with no_collection():
        for _ in range(ROUNDS):
            times = call_times(engine, samples, policy, temperatures, exits, seconds=SECONDS, clock=reads)
            policies.append(policy.model_copy(update=times._asdict()))
            timed.measure(SECONDS)
    shares = np.bincount(timed.exit_index[:, 0], minlength=len(policy.shares)) / len(timed.ms)
    return prediction(policies, shares.tolist(), [float(ms.mean()) for ms in timed.rounds])


def prediction(policies: Sequence[Policy], shares: Sequence[float], measured_ms: Sequence[float]) -> Figures:
    """Return predicted and measured ms and their ratios, each ratio with its 95 % interval over the rounds.

    Args:
        policies: of each round, with the times of their exits.
        shares: of the test samples at each exit.
        measured_ms: mean of the test samples of each round.
    """
    measured = np.asarray(measured_ms)
    found: Figures = {"measured_ms": float(measured.mean()), "calibration_shares": policies[0].shares, "shares": shares}
    for name, at in (("", policies[0].shares), ("at_test_shares_", shares)):
        ms = np.array([policy.expected_ms(at) for policy in policies])
        ratio, spread = ms.mean() / measured.mean(), 1.96 * (ms / measured).std(ddof=1) / len(ms) ** 0.5
        found |= {f"{name}ms": float(ms.mean()), f"{name}ratio": [ratio, ratio - spread, ratio + spread]}
    return found


def measure(plan: Plan, rounds: int, clock: Literal["wall", "thread"]) -> Figures | None:
    """Evaluate and time all rows that there are; the first of them is the reference. None: there are none."""
    rows = [row for row in plan.rows if plan.path(row).exists()]
    if not rows:
        print(f"{plan.folder} holds no artifact of plans/{plan.kind}.yaml: add --train", flush=True)
        return None
    print(f"{plan.kind}: {len(rows)} of {len(plan.rows)} rows", flush=True)
    evaluations = {row["name"]: evaluated(plan, row) for row in rows}
    graphs = {row["name"]: open_artifact(plan.path(row)).manifest.one_graph for row in rows}
    dataset = open_trained_model(plan.path(rows[0]), plan.options).dataset()
    predictions = {row["name"]: predicted(plan.path(row), dataset, clock) for row in rows}
    bench = sdcompress.bench(
        [plan.path(row) for row in rows],
        {"scenarios": ["single-stream"], "duration_s": plan.seconds, "rounds": rounds, "clock": clock},
        plan.options,
        names=list(evaluations),
    )
    report = build(
        title=plan.title,
        command="",
        artifacts={row["name"]: plan.path(row) for row in rows},
        evaluations=list(evaluations.values()),
        benches=[bench],
        reference=rows[0]["name"],
    )
    found = {
        row.name: figures(row, graphs[row.name], bench, evaluations) | {"prediction": predictions[row.name]}
        for row in report.rows
    }
    return {
        "title": plan.title,
        "example": plan.example,
        "metric": report.metric_name,
        "score": plan.score or report.metric_name,
        "test_samples": evaluations[rows[0]["name"]].samples,
        "further": plan.further,
        "rows": [{**row, **found.get(row["name"], {"missing": True})} for row in plan.rows],
    }


def figures(
    row: ReportRow, one_graph: OneGraph | None, bench: BenchReport, evaluations: Mapping[str, Evaluation]
) -> Figures:
    """Return what is known of a row: times in ms, scores in [0, 1], values with the ends of their 95 % interval.

    Args:
        row: of the report.
        one_graph: that exits by itself, of the row's artifact; where there is one, its times are taken.
        bench: of all rows.
        evaluations: of all rows, the reference first, on the test split; from all others the paired difference is kept.
    """
    name = f"{row.name} (one graph)" if one_graph else row.name
    record = next(one for one in bench.records if one.name == name)
    reference, evaluation = next(iter(evaluations.values())), evaluations[row.name]
    faster = next((one for one in bench.comparisons if (one.name, one.reference) == (name, reference.name)), None)
    score, latency = score_of(evaluation), record.latency
    percentiles = {one.percent: one.value_ms for one in latency.percentiles}
    assert score is not None
    differences = {other.name: paired(evaluation, other) for other in evaluations.values() if other is not evaluation}
    scores = evaluation.policy or own_exits(evaluation)[-1]
    return {
        "digest": row.digest,
        "guarantee": row.guarantee,
        "metric": [score, *ends(score, evaluation.samples, error_of(evaluation))],
        "difference": differences.get(reference.name),
        "differences": differences,
        "further": scores.further,
        "shares": evaluation.policy and evaluation.policy.shares,
        "mean_ms": latency.mean_ms,
        "p50_ms": percentiles.get(50.0),
        "p99_ms": percentiles.get(99.0),
        "speedup": faster and [faster.speedup_mean, faster.mean_low, faster.mean_high],
        "macs": row.macs,
        "parameters": row.parameters,
        "bytes": row.bytes if one_graph is None else one_graph.bytes,
        "calls": latency.samples,
        "stable": record.stable,
        "reasons": record.reasons,
    }


def paired(evaluation: Evaluation, other: Evaluation) -> list[float] | None:
    """Return the difference of the metric from another row with its ends, paired over the test samples."""
    difference = metric_difference(evaluation, other)
    return difference and [difference.value, difference.low, difference.high]


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("root", type=Path)
    read.add_argument("kinds", nargs="*", help="default: all that have a folder in ROOT")
    read.add_argument("--train", action="store_true", help="first prune and train what is missing or was interrupted")
    read.add_argument("--rounds", type=int, default=20)
    read.add_argument("--seconds", type=float, help="of each row; default: of the plan")
    read.add_argument(
        "--processor-time", action="store_true", help="of the thread, where other work keeps the machine busy"
    )
    given = read.parse_args()
    clock: Literal["wall", "thread"] = "thread" if given.processor_time else "wall"
    kinds = given.kinds or [
        plan.stem for plan in sorted((HERE / "plans").glob("*.yaml")) if (given.root / plan.stem).is_dir()
    ]
    for kind in kinds:
        plan = Plan.read(kind, given.root)
        if given.seconds:
            plan = replace(plan, seconds=given.seconds)
        make(plan, train=given.train)
        record = Record(HERE, kind)
        settings = {"seconds": plan.seconds, "rounds": given.rounds, "processor_time": given.processor_time}
        if measured := measure(plan, given.rounds, clock):
            record.write(measured, threads=1, batch=1, **settings)
    draw_all()


if __name__ == "__main__":
    main()
