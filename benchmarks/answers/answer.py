"""Measure what a user could deploy instead: metric, milliseconds and size of every row of a plan, in one run.

    python benchmarks/answers/answer.py ROOT [KIND ...] [--train | --make]

ROOT has a folder for each kind (a file of ``plans/``) with its data as ``data`` and its checkpoints and artifacts by
the names of the plan. ``--train`` first runs the commands of the plan for those that are missing, ``--make`` only those
that train nothing. The rows of a kind are timed in interleaved rounds, one sample at a time, on one thread.
``<kind>.json`` has the figures; ``table.md`` and ``<kind>.svg`` are drawn from it (draw.py). Evaluations are kept in
ROOT/KIND/evaluations, by the artifact's digest.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import thread_time_ns
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "speed"), str(HERE)]

from draw import draw_all  # noqa: E402
from record import Record  # noqa: E402

import sdcompress  # noqa: E402
from sdcompress.artifact.read import open_artifact  # noqa: E402
from sdcompress.benchmarking import timed_calls  # noqa: E402
from sdcompress.calibration import stage_timing  # noqa: E402
from sdcompress.data.samples import Samples  # noqa: E402
from sdcompress.evaluation.paired import metric_difference  # noqa: E402
from sdcompress.evaluation.trained_model import open_trained_model  # noqa: E402
from sdcompress.options import EngineOptions, Options  # noqa: E402
from sdcompress.reporting.quantities import ends  # noqa: E402
from sdcompress.reporting.report.build import build  # noqa: E402
from sdcompress.reporting.report.rows import error_of, own_exits, score_of  # noqa: E402
from sdcompress.runtime.open import open_cascade  # noqa: E402
from sdcompress.schema.report import BenchRecord, Evaluation, ReportRow  # noqa: E402

Figures = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is compared for one kind of data.

    Attributes:
        kind: name of the plan.
        folder: of the data, the checkpoints and the artifacts.
        seconds: of the timed calls of each row.
        further: name of a further metric of the task -> how the table calls it.
        make: name in the folder -> the arguments of sdcompress that write it.
        rows: name, kind, label and artifact of each; the first is the reference.
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
        train: train networks too; else only export, quantise and calibrate those that there are.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    for name, command in plan.make.items():
        verb, source, *_ = arguments = shlex.split(command)
        possible = train if verb == "train" else (plan.folder / source).exists()
        if (plan.folder / name).exists() or not possible:
            continue
        words = ["-m", "sdcompress", *arguments, "--data-dir", "data", "--out", name]
        print(f"{plan.kind}: {shlex.join(['python', *words])}", flush=True)
        if subprocess.run([sys.executable, *words], cwd=plan.folder, env=environment, check=False).returncode:
            print(f"{plan.kind}: {name} is not there, its rows will say 'not measured'", flush=True)


def evaluated(plan: Plan, row: dict[str, str]) -> Evaluation:
    """Return the evaluation of a row's artifact on the test split, kept from an earlier run if it is the same."""
    kept = plan.folder / "evaluations" / f"{open_artifact(plan.path(row)).manifest.digest}.json"
    if not kept.is_file():
        evaluation = sdcompress.evaluate(plan.path(row), plan.options, name=row["name"])
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(evaluation.model_dump_json(), encoding="utf-8")
    evaluation = Evaluation.model_validate_json(kept.read_text(encoding="utf-8"))
    return evaluation.model_copy(update={"name": row["name"]})


def predicted_ms(artifact: Path, samples: Samples) -> float | None:
    """Return the mean time of a policy as ``calibrate`` predicts it, with stages timed on this machine now.

    The shares of the exits are those of the calibration samples. None: there is no policy.
    """
    manifest = open_artifact(artifact).manifest
    if manifest.policy is None:
        return None
    engine = open_cascade(artifact, EngineOptions(threads=1))
    policy = manifest.policy.model_copy(update={"stage_ms": stage_timing.stage_ms(engine, samples)})
    factor = stage_timing.overhead(engine, samples, policy, [exit_.temperature for exit_ in manifest.exits])
    return policy.model_copy(update={"overhead": factor}).mean_ms


def measure(plan: Plan, rounds: int) -> Figures:
    """Evaluate and time all rows that there are; the first of them is the reference."""
    rows = [row for row in plan.rows if plan.path(row).exists()]
    if not rows:
        raise SystemExit(f"{plan.folder} holds no artifact of plans/{plan.kind}.yaml: add --make or --train")
    print(f"{plan.kind}: {len(rows)} of {len(plan.rows)} rows", flush=True)
    evaluations = {row["name"]: evaluated(plan, row) for row in rows}
    validation = open_trained_model(plan.path(rows[0]), plan.options).dataset().split("validation")
    predicted = {row["name"]: predicted_ms(plan.path(row), validation) for row in rows}
    bench = sdcompress.bench(
        [plan.path(row) for row in rows],
        {"scenarios": ["single-stream"], "duration_s": plan.seconds, "rounds": rounds},
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
    reference = evaluations[rows[0]["name"]]
    timed = {record.name: record for record in bench.records}
    found = {
        row.name: figures(row, timed[row.name], evaluations[row.name], reference)
        | {"predicted_ms": predicted[row.name]}
        for row in report.rows
    }
    return {
        "title": plan.title,
        "example": plan.example,
        "metric": report.metric_name,
        "score": plan.score or report.metric_name,
        "test_samples": reference.samples,
        "further": plan.further,
        "rows": [{**row, **found.get(row["name"], {"missing": True})} for row in plan.rows],
    }


def figures(row: ReportRow, record: BenchRecord, evaluation: Evaluation, reference: Evaluation) -> Figures:
    """Return what is known of a row: times in ms, scores in [0, 1], values with the ends of their 95 % interval."""
    score, latency = score_of(evaluation), record.latency
    assert score is not None
    difference = None if evaluation is reference else metric_difference(evaluation, reference)
    scores = evaluation.policy or own_exits(evaluation)[-1]
    return {
        "digest": row.digest,
        "guarantee": row.guarantee,
        "metric": [score, *ends(score, evaluation.samples, error_of(evaluation))],
        "difference": difference and [difference.value, difference.low, difference.high],
        "further": scores.further,
        "shares": evaluation.policy and evaluation.policy.shares,
        "mean_ms": latency.mean_ms,
        "p50_ms": row.p50_ms,
        "p99_ms": row.p99_ms,
        "speedup": row.speedup and [row.speedup, row.speedup_low, row.speedup_high],
        "macs": row.macs,
        "parameters": row.parameters,
        "bytes": row.bytes,
        "calls": latency.samples,
        "stable": record.stable,
        "reasons": record.reasons,
    }


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("root", type=Path)
    read.add_argument("kinds", nargs="*", help="default: all that have a folder in ROOT")
    read.add_argument("--make", action="store_true", help="first export, quantise and calibrate what is missing")
    read.add_argument("--train", action="store_true", help="first train what is missing too")
    read.add_argument("--rounds", type=int, default=20)
    read.add_argument("--seconds", type=float, help="of each row; default: of the plan")
    read.add_argument(
        "--processor-time", action="store_true", help="of the thread, where other work keeps the machine busy"
    )
    given = read.parse_args()
    if given.processor_time:
        timed_calls.perf_counter_ns = stage_timing.perf_counter_ns = thread_time_ns
    kinds = given.kinds or [
        plan.stem for plan in sorted((HERE / "plans").glob("*.yaml")) if (given.root / plan.stem).is_dir()
    ]
    for kind in kinds:
        plan = Plan.read(kind, given.root)
        if given.seconds:
            plan = Plan(**{**vars(plan), "seconds": given.seconds})
        if given.make or given.train:
            make(plan, train=given.train)
        record = Record(HERE, kind)
        settings = {"seconds": plan.seconds, "rounds": given.rounds, "processor_time": given.processor_time}
        record.write(measure(plan, given.rounds), threads=1, batch=1, **settings)
    draw_all()


if __name__ == "__main__":
    main()
