"""A search with trainings of seconds, and with a training that is only an equation."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import sdcompress
from sdcompress import recipes
from sdcompress.data import DatasetCache
from sdcompress.data.image_arrays import image_source
from sdcompress.data.source import Source
from sdcompress.errors import (
    DataError,
    DeviceError,
    Interrupted,
    MissingExtraError,
    OutputExistsError,
    RecipeError,
    TrainingDivergedError,
    UnknownNameError,
)
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.schema.recipe import Data, Recipe
from sdcompress.schema.tuning import Tuning
from sdcompress.training import run

LR = "train.optimizer.lr"
RECIPE = {
    "name": "tiny",
    "data": {"name": "digits", "validation": 0.2, "train_limit": 64},
    "modality": {"image_size": 8},
    "model": {"name": "cifar:resnet8"},
    "exits": {"count": 1, "head": "linear"},
    "method": "baseline",
    "train": {"epochs": 4, "batch_size": 32, "device": "cpu"},
    "tune": {"trials": 6, "search": {LR: "log:0.001:1"}},
}


def best_at(lr: float) -> float:
    """A metric that is 1 at a rate of 0.02 and falls with the distance in decades."""
    return max(0.0, 1 - abs(np.log10(lr / 0.02)) / 3)


@pytest.fixture
def equation(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Replace the training by an equation; ``stop`` is called before each epoch."""
    seen = SimpleNamespace(recipes=[], stop=lambda recipe, epoch: None, tests=set())

    def train(recipe: Recipe, out: Path, *, on_epoch: Callable[[dict], None], load: DatasetCache, **_: Any) -> None:
        data = load(recipe.data, seed=recipe.seed, task=recipe.task, modality=recipe.modality)
        seen.tests.add(len(data.test))
        seen.recipes.append(recipe)
        out.mkdir(parents=True, exist_ok=True)
        (out / "metrics.jsonl").touch()
        begun = len((out / "metrics.jsonl").read_text().splitlines())
        for epoch in range(begun + 1, recipe.train.epochs + 1):
            seen.stop(recipe, epoch)
            value = best_at(recipe.train.optimizer.lr) * epoch / recipe.train.epochs
            line = {"epoch": epoch, "step": epoch, "seconds": 15.0, "val_accuracy/exit1": value / 2}
            line["val_accuracy/final"] = value
            with (out / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            on_epoch(line)

    monkeypatch.setattr(run, "train", train)
    return seen


def tried(found: Tuning) -> list[tuple[int, float, float, str]]:
    return [(trial.number, float(trial.values[LR]), trial.metric, trial.state) for trial in found.trials]


def test_the_first_trial_has_the_recipes_values_and_the_best_is_written(equation, tmp_path: Path) -> None:
    found = sdcompress.tune(RECIPE, tmp_path / "tuned")
    assert [trial.number for trial in found.trials] == list(range(6))
    assert found.first.values == {LR: 0.1}
    assert all(trial.metric == pytest.approx(best_at(float(trial.values[LR]))) for trial in found.trials)
    assert found.winner.metric == max(trial.metric for trial in found.trials) > found.first.metric
    written = recipes.read(tmp_path / "tuned" / "best.yaml")
    assert written.train.optimizer.lr == found.winner.values[LR]
    assert written == recipes.read(RECIPE, [(LR, found.winner.values[LR])]).model_copy(update={"tune": written.tune})
    assert found.samples == 288
    assert Tuning.model_validate_json((tmp_path / "tuned" / "tuning.json").read_text()) == found
    page = (tmp_path / "tuned" / "tuning.html").read_text()
    assert page.count("<svg") == 2
    assert f"Trial {found.best} has" in page


def test_the_first_trial_has_the_recipes_number_with_all_its_digits(equation, tmp_path: Path) -> None:
    found = sdcompress.tune(RECIPE, tmp_path / "tuned", settings=[f"{LR}=0.0123456", "tune.trials=1"])
    assert found.first.values == {LR: 0.0123456}
    assert recipes.read(tmp_path / "tuned" / "best.yaml").train.optimizer.lr == 0.0123456


def test_no_trial_is_given_a_test_sample(equation, tmp_path: Path) -> None:
    sdcompress.tune(RECIPE, tmp_path / "tuned")
    assert equation.tests == {0}


def other_test_split(seed: int) -> Callable[[Data], Source]:
    """A source of random images whose test split depends on a seed of its own."""

    def split(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % 2
        noise = np.random.default_rng(seed).integers(0, 128, (count, 8, 8, 1))
        return (noise + 100 * labels[:, None, None, None]).astype(np.uint8), labels

    return lambda spec: image_source(
        ("a", "b"), Preprocess(channels=1, mean=(0.5,), std=(0.5,)), split(0, 80), split(seed, 40)
    )


def test_another_test_split_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, found = ["tune.trials=3", "train.epochs=1", "data.train_limit=null", "data.name=mine:make"], []
    for seed in (1, 2):
        monkeypatch.setattr("sdcompress.data._users", other_test_split(seed))
        one = sdcompress.tune(RECIPE, tmp_path / str(seed), settings=own)
        found.append([(trial.values, trial.exits) for trial in one.trials])
    assert found[0] == found[1]
    assert len({values[LR] for values, _ in found[0]}) == 3


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_that_was_stopped_ends_as_one_that_was_not(equation, tmp_path: Path, sampler: str) -> None:
    own = [f"tune.sampler={sampler}", "tune.trials=12"]
    whole = sdcompress.tune(RECIPE, tmp_path / "whole", settings=own)
    stops = iter([2, 7, 30, 41])
    at, calls = next(stops), 0

    def stop(recipe: Recipe, epoch: int) -> None:
        nonlocal at, calls
        calls += 1
        if calls == at:
            at = next(stops, 0)
            raise Interrupted("Stopped.")

    equation.stop = stop
    for _ in range(4):
        with pytest.raises(Interrupted):
            sdcompress.tune(RECIPE, tmp_path / "parts", settings=own)
    assert tried(sdcompress.tune(RECIPE, tmp_path / "parts", settings=own)) == tried(whole)


def test_more_trials_go_on_and_no_more_return_what_is_there(equation, tmp_path: Path) -> None:
    few = sdcompress.tune(RECIPE, tmp_path / "tuned", settings=["tune.trials=2"])
    more = sdcompress.tune(RECIPE, tmp_path / "tuned", settings=["tune.trials=5"])
    assert tried(more)[:2] == tried(few)
    assert len(more.trials) == 5
    trained = len(equation.recipes)
    assert tried(sdcompress.tune(RECIPE, tmp_path / "tuned", settings=["tune.trials=5"])) == tried(more)
    assert len(equation.recipes) == trained


def test_another_search_is_refused_unless_the_user_throws_the_old_one_away(equation, tmp_path: Path) -> None:
    sdcompress.tune(RECIPE, tmp_path / "tuned", settings=["tune.trials=2"])
    for other in ("train.batch_size=16", "tune.exit=mean", "seed=1", "tune.epochs=2"):
        with pytest.raises(OutputExistsError, match="another recipe"):
            sdcompress.tune(RECIPE, tmp_path / "tuned", settings=["tune.trials=2", other])
    with pytest.raises(OutputExistsError, match="over other ranges"):
        sdcompress.tune(RECIPE, tmp_path / "tuned", search={LR: "log:0.01:1"})
    found = sdcompress.tune(RECIPE, tmp_path / "tuned", settings=["tune.trials=2", "seed=1"], overwrite=True)
    assert (found.seed, len(found.trials)) == (1, 2)
    (tmp_path / "tuned" / "mine.txt").touch()
    with pytest.raises(OutputExistsError, match=r"mine\.txt"):
        sdcompress.tune(RECIPE, tmp_path / "tuned", overwrite=True)


METHOD = """
from dataclasses import dataclass
from sdcompress.methods._base import Method

__all__ = ["Mine"]

@dataclass(frozen=True, kw_only=True)
class Mine(Method):
    def __call__(self, outputs, batch, state):
        return {}
"""


def test_another_method_in_the_same_file_is_another_search(equation, tmp_path: Path) -> None:
    file, moved = tmp_path / "mine.py", tmp_path / "moved.py"
    file.write_text(METHOD)
    moved.write_text(METHOD)
    own = ["tune.trials=1", "method=mine"]
    sdcompress.tune(RECIPE, tmp_path / "tuned", settings=[*own, f"method.file={file}"])
    sdcompress.tune(RECIPE, tmp_path / "tuned", settings=[*own, f"method.file={moved}"])
    file.write_text(f"{METHOD}# edited")
    with pytest.raises(OutputExistsError, match="another file of the method"):
        sdcompress.tune(RECIPE, tmp_path / "tuned", settings=[*own, f"method.file={file}"])


def test_other_weights_in_the_same_file_are_another_search(equation, tmp_path: Path) -> None:
    file, own = tmp_path / "weights.pt", ["tune.trials=1", f"model.weights={tmp_path / 'weights.pt'}"]
    file.write_bytes(b"first")
    sdcompress.tune(RECIPE, tmp_path / "tuned", settings=own)
    sdcompress.tune(RECIPE, tmp_path / "tuned", settings=own)
    file.write_bytes(b"second")
    with pytest.raises(OutputExistsError, match="with other weights"):
        sdcompress.tune(RECIPE, tmp_path / "tuned", settings=own)


@pytest.mark.parametrize(("module", "key"), [("trained_teacher", "method.teacher"), ("warm_start", "model.weights")])
def test_a_network_that_was_trained_anew_makes_another_search(
    equation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, key: str
) -> None:
    for name in ("run", "moved"):
        (tmp_path / name / "steps").mkdir(parents=True)
    held = SimpleNamespace(weights_sha256="a" * 64)
    monkeypatch.setattr(f"sdcompress.training.{module}.open_checkpoint", lambda _: held)
    own = ["tune.trials=1", "method=trained_teacher"]
    sdcompress.tune(RECIPE, tmp_path / "tuned", settings=[*own, f"{key}={tmp_path / 'run'}"])
    sdcompress.tune(RECIPE, tmp_path / "tuned", settings=[*own, f"{key}={tmp_path / 'moved'}"])
    held.weights_sha256 = "b" * 64
    with pytest.raises(OutputExistsError, match="with other weights"):
        sdcompress.tune(RECIPE, tmp_path / "tuned", settings=[*own, f"{key}={tmp_path / 'run'}"])


def test_a_range_that_is_wrong_throws_no_old_search_away(equation, tmp_path: Path) -> None:
    sdcompress.tune(RECIPE, tmp_path / "tuned", settings=["tune.trials=1"])
    with pytest.raises(RecipeError, match=r"train\.optimizer\.rate"):
        sdcompress.tune(RECIPE, tmp_path / "tuned", search={"train.optimizer.rate": "log:0.1:1"}, overwrite=True)
    assert (tmp_path / "tuned" / "tuning.json").exists()


def test_data_that_is_not_there_throws_no_old_search_away(equation, tmp_path: Path) -> None:
    sdcompress.tune(RECIPE, tmp_path / "tuned", settings=["tune.trials=1"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        sdcompress.tune(
            RECIPE,
            tmp_path / "tuned",
            settings=["data.name=imagefolder", f"data.dir={tmp_path / 'empty'}"],
            overwrite=True,
        )
    assert (tmp_path / "tuned" / "tuning.json").exists()


def test_a_process_that_ends_while_values_are_drawn_loses_no_trial(
    equation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna.trial import Trial

    def end(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Trial, "suggest_float", end)
        with pytest.raises(KeyboardInterrupt):
            sdcompress.tune(RECIPE, tmp_path / "tuned", settings=["tune.trials=2"])
    found = sdcompress.tune(RECIPE, tmp_path / "tuned", settings=["tune.trials=2"])
    assert [trial.number for trial in found.trials] == [0, 1]
    assert found.first.values == {LR: 0.1}


def test_minutes_are_those_of_training_over_all_calls(equation, tmp_path: Path) -> None:
    # a trial takes 4 x 15 s
    found = sdcompress.tune(RECIPE, tmp_path / "tuned", settings=["tune.minutes=2.5"])
    assert len(found.trials) == 3
    assert len(sdcompress.tune(RECIPE, tmp_path / "tuned", settings=["tune.minutes=2.5"]).trials) == 3
    assert len(sdcompress.tune(RECIPE, tmp_path / "tuned", settings=["tune.minutes=4"]).trials) == 4


def test_epochs_of_the_trials_do_not_become_those_of_the_recipe(equation, tmp_path: Path) -> None:
    sdcompress.tune(RECIPE, tmp_path / "tuned", settings=["tune.epochs=2", "tune.trials=2"])
    assert {recipe.train.epochs for recipe in equation.recipes} == {2}
    assert recipes.read(tmp_path / "tuned" / "best.yaml").train.epochs == 4
    assert "what is best for a short training" in (tmp_path / "tuned" / "tuning.md").read_text()


def test_the_median_ends_trials_early(equation, tmp_path: Path) -> None:
    found = sdcompress.tune(RECIPE, tmp_path / "tuned", settings=["tune.pruner=median", "tune.trials=14"])
    pruned = [trial for trial in found.trials if trial.state == "pruned"]
    assert pruned
    assert all(trial.epochs < 4 for trial in pruned)
    assert found.winner.state == "complete"


def test_a_trial_that_diverges_is_the_worst(equation, tmp_path: Path) -> None:
    def stop(recipe: Recipe, epoch: int) -> None:
        if recipe.train.optimizer.lr != 0.1:
            raise TrainingDivergedError("The loss is not finite.")

    equation.stop = stop
    found = sdcompress.tune(RECIPE, tmp_path / "tuned", settings=["tune.trials=3"])
    assert [trial.state for trial in found.trials] == ["complete", "diverged", "diverged"]
    assert found.best == 0
    assert "No trial beat" in (tmp_path / "tuned" / "tuning.md").read_text()


@pytest.mark.parametrize("kind", [RecipeError, DeviceError])
def test_values_that_cannot_be_trained_are_a_refused_trial_and_the_search_goes_on(equation, kind, tmp_path) -> None:
    def stop(recipe: Recipe, _epoch: int) -> None:
        if recipe.train.optimizer.lr != lr:
            raise kind("They do not go together.")

    lr = 0.1
    equation.stop = stop
    with pytest.warns(UserWarning, match=r"Trial [12] cannot be trained: They do not go together\."):
        found = sdcompress.tune(RECIPE, tmp_path / "tuned", settings=["tune.trials=3"])
    assert [(trial.state, trial.metric > 0) for trial in found.trials] == [
        ("complete", True), ("refused", False), ("refused", False),
    ]  # fmt: skip
    assert found.best == 0
    assert "2 trials refused." in (tmp_path / "tuned" / "tuning.md").read_text()
    lr = 0.5  # then the recipe itself cannot be trained
    with pytest.raises(kind, match="do not go together"):
        sdcompress.tune(RECIPE, tmp_path / "other", settings=["tune.trials=3"])


def test_a_journal_that_ends_in_half_a_line_is_continued(equation, tmp_path: Path) -> None:
    sdcompress.tune(RECIPE, tmp_path / "tuned", settings=["tune.trials=2"])
    with (tmp_path / "tuned" / "study.journal").open("a") as journal:
        journal.write('{"op_code":4,"worker_id":"')
    found = [sdcompress.tune(RECIPE, tmp_path / "tuned", settings=[f"tune.trials={count}"]) for count in (3, 4)]
    assert tried(found[1]) == tried(sdcompress.tune(RECIPE, tmp_path / "other", settings=["tune.trials=4"]))


def test_the_mean_of_the_exits_or_one_of_them(equation, tmp_path: Path) -> None:
    mean = sdcompress.tune(RECIPE, tmp_path / "mean", settings=["tune.exit=mean", "tune.trials=1"])
    assert mean.first.metric == pytest.approx(0.75 * best_at(0.1))
    one = sdcompress.tune(RECIPE, tmp_path / "one", settings=["tune.exit=exit1", "tune.trials=1"])
    assert one.first.metric == pytest.approx(best_at(0.1) / 2)
    trained = len(equation.recipes)
    for counts in ("int:1:2", "choice:1,2"):
        with pytest.raises(UnknownNameError, match="no 'exit2' among the exits that every trial has") as caught:
            sdcompress.tune(RECIPE, tmp_path / "other", settings=["tune.exit=exit2"], search={"exits.count": counts})
        assert caught.value.allowed == "exit1, final, mean"
    assert len(equation.recipes) == trained


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"exits.head": "choice:linear,sepcov"}, "cannot set 'exits.head' to sepcov: .*Did you mean 'sepconv'"),
        ({"exits.count": "int:1:40"}, "cannot set 'exits.count' to 40: .* places for one"),
        ({"train.batch_size": "choice:32,33"}, "cannot set 'train.batch_size' to 33: .*does not divide"),
    ],
)
def test_a_network_that_cannot_be_is_found_before_the_first_trial(
    equation, tmp_path: Path, search: dict[str, str], said: str
) -> None:
    exits = {**RECIPE, "method": "byot"}
    with pytest.raises(RecipeError, match=said):
        sdcompress.tune({**exits, "tune": {"search": search}}, tmp_path / "tuned", settings=["train.accumulate=2"])
    assert equation.recipes == []
    corrected = {**exits, "tune": {"search": {"exits.count": "int:1:2"}, "trials": 1}}
    assert sdcompress.tune(corrected, tmp_path / "tuned").best == 0  # nothing is in the way of it


def test_without_validation_samples_there_is_nothing_to_choose_by(equation, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="validation split"):
        sdcompress.tune(RECIPE, tmp_path / "tuned", settings=["data.validation=0"])
    assert not equation.recipes


def test_real_trainings_keep_the_checkpoint_of_the_best_alone(tmp_path: Path) -> None:
    found = sdcompress.tune(RECIPE, tmp_path / "tuned", settings=["tune.trials=3", "train.epochs=1"])
    kept = [path.parents[1].name for path in (tmp_path / "tuned" / "trials").glob("*/steps/*")]
    assert kept == [f"{found.best:03d}"]
    assert all(trial.exits.keys() == {"final"} and trial.epochs == 1 for trial in found.trials)


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"sdcompress\[tune\]"):
        sdcompress.tune(RECIPE, tmp_path / "tuned")
    assert not (tmp_path / "tuned").exists()


def test_the_command_line(equation, cli_tune: Callable[..., str], tmp_path: Path) -> None:
    shown = cli_tune("--search", f"{LR}=log:0.01:1", "--trials", "2", "--out", str(tmp_path / "tuned"))
    assert "trial" in shown
    assert f"sdcompress train -c {tmp_path / 'tuned'}/best.yaml" in shown


@pytest.fixture
def cli_tune(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    from typer.testing import CliRunner

    from sdcompress.cli.app import app

    path = tmp_path / "recipe.yaml"
    path.write_text(recipes.dump(recipes.read({**RECIPE, "tune": {}})))

    def run_it(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["tune", "-c", str(path), *arguments], catch_exceptions=False)
        assert done.exit_code == 0
        return done.output

    return run_it
