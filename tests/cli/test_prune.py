"""prune as a command, and the command that it prints next."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import torch

from sdcompress.checkpoint import open_checkpoint


def test_the_printed_command_fine_tunes_what_is_left(cli: Callable, made, tmp_path: Path) -> None:
    pruned, tuned = tmp_path / "a half", tmp_path / "tuned"
    done = cli("prune", made.train, "--target", "macs=50%", "--round-to", "2", "--out", pruned)
    assert done.code == 0, done.err
    program, *arguments = shlex.split(done.out.strip().splitlines()[-1].removeprefix("next: "))
    assert program == "sdcompress"

    trained = cli(*arguments[:-1], tuned)  # its last word is the folder

    assert trained.code == 0, trained.err
    before, after = open_checkpoint(made.train), open_checkpoint(tuned)
    assert after.recipe.method.name == "trained_teacher"
    assert after.state.teacher is not None
    assert after.state.teacher.weights_sha256 == before.weights_sha256
    assert after.state.pruned == open_checkpoint(pruned).state.pruned


def test_without_a_recipe_beside_it_the_user_names_one(cli: Callable, made, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    cli("prune", made.train, "--target", "macs=70%", "--round-to", "2", "--out", first)
    done = cli("prune", first, "--target", "macs=70%", "--round-to", "2", "--out", second)
    assert f"train -c RECIPE --set model.weights={second} " in done.out


def test_the_start_of_the_whole_network_is_not_that_of_the_pruned_one(
    cli: Callable, made, recipe: Path, tmp_path: Path
) -> None:
    file, run, pruned = tmp_path / "start.pth", tmp_path / "run", tmp_path / "pruned"
    torch.save(open_checkpoint(made.train).network().backbone.state_dict(), file)
    start = "--set", f"model.weights={file}", "--set", "model.match=partial"
    assert cli("train", "-c", recipe, *start, "--out", run).code == 0
    done = cli("prune", run, "--target", "macs=50%", "--round-to", "2", "--out", pruned)
    _, *arguments = shlex.split(done.out.strip().splitlines()[-1].removeprefix("next: "))

    tuned = cli(*arguments[:-1], tmp_path / "tuned")

    assert tuned.code == 0, tuned.err
    assert open_checkpoint(tmp_path / "tuned").recipe.model.match == "name"
