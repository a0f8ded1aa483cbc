"""A finished training teaches another one: what it gives, what is recorded, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import sdcompress
from sdcompress import methods
from sdcompress.checkpoint import newest, open_checkpoint
from sdcompress.data import DatasetCache
from sdcompress.errors import CheckpointError, OutputExistsError, RecipeError
from sdcompress.schema.recipe import Recipe
from sdcompress.schema.training import Teacher
from sdcompress.training.check_recipe import check_recipe
from sdcompress.training.run import train
from sdcompress.training.step import TrainingStep
from sdcompress.training.trained_teacher import load_teacher

Small = Callable[..., Recipe]
TAUGHT = ["method=trained_teacher"]


@pytest.fixture(scope="module")
def whole(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training without exits."""
    out = tmp_path_factory.mktemp("teacher") / "whole"
    train(small("method=baseline", "train.epochs=1"), out)
    return out


def test_a_pruned_network_learns_from_the_whole_one_and_resumes_alike(
    small: Small, whole: Path, tmp_path: Path
) -> None:
    sdcompress.prune(whole, tmp_path / "pruned", {"target": "macs=50%", "round_to": 2})
    # the folder moves while the training is stopped: the weights count, not their place
    moved = tmp_path / "moved"
    shutil.copytree(whole, moved)
    start = [*TAUGHT, f"model.weights={tmp_path / 'pruned'}"]
    with pytest.warns(UserWarning, match="tensors"):
        finished = train(small(*start, f"method.teacher={whole}"), tmp_path / "whole")

    def stop(done: int, _all: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="tensors"), pytest.raises(KeyboardInterrupt):
        train(small(*start, f"method.teacher={whole}"), tmp_path / "parts", on_step=stop)
    parts = train(small(*start, f"method.teacher={moved}"), tmp_path / "parts")
    assert parts.weights_sha256 == finished.weights_sha256
    assert finished.state.teacher is not None
    assert finished.state.teacher.weights_sha256 == open_checkpoint(whole).weights_sha256
    assert finished.state.pruned is not None
    assert "teacher." not in " ".join(torch_names(finished.path))  # the checkpoint does not hold it


def torch_names(folder: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(folder / "training.safetensors", "pt") as file:
        return list(file.keys())


def test_the_teacher_is_frozen_and_in_evaluation_mode(small: Small, whole: Path) -> None:
    recipe = small(*TAUGHT, f"method.teacher={whole}")
    dataset = DatasetCache()(recipe.data, seed=recipe.seed, task=recipe.task, modality=recipe.modality)
    net, record = load_teacher(recipe, dataset)
    assert net is not None
    assert record == Teacher(source=str(whole), weights_sha256=open_checkpoint(whole).weights_sha256)
    method = methods.build(recipe.method)
    step = TrainingStep(torch.nn.Identity(), method, torch.nn.Module(), task=dataset.task, teacher=net).train()
    assert not any(module.training for module in net.modules())
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert not [*step.parameters()]  # so it is not trained


def test_a_teacher_that_was_stopped_teaches_with_a_warning(small: Small, tmp_path: Path) -> None:
    def stop(done: int, _all: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small("method=baseline"), tmp_path / "stopped", on_step=stop)
    with pytest.warns(UserWarning, match=r"method\.teacher '.*stopped' is not finished"):
        train(small(*TAUGHT, "train.epochs=1", f"method.teacher={tmp_path / 'stopped'}"), tmp_path / "taught")


def test_an_artifact_names_the_teacher_and_another_one_makes_another_run(
    small: Small, whole: Path, tmp_path: Path
) -> None:
    run = train(small(*TAUGHT, "train.epochs=1", f"method.teacher={whole}"), tmp_path / "run")
    other = tmp_path / "other"
    with pytest.warns(UserWarning, match="held-out"):
        manifest = sdcompress.export(run.path, tmp_path / "artifact", layout="single")
    assert manifest.provenance.teacher_sha256 == open_checkpoint(whole).weights_sha256
    train(small("method=label_smooth", "train.epochs=1"), other)
    with pytest.raises(OutputExistsError, match=r"the weights of method\.teacher"):
        train(small(*TAUGHT, "train.epochs=1", f"method.teacher={other}"), tmp_path / "run")


def test_what_cannot_teach_is_refused(small: Small, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"method\.teacher names none"):
        check_recipe(small(*TAUGHT))
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        check_recipe(small(*TAUGHT, f"method.teacher={tmp_path / 'nowhere'}"))
    with pytest.raises(RecipeError, match="has another teacher or none") as error:
        check_recipe(small("method=byot", f"method.teacher={whole}"))
    assert "trained_teacher" in str(error.value.allowed)
    with pytest.raises(RecipeError, match="trained on other data, another split"):
        train(small(*TAUGHT, f"method.teacher={whole}", "data.train_limit=120"), tmp_path / "less")
    with pytest.raises(RecipeError, match="trained on other data, another split"):
        train(small(*TAUGHT, f"method.teacher={whole}", "modality.image_size=12"), tmp_path / "smaller")
    assert newest(tmp_path / "less") is None


TWO_TEACHERS = """
from dataclasses import dataclass
from sdcompress.methods._base import Method, Needs, Phase

__all__ = ["Two"]

@dataclass(frozen=True, kw_only=True)
class Two(Method):
    average: float = 0.0
    restarts: bool = False

    @property
    def needs(self):
        return Needs(teacher=True, average=self.average)

    @property
    def phases(self):
        return (Phase(share=0.5), Phase(share=0.5, restart=self.restarts))

    def __call__(self, outputs, batch, state):
        return {"ce": batch.task.supervised_loss(outputs.logits[-1], batch.target)}
"""


@pytest.mark.parametrize(
    ("own", "also"),
    [
        ("method.average=0.9", "the average of its own weights"),
        ("method.restarts=true", "the network before a restart"),
    ],
)
def test_a_method_of_ones_own_with_two_teachers_is_refused(small: Small, tmp_path: Path, own: str, also: str) -> None:
    file = tmp_path / "two.py"
    file.write_text(TWO_TEACHERS)
    named = ["method=two", f"method.file={file}", f"method.teacher={tmp_path / 'nowhere'}"]
    with pytest.raises(RecipeError, match=f"learns from a trained network, and also from {also}"):
        check_recipe(small(*named, own))
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        check_recipe(small(*named))


def test_a_teacher_of_another_task(small: Small, whole: Path) -> None:
    recipe = small(*TAUGHT, f"method.teacher={whole}")
    other_task = recipe.model_copy(update={"task": recipe.task.model_copy(update={"name": "multilabel"})})
    with pytest.raises(RecipeError, match="is for the task 'classification'"):
        check_recipe(other_task)
