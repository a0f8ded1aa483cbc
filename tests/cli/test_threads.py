"""--threads and --device: every verb that computes has them, says its default, and refuses what hangs the machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

VERBS = {
    "train": "train -c {recipe} --out {out}",
    "run": "run {recipe} --out {out}",
    "run, to measure": "run {recipe} --set bench.threads=MANY --out {out}",
    "evaluate a checkpoint": "evaluate {train}",
    "evaluate": "evaluate {cascade}",
    "export": "export {train} --out {out}",
    "quantize": "quantize {cascade} --precision uint8 --out {out}",
    "calibrate": "calibrate {cascade} --out {out}",
    "verify": "verify {cascade}",
    "bench": "bench {cascade} --samples golden",
    "explain": "explain {cascade} --out {out}",
}


def words(what: str, made, recipe: Path, out: Path, *, threads: str) -> list[str]:
    text = VERBS[what].format(recipe=recipe, train=made.train, cascade=made.cascade, out=out)
    return text.replace("MANY", threads).split() + ([] if "MANY" in VERBS[what] else ["--threads", threads])


@pytest.mark.parametrize("what", VERBS)
def test_threads_that_would_hang_the_machine_are_refused_at_once(cli, made, recipe: Path, tmp_path: Path, what) -> None:
    done = cli(*words(what, made, recipe, tmp_path / "out", threads="100000"))
    assert done.code == 2, done.err
    assert "threads is 100000" in done.err
    assert "allowed: 1 to " in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["evaluate", "evaluate a checkpoint", "export", "quantize"])
def test_a_default_of_threads_is_said(cli, made, recipe: Path, tmp_path: Path, what: str) -> None:
    chosen = words(what, made, recipe, tmp_path / "out", threads="1")
    by_default = cli(*chosen[:-2])
    assert by_default.code == 0, by_default.err
    assert "1 thread(s): OMP_NUM_THREADS is set; --threads sets another number" in by_default.err


def test_threads_that_were_chosen_are_not_said(cli, made, recipe: Path, tmp_path: Path) -> None:
    done = cli(*words("evaluate", made, recipe, tmp_path / "out", threads="1"))
    assert done.code == 0
    assert "thread(s)" not in done.err


def test_threads_of_what_has_none_to_choose_are_refused(cli, made, tmp_path: Path) -> None:
    done = cli("export", made.cascade, "--layout", "graph", "--threads", "1", "--out", tmp_path / "out")
    assert done.code == 2
    assert "threads cannot be chosen" in done.err


def test_train_says_where_and_with_how_many_threads(made) -> None:
    assert "training on cpu with 1 thread(s): OMP_NUM_THREADS is set" in made.trained.err
    assert json.loads(made.trained.out)["threads"] == 1


def test_threads_and_device_of_train_are_keys_of_the_recipe(cli, recipe: Path) -> None:
    printed = yaml.safe_load(cli("train", "-c", "digits", "--threads", "1", "--device", "cpu", "--print-config").out)
    assert (printed["train"]["threads"], printed["train"]["device"]) == (1, "cpu")
    assert yaml.safe_load(cli("run", "digits", "--threads", "1", "--print-config").out)["train"]["threads"] == 1
