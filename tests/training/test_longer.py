"""A training is made longer: it goes on with everything that it has learnt, and its record says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sdcompress
from sdcompress.checkpoint import open_checkpoint, read_metrics
from sdcompress.cli.app import app
from sdcompress.errors import OutputExistsError, RecipeError, UsageError
from sdcompress.schema.recipe import Recipe

Small = Callable[..., Recipe]


def test_at_a_constant_rate_it_ends_with_the_bits_of_one_long_training(small: Small, tmp_path: Path) -> None:
    settings = ["train.schedule.name=constant", "train.ema_decay=0.9"]
    short = sdcompress.train(small(*settings, "train.epochs=1"), tmp_path / "run")
    whole = sdcompress.train(small(*settings), tmp_path / "whole")
    longer = sdcompress.train(extends=tmp_path / "run", settings=["train.epochs=2"])
    assert longer.path.parents[1] == tmp_path / "run-2-epochs"
    assert longer.weights_sha256 == whole.weights_sha256
    assert longer.state.training.sha256 == whole.state.training.sha256
    assert [line["epoch"] for line in read_metrics(tmp_path / "run-2-epochs")] == [1, 2]
    (record,) = longer.state.extensions
    assert (record.epochs, record.step, record.weights_sha256) == (1, 5, short.weights_sha256)
    assert open_checkpoint(tmp_path / "run") == short  # it is kept as it was
    assert whole.state.extensions == ()


def test_the_rate_follows_the_longer_schedule_from_where_it_goes_on(small: Small, tmp_path: Path) -> None:
    sdcompress.train(small("train.epochs=1"), tmp_path / "run")
    sdcompress.train(extends=tmp_path / "run", settings=["train.epochs=3"])
    sdcompress.train(small("train.epochs=3"), tmp_path / "whole")
    rates = [[line["lr"] for line in read_metrics(tmp_path / name)] for name in ("run-3-epochs", "whole")]
    assert rates[0][1:] == rates[1][1:]
    assert rates[0][0] != rates[1][0]


def test_the_same_call_goes_on_and_another_start_is_refused(small: Small, tmp_path: Path) -> None:
    sdcompress.train(small("train.epochs=1"), tmp_path / "run")
    sdcompress.train(small("train.epochs=1", "seed=1"), tmp_path / "other")
    longer = sdcompress.train(extends=tmp_path / "run", settings=["train.epochs=2"], out=tmp_path / "longer")
    assert sdcompress.train(extends=tmp_path / "run", settings=["train.epochs=2"], out=tmp_path / "longer") == longer
    sdcompress.train(small(), tmp_path / "whole")
    with pytest.raises(OutputExistsError, match="does not continue"):
        sdcompress.train(extends=tmp_path / "run", settings=["train.epochs=2"], out=tmp_path / "whole")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["train.epochs=1"], "train.epochs is 1, and 1 are trained"),
        (["train.epochs=3", "train.optimizer.lr=0.1"], r"train\.optimizer\.lr: 0\.05 -> 0\.1"),
    ],
)
def test_only_the_number_of_epochs_may_change(small: Small, tmp_path: Path, settings: list[str], why: str) -> None:
    sdcompress.train(small("train.epochs=1"), tmp_path / "run")
    with pytest.raises(RecipeError, match=why) as caught:
        sdcompress.train(extends=tmp_path / "run", settings=settings, out=tmp_path / "longer")
    assert "model.weights" in caught.value.next_step
    assert not (tmp_path / "longer").exists()


def test_phases_that_divide_the_epochs_cannot_be_made_longer(small: Small, tmp_path: Path) -> None:
    sdcompress.train(small("method=born_again", "method.generations=2"), tmp_path / "run")
    with pytest.raises(RecipeError, match="divides its epochs into 2 phases"):
        sdcompress.train(extends=tmp_path / "run", settings=["train.epochs=4"])


def test_a_recipe_and_a_run_are_one_too_many(small: Small, tmp_path: Path) -> None:
    sdcompress.train(small("train.epochs=1"), tmp_path / "run")
    with pytest.raises(UsageError, match="A recipe was given"):
        sdcompress.train(small(), extends=tmp_path / "run")


def test_the_command_line_says_so(small: Small, tmp_path: Path) -> None:
    sdcompress.train(small("train.epochs=1"), tmp_path / "run")
    shown = CliRunner().invoke(app, ["train", "--from", str(tmp_path / "run"), "--epochs", "2"]).output
    assert "extended at step 5; before it, the learning rates were those of 1 epochs" in shown
