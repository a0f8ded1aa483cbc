"""Two processes on one machine: they train the network that one process trains, and a stop of one is a stop of both."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sdcompress import recipes
from sdcompress.checkpoint import open_checkpoint, read_metrics
from sdcompress.schema.recipe import Recipe
from sdcompress.training.run import train

Small = Callable[..., Recipe]

PROGRAM = """
import os, signal, sys
from pathlib import Path
from sdcompress import recipes
from sdcompress.errors import Interrupted
from sdcompress.training.run import train

def ask(done, _all):
    if done == 3 and os.environ["RANK"] == "0":
        os.kill(os.getpid(), signal.SIGINT)

try:
    train(recipes.read(sys.argv[1]), Path(sys.argv[2]), on_step=ask)
except Interrupted as stop:
    print(stop.found)
"""


def torchrun(program: Path, *arguments: Path) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*launch, str(program), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(program.parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_stop_of_one_process_stops_both_and_one_alone_can_go_on(small: Small, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(recipes.dump(small("train.devices=2")))
    (tmp_path / "program.py").write_text(PROGRAM)
    done = torchrun(tmp_path / "program.py", tmp_path / "recipe.yaml", tmp_path / "run")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("Stopped after step 3 of 10") == 2
    assert open_checkpoint(tmp_path / "run").state.step == 3
    assert train(small(), tmp_path / "run").state.step == 10


# without batch norms, whose statistics are of each process's own images
NETS = """
from torch import nn

def plain(classes, channels):
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(channels, 8, 3, stride=2, padding=1), nn.GroupNorm(2, 8), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.GroupNorm(2, 16), nn.ReLU()),
        nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.GroupNorm(2, 16), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, classes),
    )
"""

ALL = """
import sys
from pathlib import Path
from sdcompress import recipes
from sdcompress.training.run import train

for recipe in sorted(Path(sys.argv[1]).glob("*.yaml")):
    train(recipes.read(recipe, ["train.devices=2"]), Path(sys.argv[2]) / recipe.stem)
"""

METHODS = ("byot", "eed", "dks", "ps_kd", "dlb", "cs_kd", "fastbert", "born_again", "ema_teacher", "med", "frskd")


def test_two_processes_train_as_one_does_on_the_same_batches(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "program.py").write_text(ALL)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "recipes").mkdir()
    made = {}
    for method in METHODS:
        generations = ["method.generations=2"] if method == "born_again" else []
        made[method] = small(f"method={method}", "model.name=nets:plain", "train.augment.flip=true", *generations)
        (tmp_path / "recipes" / f"{method}.yaml").write_text(recipes.dump(made[method]))
    done = torchrun(tmp_path / "program.py", tmp_path / "recipes", tmp_path / "two")
    assert done.returncode == 0, done.stderr[-2000:]
    for method, recipe in made.items():
        one = train(recipe, tmp_path / "one" / method).network().state_dict()
        two = open_checkpoint(tmp_path / "two" / method).network().state_dict()
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5, msg=f"{method}: {name}")
        curves = [read_metrics(tmp_path / kind / method) for kind in ("one", "two")]
        for alone, together in zip(*curves, strict=True):
            assert together["loss"] == pytest.approx(alone["loss"], rel=1e-4), method
            assert together["val_accuracy/final"] == pytest.approx(alone["val_accuracy/final"], abs=0.05)


TEACHERS = """
import sys
from pathlib import Path
from sdcompress import data, recipes
from sdcompress.training.hardware import launch
from sdcompress.training.trainer import Trainer

recipe = recipes.read(sys.argv[1])
fabric = launch(recipe.train)
trainer = Trainer(recipe, data.load(recipe.data, seed=0), fabric, Path(sys.argv[2]))
trainer.learner.begin_epoch()
for parts in trainer.batches.epoch(0):
    trainer.learner.learn(parts)
nets = trainer.net, trainer.learner._average.net
buffers = [value.double().sum().item() for net in nets for value in net.buffers()]
print("rank", fabric.global_rank, repr(buffers))
"""


def test_batch_norms_and_teachers_are_the_same_in_both_processes(small: Small, tmp_path: Path) -> None:
    """Or a run that goes on would have another teacher in all processes but the first."""
    (tmp_path / "recipe.yaml").write_text(recipes.dump(small("method=ema_teacher", "train.devices=2")))
    (tmp_path / "program.py").write_text(TEACHERS)
    done = torchrun(tmp_path / "program.py", tmp_path / "recipe.yaml", tmp_path / "run")
    assert done.returncode == 0, done.stderr[-2000:]
    lines = sorted(line for line in done.stdout.splitlines() if line.startswith("rank"))
    assert len(lines) == 2
    assert lines[0].removeprefix("rank 0") == lines[1].removeprefix("rank 1")


@pytest.mark.parametrize("method", ["byot", "ps_kd", "med"])
def test_added_gradients_are_those_of_the_whole_batch(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    # without augmentation, which is drawn part by part
    settings = [f"method={method}", "model.name=nets:plain", "train.augment.crop=0"]
    settings += ["method.confidence=0.101"] * (method == "med")  # so that the temperature rises
    whole, parts = (
        train(small(*settings, f"train.accumulate={count}"), tmp_path / str(count)).network().state_dict()
        for count in (1, 4)
    )
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-5, msg=name)
    curves = [read_metrics(tmp_path / count) for count in ("1", "4")]
    assert [line["loss"] for line in curves[1]] == pytest.approx([line["loss"] for line in curves[0]], rel=1e-4)
