"""A finished training teaches another one: what it gives, what is recorded, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import sdcompress
from sdcompress.checkpoint import newest, open_checkpoint
from sdcompress.errors import CheckpointError, OutputExistsError, RecipeError
from sdcompress.schema.recipe import Recipe
from sdcompress.training.check_recipe import check_recipe
from sdcompress.training.run import train

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


def test_it_teaches_in_evaluation_mode_and_the_artifact_names_it(small: Small, whole: Path, tmp_path: Path) -> None:
    before = open_checkpoint(whole).tensors()
    still = ["train.optimizer.lr=1e-30", "train.optimizer.weight_decay=0", "method.kd_weight=1"]
    taught = train(
        small(*TAUGHT, *still, "train.epochs=1", f"method.teacher={whole}", f"model.weights={whole}"),
        tmp_path / "still",
    )
    assert all(torch.equal(values, before[name]) for name, values in open_checkpoint(whole).tensors().items())
    manifest = sdcompress.export(taught.path, tmp_path / "artifact", layout="single")
    assert manifest.provenance.teacher_sha256 == open_checkpoint(whole).weights_sha256


def test_a_run_with_another_teacher_is_another_run(small: Small, whole: Path, tmp_path: Path) -> None:
    train(small(*TAUGHT, "train.epochs=1", f"method.teacher={whole}"), tmp_path / "run")
    other = train(small("method=label_smooth", "train.epochs=1"), tmp_path / "other").path
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


def test_a_teacher_of_another_task(small: Small, whole: Path) -> None:
    recipe = small(*TAUGHT, f"method.teacher={whole}")
    other_task = recipe.model_copy(update={"task": recipe.task.model_copy(update={"name": "multilabel"})})
    with pytest.raises(RecipeError, match="is for the task 'classification'"):
        check_recipe(other_task)
