"""Phases in whole epochs, and what they do to a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning_fabric import Fabric

from sdcompress import data
from sdcompress.errors import RecipeError
from sdcompress.methods._base import Phase
from sdcompress.schema.recipe import Recipe, Train
from sdcompress.training.run import train
from sdcompress.training.schedule import Timeline, spans
from sdcompress.training.trainer import Trainer

Small = Callable[..., Recipe]


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.integers(1, 200))
def test_phases_fill_the_epochs_each_near_its_share(shares: list[float], epochs: int) -> None:
    phases = [Phase(share / sum(shares)) for share in shares]
    if epochs < len(phases):
        with pytest.raises(RecipeError, match="phases"):
            spans(phases, epochs)
        return
    found = spans(phases, epochs)
    assert [span.first for span in found] == [sum(span.epochs for span in found[:i]) for i in range(len(found))]
    assert sum(span.epochs for span in found) == epochs
    assert min(span.epochs for span in found) >= 1
    timeline = Timeline(Train(epochs=epochs), phases, 3)
    for epoch in range(epochs):
        span = timeline.span(3 * epoch + 2)
        assert span.first <= epoch < span.first + span.epochs
    if epochs >= 100 * len(phases):
        assert all(abs(span.epochs - epochs * span.phase.share) <= 1 + len(phases) for span in found)


def trainer(recipe: Recipe, out: Path) -> Trainer:
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    return Trainer(recipe, data.load(recipe.data, seed=recipe.seed, modality=recipe.modality), fabric, out)


def epoch(made: Trainer, number: int) -> None:
    made.learner.begin_epoch()
    for parts in made.batches.epoch(number):
        made.learner.learn(parts)


def test_a_frozen_backbone_keeps_its_weights_and_its_statistics_while_heads_learn(small: Small, tmp_path: Path) -> None:
    made = trainer(small("method=fastbert", "exits.head=bottleneck"), tmp_path)
    epoch(made, 0)
    before = {name: value.clone() for name, value in made.net.state_dict().items()}
    epoch(made, 1)
    changed = {name for name, value in made.net.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.partition(".")[0] for name in changed} == {"heads"}
    assert any(name.endswith("running_mean") for name in changed)


def test_a_new_generation_starts_from_other_weights_and_is_taught_by_the_last_one(small: Small, tmp_path: Path) -> None:
    made = trainer(small("method=born_again", "method.generations=2"), tmp_path)
    start = {name: value.clone() for name, value in made.net.state_dict().items()}
    epoch(made, 0)
    first = {name: value.clone() for name, value in made.net.state_dict().items()}
    made.learner.begin_epoch()
    restarted, teacher = made.net.state_dict(), made.learner.resumable_state().teacher
    assert teacher is not None
    assert all(torch.equal(value, first[name]) for name, value in teacher.state_dict().items())
    matrices = [name for name, value in restarted.items() if value.ndim > 1]
    assert not any(
        torch.equal(restarted[name], first[name]) or torch.equal(restarted[name], start[name]) for name in matrices
    )
    assert len(made.learner.optimizer.state) == 0
    # each phase has a schedule of its own: the rate is that of the first step again
    made.learner.learn(next(made.batches.epoch(1)))
    assert made.learner.optimizer.param_groups[0]["lr"] == made.recipe.train.optimizer.lr


def test_too_few_epochs_for_the_phases_are_refused_before_training(small: Small, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="3 phases") as caught:
        train(small("method=born_again"), tmp_path / "run")
    assert "train.epochs=3" in caught.value.next_step
    assert not (tmp_path / "run").exists()
