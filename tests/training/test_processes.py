"""Two processes on one machine: they train the network that one process trains, and a stop of one is a stop of both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sdcompress import recipes
from sdcompress.checkpoint import open_checkpoint, read_metrics
from sdcompress.schema.recipe import Recipe
from sdcompress.training.run import train

Small = Callable[..., Recipe]
Torchrun = Callable[..., str]

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
    print(stop.problem)
"""


def test_a_stop_of_one_process_stops_both_and_one_alone_can_go_on(
    small: Small, torchrun: Torchrun, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(recipes.dump(small("train.processes=2")))
    (tmp_path / "program.py").write_text(PROGRAM)
    said = torchrun(tmp_path / "program.py", tmp_path / "recipe.yaml", tmp_path / "run")
    assert said.count("Stopped after step 3 of 10") == 2
    assert open_checkpoint(tmp_path / "run").state.step == 3
    assert train(small(), tmp_path / "run").state.step == 10


ALL = """
import sys
from pathlib import Path
from sdcompress import recipes
from sdcompress.training.run import train

for recipe in sorted(Path(sys.argv[1]).glob("*.yaml")):
    train(recipes.read(recipe, ["train.processes=2"]), Path(sys.argv[2]) / recipe.stem)
"""

METHODS = (
    *("baseline", "byot", "self_distillation", "eed", "dks", "ps_kd", "dlb", "cs_kd", "ddgsd", "sfr"),
    *("fastbert", "ema_teacher", "med", "frskd", "eed+ps_kd"),
)
RUNS = {method: [f"method={method}"] for method in METHODS} | {
    "generations": ["method=born_again", "method.generations=2"],
    "parts_clipped_averaged": ["train.accumulate=4", "train.clip_grad=0.5", "train.ema_decay=0.9"],
    "adamw": ["train.optimizer.name=adamw", "train.optimizer.lr=0.001"],
    "equilibrium": ["exits.gradient_scaling=equilibrium"],
    "tied": ["model.name=nets:Odd", "model.options={tied: true}"],
    "unused": ["model.name=nets:Odd", "model.options={unused: true}"],
    "frozen": ["method=fastbert", "method.backbone_share=0"],
    "views": ["model.name=nets:Odd", "model.options={views: true}", "method=baseline"],
}


@pytest.mark.usefixtures("nets")
@pytest.mark.filterwarnings("ignore:.*take no part in the loss", "ignore:.*freezes the backbone")
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_train_as_one_does_on_the_same_batches(
    small: Small, torchrun: Torchrun, tmp_path: Path, strategy: str
) -> None:
    (tmp_path / "program.py").write_text(ALL)
    (tmp_path / "recipes").mkdir()
    made = {}
    for name, settings in RUNS.items():
        common = ["train.augment.flip=true", f"train.strategy={strategy}"]
        if not any(setting.startswith("model.name=") for setting in settings):
            common.append("model.name=nets:plain")
        made[name] = small(*common, *settings)
        (tmp_path / "recipes" / f"{name}.yaml").write_text(recipes.dump(made[name]))
    torchrun(tmp_path / "program.py", tmp_path / "recipes", tmp_path / "two")
    for run, recipe in made.items():
        one = train(recipe, tmp_path / "one" / run).network().state_dict()
        two = open_checkpoint(tmp_path / "two" / run).network().state_dict()
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5, msg=f"{run}: {name}")
        curves = [read_metrics(tmp_path / kind / run) for kind in ("one", "two")]
        for alone, together in zip(*curves, strict=True):
            assert together["loss"] == pytest.approx(alone["loss"], rel=1e-4), run
            assert together["val_accuracy/final"] == pytest.approx(alone["val_accuracy/final"], abs=0.05)


TEACHERS = """
import json, sys
from pathlib import Path
from sdcompress import data, recipes
from sdcompress.training.hardware import launch
from sdcompress.training.trainer import Trainer

def main():  # a trainer that lived to the end of the process would keep gloo's threads, which may abort it then
    recipe = recipes.read(sys.argv[1])
    fabric = launch(recipe.train)
    trainer = Trainer(recipe, data.load(recipe.data, seed=0, modality=recipe.modality), fabric, Path(sys.argv[2]))
    trainer.learner.begin_epoch()
    for parts in trainer.batches.epoch(0):
        trainer.learner.learn(parts)
    nets = trainer.net, trainer.learner._teacher_ema.net
    buffers = [value.double().sum().item() for net in nets for value in net.buffers()]
    (Path(sys.argv[2]) / str(fabric.global_rank)).write_text(json.dumps(buffers))

main()
"""


def test_batch_norms_and_teachers_are_the_same_in_both_processes(
    small: Small, torchrun: Torchrun, tmp_path: Path
) -> None:
    """Or a run that goes on would have another teacher in all processes but the first."""
    (tmp_path / "program.py").write_text(TEACHERS)
    found = {}
    for strategy in ("ddp", "fsdp"):
        recipe = small("method=ema_teacher", "train.processes=2", f"train.strategy={strategy}")
        (tmp_path / "recipe.yaml").write_text(recipes.dump(recipe))
        (tmp_path / strategy).mkdir()
        torchrun(tmp_path / "program.py", tmp_path / "recipe.yaml", tmp_path / strategy)
        first, second = (json.loads((tmp_path / strategy / rank).read_text()) for rank in "01")
        assert first == second
        found[strategy] = first
    assert found["fsdp"] == pytest.approx(found["ddp"], rel=1e-5)


@pytest.mark.usefixtures("nets")
@pytest.mark.parametrize("method", ["byot", "ps_kd", "med"])
def test_added_gradients_are_those_of_the_whole_batch(small: Small, tmp_path: Path, method: str) -> None:
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
