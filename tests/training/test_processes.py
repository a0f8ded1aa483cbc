"""Two processes on one machine: they train the network that one process trains, and a stop of one is a stop of both."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from sdcompress import recipes
from sdcompress.checkpoint import open_checkpoint, read_metrics
from sdcompress.schema.recipe import Recipe
from sdcompress.training.run import train

Small = Callable[..., Recipe]
Torchrun = Callable[..., str]

# all that two processes do, in one launch: importing torch takes longer than the trainings
PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from sdcompress import data, recipes
from sdcompress.errors import Interrupted
from sdcompress.training.hardware import launch
from sdcompress.training.run import train
from sdcompress.training.trainer import Trainer

folder = Path(sys.argv[1])

def ask(done, _all):
    if done == 3 and os.environ["RANK"] == "0":
        os.kill(os.getpid(), signal.SIGINT)

def learn(out):  # a trainer that lived to the end of the process would keep gloo's threads, which may abort it then
    recipe = recipes.read(out / "recipe.yaml")
    fabric = launch(recipe.train)
    trainer = Trainer(recipe, data.load(recipe.data, seed=0, modality=recipe.modality), fabric, out)
    trainer.learner.begin_epoch()
    for parts in trainer.batches.epoch(0):
        trainer.learner.learn(parts)
    nets = trainer.net, trainer.learner._teacher_ema.net
    buffers = [value.double().sum().item() for net in nets for value in net.buffers()]
    (out / str(fabric.global_rank)).write_text(json.dumps(buffers))

try:
    train(recipes.read(folder / "stopped.yaml"), folder / "stopped", on_step=ask)
except Interrupted as stop:
    print(stop.problem)
for strategy in ("ddp", "fsdp"):
    learn(folder / "teachers" / strategy)
    for recipe in sorted((folder / "recipes").glob("*.yaml")):
        settings = ["train.processes=2", f"train.strategy={strategy}"]
        train(recipes.read(recipe, settings), folder / strategy / recipe.stem)
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
    "taught": ["method=trained_teacher"],
}


@dataclass(frozen=True)
class Launched:
    """What two processes wrote, what they printed, and the recipes of their runs."""

    folder: Path
    printed: str
    recipes: dict[str, Recipe]


@pytest.fixture(scope="module")
def launched(small: Small, torchrun: Torchrun, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    folder = tmp_path_factory.mktemp("launched")
    (folder / "program.py").write_text(PROGRAM)
    (folder / "stopped.yaml").write_text(recipes.dump(small("train.processes=2")))
    for strategy in ("ddp", "fsdp"):
        recipe = small("method=ema_teacher", "train.processes=2", f"train.strategy={strategy}")
        (folder / "teachers" / strategy).mkdir(parents=True)
        (folder / "teachers" / strategy / "recipe.yaml").write_text(recipes.dump(recipe))
    (folder / "recipes").mkdir()
    recipe_of, teacher = {}, folder / "teacher"
    train(small("method=baseline", "train.epochs=1"), teacher)
    for name, settings in RUNS.items():
        common = ["train.augment.flip=true", *([f"method.teacher={teacher}"] if name == "taught" else [])]
        if not any(setting.startswith("model.name=") for setting in settings):
            common.append("model.name=nets:plain")
        recipe_of[name] = small(*common, *settings)
        (folder / "recipes" / f"{name}.yaml").write_text(recipes.dump(recipe_of[name]))
    return Launched(folder, torchrun(folder / "program.py", folder), recipe_of)


def test_a_stop_of_one_process_stops_both_and_one_alone_can_go_on(small: Small, launched: Launched) -> None:
    assert launched.printed.count("Stopped after step 3 of 10") == 2
    assert open_checkpoint(launched.folder / "stopped").state.step == 3
    assert train(small(), launched.folder / "stopped").state.step == 10


@pytest.mark.usefixtures("nets")
@pytest.mark.filterwarnings("ignore:.*take no part in the loss", "ignore:.*freezes the backbone")
@pytest.mark.parametrize("run", RUNS)
def test_two_processes_train_as_one_does_on_the_same_batches(launched: Launched, tmp_path: Path, run: str) -> None:
    one = train(launched.recipes[run], tmp_path).network().state_dict()
    for strategy in ("ddp", "fsdp"):
        folder = launched.folder / strategy / run
        two = open_checkpoint(folder).network().state_dict()
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5, msg=f"{strategy}: {name}")
        for alone, together in zip(read_metrics(tmp_path), read_metrics(folder), strict=True):
            assert together["loss"] == pytest.approx(alone["loss"], rel=1e-4), strategy
            assert together["val_accuracy/final"] == pytest.approx(alone["val_accuracy/final"], abs=0.05)


def test_batch_norms_and_teachers_are_the_same_in_both_processes(launched: Launched) -> None:
    """Or a run that goes on would have another teacher in all processes but the first."""
    buffers = {}
    for strategy in ("ddp", "fsdp"):
        folder = launched.folder / "teachers" / strategy
        buffers[strategy], second = (json.loads((folder / rank).read_text()) for rank in "01")
        assert buffers[strategy] == second
    assert buffers["fsdp"] == pytest.approx(buffers["ddp"], rel=1e-5)


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
