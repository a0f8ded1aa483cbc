"""A training for a task without classes, through the trainer itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from steps import Tags

from sdcompress import data
from sdcompress.data.samples import ArraySamples, Dataset, Samples
from sdcompress.errors import RecipeError
from sdcompress.schema.recipe import Recipe
from sdcompress.training import validation_scores
from sdcompress.training.trainer import Trainer
from sdcompress.training.validation_scores import exit_scores

Small = Callable[..., Recipe]


def tagged(recipe: Recipe) -> Dataset:
    """The digits with three tags each: is it even, is it above 4, is it 0."""
    digits = data.load(recipe.data, seed=recipe.seed, modality=recipe.modality)

    def with_tags(samples: Samples) -> ArraySamples:
        labels = samples.targets
        tags = np.stack([labels % 2 == 0, labels > 4, labels == 0], axis=1).astype(np.uint8)
        return ArraySamples(samples.examples(np.arange(len(samples))), tags)

    parts = {name: with_tags(getattr(digits, name)) for name in ("train", "val", "test")}
    return replace(digits, task=Tags(("even", "large", "zero")), **parts)


def trainer(recipe: Recipe, out: Path) -> Trainer:
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    return Trainer(recipe, tagged(recipe), fabric, out)


def test_steps_of_a_task_without_classes_lower_its_loss_and_its_metric_is_one_minus_its_mean_loss(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation_scores, "_BATCH", 7)
    run = trainer(small("train.label_smoothing=0.1", "train.augment.mixup=0.2", "train.augment.crop=0"), tmp_path)
    run.learner.begin_epoch()
    steps = (parts for epoch in range(3) for parts in run.batches.epoch(epoch))
    losses = [sum(term.item() for term in run.learner.learn(parts).values()) for parts in steps]
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    dataset, val = run.dataset, run.dataset.val
    scores = exit_scores(run.net, val, dataset.task, dataset.modality, fabric=run.fabric)
    (inputs,) = dataset.modality.collate(val.examples(np.arange(len(val)))).arrays.values()
    with torch.no_grad():
        outputs = run.net.eval()(torch.from_numpy(inputs)).logits
    correct = [((logits > 0).numpy() == val.targets).mean() for logits in outputs]
    assert list(scores.values()) == pytest.approx(correct, rel=1e-6)
    assert {f"val_overlap/{name}" for name in scores} <= run._measure().keys()


@pytest.mark.parametrize("setting", ["train.class_weights=balanced", "train.sampling=balanced"])
def test_what_needs_classes_is_refused_before_the_first_step(small: Small, tmp_path: Path, setting: str) -> None:
    with pytest.raises(RecipeError, match=r"no strata|in no classes"):
        trainer(small(setting), tmp_path)
