"""Train every row of a plan with every seed, score it on the test split, and draw the table; run again to go on.

    python benchmarks/compare.py benchmarks/cpu --data-dir data --jobs 2

A plan (``plan.yaml`` in the folder) holds a recipe, seeds, settings (each a table of its own) and rows, each with
what it changes in the recipe and the row that it must beat. Every job is two commands that anybody can type:
``sdcompress train`` and ``sdcompress evaluate``. Where the plan's recipe has a section ``tune``, every row is first
searched by ``sdcompress tune`` with the plan's first seed and that budget, and all seeds train its best values. A row
with ``start`` starts from the network of the row that it names, and with a section ``prune`` in its recipe prunes
that first by ``sdcompress prune``; ``teacher`` names the row whose network is ``method.teacher``. What is done stands
in ``results.json`` and is not done again; a job that was stopped (Ctrl-C, ``--minutes``) goes on from its checkpoint.
Scores are of the last epoch; the test split chooses nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml
from compare_table import write_table

from sdcompress import recipes
from sdcompress.checkpoint import open_checkpoint, read_metrics
from sdcompress.errors import CheckpointError
from sdcompress.machine import machine
from sdcompress.schema.tuning import Tuning
from sdcompress.storage import digest_of, write_text
from sdcompress.training.trainer import stop_on_signal

HERE = Path(__file__).resolve().parent
INTERRUPTED = 130


@dataclass(frozen=True)
class Job:
    """One training run: a row of a setting with one seed."""

    setting: str
    row: str
    seed: int
    recipe: dict[str, Any]
    search_seed: int
    start: Job | None = None
    teacher: Job | None = None

    @property
    def name(self) -> str:
        """Where it stands in results and folders."""
        return f"{self.setting}/{self.row}/seed{self.seed}"

    @property
    def key(self) -> str:
        """Of its recipe, wherever the data lies: a plan that changes it has it done anew."""
        data = {key: value for key, value in self.recipe["data"].items() if key != "dir"}
        others = {"start": self.start, "teacher": self.teacher}
        keys = {name: job.key for name, job in others.items() if job is not None}
        return digest_of({**self.recipe, "data": data, **keys})

    @property
    def is_tuned(self) -> bool:
        """Return whether its row is searched first."""
        return "tune" in self.recipe

    @property
    def is_pruned(self) -> bool:
        """Return whether the network that it starts from is pruned first."""
        return self.start is not None and "prune" in self.recipe

    @property
    def needs(self) -> list[Job]:
        """Return the jobs whose networks it needs."""
        return [job for job in (self.start, self.teacher) if job is not None]


def merged(tree: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The tree with the change laid over it, key by key."""
    both = {key: merged(tree[key], value) for key, value in change.items() if _both_trees(tree.get(key), value)}
    return {**tree, **change, **both}


def _both_trees(one: object, other: object) -> bool:
    return isinstance(one, dict) and isinstance(other, dict)


def jobs_of(plan: dict[str, Any], data_dir: Path | None) -> list[Job]:
    """All jobs, seed by seed, so that a table with one seed is whole early."""
    found = []
    for setting, own in plan["settings"].items():
        for seed in plan["seeds"]:
            of_seed: dict[str, Job] = {}
            for row, spec in plan["rows"].items():
                tree = merged(merged(plan["recipe"], own), spec["change"])
                recipe = recipes.read({**tree, "name": "compare", "seed": seed})
                recipe = recipe.model_copy(update={"data": recipe.data.at(data_dir)})
                dumped = recipe.model_dump(mode="json", exclude_defaults=True)
                for section in tree.keys() & {"tune", "prune"}:  # also where it says what is the default
                    dumped[section] = getattr(recipe, section).model_dump(mode="json")
                others = {name: of_seed[spec[name]] for name in ("start", "teacher") if name in spec}
                of_seed[row] = Job(setting, row, seed, dumped, plan["seeds"][0], **others)
                found.append(of_seed[row])
    return found


class Running:
    """A job under way: the search of its row, if it is tuned, then training, then scoring.

    Args:
        job: which.
        runs: folder of all runs.
        threads: for each of torch's operators.
    """

    def __init__(self, job: Job, runs: Path, threads: int) -> None:
        self.job, self.folder, self.began = job, runs / job.name, time.monotonic()
        self._environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._recipe = runs / "recipes" / f"{job.name.replace('/', '-')}.yaml"
        self._recipe.parent.mkdir(parents=True, exist_ok=True)
        self._log = self._recipe.with_suffix(".log").open("w", encoding="utf-8")
        self._scores = self._recipe.with_suffix(".json")
        self._tuned, self._runs = self.folder.parent / "tuned", runs
        self._pruned = self.folder.parent / f"seed{job.seed}-pruned"
        self._write(job.recipe)
        before = [*([self._search] if job.is_tuned else []), *([self._prune] if job.is_pruned else [])]
        self._steps = [*before, self._train, self._score]
        self._process = self._steps.pop(0)()
        self._asked = False

    def poll(self) -> str | dict[str, Any] | None:
        """None while it works; then its scores, or why there are none."""
        code = self._process.poll()
        if code is None:
            return None
        if code != 0:
            return "stopped" if code == INTERRUPTED else f"failed with exit code {code}, see {self._log.name}"
        if self._asked and self._steps:
            return "stopped"
        if self._steps:
            self._process = self._steps.pop(0)()
            return None
        return dict(json.loads(self._scores.read_text(encoding="utf-8")))

    def _search(self) -> subprocess.Popen[str]:
        recipe = self._recipe.with_name(f"{self.job.setting}-{self.job.row}-search.yaml")
        searched = {**self.job.recipe, "seed": self.job.search_seed}
        recipe.write_text(yaml.safe_dump(searched, sort_keys=False), encoding="utf-8")
        return self._start("tune", "-c", str(recipe), "--out", str(self._tuned))

    def _prune(self) -> subprocess.Popen[str]:
        assert self.job.start is not None
        settings = {name: value for name, value in self.job.recipe["prune"].items() if value is not False}
        options = [
            text
            for name, value in settings.items()
            for text in (f"--{name.replace('_', '-')}", *([] if value is True else [str(value)]))
        ]
        start, data = str(self._runs / self.job.start.name), self.job.recipe["data"].get("dir")
        at = ["--data-dir", data] if data else []
        return self._start("prune", start, *options, *at, "--out", str(self._pruned), "--overwrite")

    def _train(self) -> subprocess.Popen[str]:
        recipe = self.job.recipe
        if self.job.is_tuned:
            recipe = {**yaml.safe_load((self._tuned / "best.yaml").read_text(encoding="utf-8")), "seed": self.job.seed}
        if self.job.start is not None:
            weights = self._pruned if self.job.is_pruned else self._runs / self.job.start.name
            recipe = merged(recipe, {"model": {"weights": str(weights)}})
        if self.job.teacher is not None:
            recipe = merged(recipe, {"method": {"teacher": str(self._runs / self.job.teacher.name)}})
        self._write(recipe)
        return self._start("train", "-c", str(self._recipe), "--out", str(self.folder))

    def _score(self) -> subprocess.Popen[str]:
        with self._scores.open("w", encoding="utf-8") as output:  # a full pipe that nobody reads would stop it for ever
            return self._start("evaluate", str(self.folder), "--split", "test", "--json", output=output)

    def _write(self, recipe: dict[str, Any]) -> None:
        self._recipe.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")

    @property
    def tuned(self) -> dict[str, Any] | None:
        """Return the values that the search of its row chose, and what it cost; None without one."""
        if not self.job.is_tuned:
            return None
        found = Tuning.model_validate_json((self._tuned / "tuning.json").read_text(encoding="utf-8"))
        return {
            "values": found.winner.values,
            "validation": found.winner.metric,
            "untuned_validation": found.first.metric,
            "trials": len(found.trials),
            "seconds": round(sum(trial.seconds for trial in found.trials), 1),
        }

    def stop(self) -> None:
        """Ask it, once, to keep what it has and to stop."""
        if not self._asked:
            self._asked = True
            self._process.send_signal(signal.SIGINT)

    def _start(self, *arguments: str, output: Any = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "sdcompress", *arguments],
            env=self._environment,
            stdout=output or self._log,
            stderr=self._log,
            text=True,
            start_new_session=True,  # Ctrl-C reaches them through ``stop`` alone, once
        )


class Results:
    """What is done, in ``results.json``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []

    def holds(self, job: Job) -> bool:
        """Whether this very job, recipe and all, is done."""
        return any((found["job"], found["recipe"]) == (job.name, job.key) for found in self.found)

    def add(self, running: Running, scores: dict[str, Any]) -> None:
        """Keep a job's scores."""
        job, folder = running.job, running.folder
        keys = ("name", "macs", "parameters")
        self.found = [found for found in self.found if found["job"] != job.name]
        self.found.append(
            {
                "job": job.name,
                "setting": job.setting,
                "row": job.row,
                "seed": job.seed,
                "exits": [
                    {**{key: exit_[key] for key in keys}, "accuracy": exit_["metric"], **exit_["further"]}
                    for exit_ in scores["exits"]
                ],
                "samples": scores["samples"],
                "train_seconds": round(sum(line["seconds"] for line in read_metrics(folder)), 1),
                "weights": scores["digest"],
                **({"tuned": running.tuned} if running.tuned else {}),
                "recipe": job.key,
                "commit": _commit(),
                "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "machine": machine().model_dump(mode="json"),
            }
        )
        self.found.sort(key=lambda found: str(found["job"]))
        write_text(self._path, json.dumps(self.found, indent=1) + "\n")


def _commit() -> str:
    answer = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=True)
    return answer.stdout.strip()


def work(jobs: list[Job], results: Results, runs: Path, *, count: int, threads: int, deadline: float) -> list[str]:
    """Do the jobs, ``count`` at a time, until all are done or the deadline has come; returns what went wrong."""
    waiting, running, problems = _undone(jobs, results, runs), list[Running](), list[str]()
    with stop_on_signal() as request:
        while running or (waiting and not problems and not request.asked and time.monotonic() < deadline):
            if not running and _next(waiting, running, runs) is None:
                return [f"{waiting[0].name} needs {[job.name for job in waiting[0].needs]}, which are not in {runs}"]
            over = bool(problems) or request.asked or time.monotonic() >= deadline
            while len(running) < count and not over and (job := _next(waiting, running, runs)) is not None:
                waiting.remove(job)
                running.append(Running(job, runs, threads))
                print(f"{running[-1].job.name} ...", flush=True)
            for one in list(running):
                if over and not problems:
                    one.stop()
                _look(one, running, problems, results)
            time.sleep(0.2)
    return problems


def _undone(jobs: list[Job], results: Results, runs: Path) -> list[Job]:
    """Return the jobs without scores, and those whose network one of these needs and that is not in ``runs``.

    The scores may have come with the repository, and the network was left where it was trained.
    """
    undone = [job for job in jobs if not results.holds(job)]
    lost = [need for job in undone for need in job.needs if not _is_trained(runs / need.name)]
    return [job for job in jobs if job in undone or job in lost]


def _next(waiting: list[Job], running: list[Running], runs: Path) -> Job | None:
    """Return the first job that may begin.

    Its networks are trained, and no running job searches its row: one folder of a search has room for one process.
    """
    searched = {(one.job.setting, one.job.row) for one in running if one.job.is_tuned}
    free = (job for job in waiting if (job.setting, job.row) not in searched)
    untrained = [*waiting, *(one.job for one in running)]
    return next(
        (job for job in free if all(need not in untrained and _is_trained(runs / need.name) for need in job.needs)),
        None,
    )


def _is_trained(folder: Path) -> bool:
    try:
        return open_checkpoint(folder).state.finished
    except CheckpointError:
        return False


def _look(job: Running, running: list[Running], problems: list[str], results: Results) -> None:
    """Take a job from the running ones when it has ended."""
    answer = job.poll()
    if answer is None:
        return
    running.remove(job)
    if isinstance(answer, str):
        print(f"{job.job.name} {answer}", flush=True)
        problems += [f"{job.job.name} {answer}"] * (answer != "stopped")
        return
    results.add(job, answer)
    final = next(exit_ for exit_ in answer["exits"] if exit_["name"] == "final")
    print(f"{job.job.name} {final['metric']:.2%} {time.monotonic() - job.began:.0f} s", flush=True)


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("folder", type=Path, help="holds plan.yaml; results.json and table.md are written beside it")
    read.add_argument("--data-dir", type=Path)
    read.add_argument("--runs", type=Path, help="checkpoints [runs/<name of the folder>]")
    read.add_argument("--jobs", type=int, default=1, help="at a time")
    read.add_argument("--threads", type=int, default=1, help="of each job")
    read.add_argument("--minutes", type=float, default=float("inf"), help="stop after this long; the same line goes on")
    read.add_argument("--rows", nargs="+", help="only these")
    read.add_argument("--settings", nargs="+", help="only these")
    read.add_argument("--seeds", nargs="+", type=int, help="only these")
    given = read.parse_args()
    deadline = time.monotonic() + 60 * given.minutes
    plan = yaml.safe_load((given.folder / "plan.yaml").read_text(encoding="utf-8"))
    chosen = [
        job
        for job in jobs_of(plan, given.data_dir)
        if (not given.rows or job.row in given.rows)
        and (not given.settings or job.setting in given.settings)
        and (not given.seeds or job.seed in given.seeds)
    ]
    results = Results(given.folder / "results.json")
    runs = given.runs or Path("runs") / given.folder.name
    problems = work(chosen, results, runs, count=given.jobs, threads=given.threads, deadline=deadline)
    write_table(given.folder, plan, results.found)
    left = sum(not results.holds(job) for job in chosen)
    print(f"{len(chosen) - left} of {len(chosen)} jobs are done; the table is {given.folder / 'table.md'}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
