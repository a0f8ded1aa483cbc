"""What is trained: file, then --set, then flags; and every mistake in it named with the nearest right word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from sdcompress import recipes
from sdcompress.schema.recipe import Recipe


def test_print_config_is_the_whole_recipe_and_reads_back_the_same(cli, recipe: Path, tmp_path: Path) -> None:
    printed = cli("train", "-c", recipe, "--print-config")
    assert printed.code == 0
    assert Recipe.model_validate(yaml.safe_load(printed.out)).train.batch_size == 32
    assert set(yaml.safe_load(printed.out)["train"]) == set(Recipe().train.model_dump())
    (tmp_path / "again.yaml").write_text(printed.out, encoding="utf-8")
    assert cli("train", "-c", tmp_path / "again.yaml", "--print-config").out == printed.out
    assert json.loads(cli("train", "-c", recipe, "--print-config", "--json").out) == yaml.safe_load(printed.out)


def test_set_and_flags_win_over_the_file_and_hold_together_in_any_order(cli, recipe: Path) -> None:
    def epochs(*arguments: str) -> int:
        return yaml.safe_load(cli("train", "-c", recipe, "--print-config", *arguments).out)["train"]["epochs"]

    assert epochs() == 1
    assert epochs("--set", "train.epochs=7") == 7
    assert epochs("--epochs", "9", "--set", "train.batch_size=16") == 9
    assert epochs("--epochs", "7", "--set", "train.epochs=7") == 7


@pytest.mark.parametrize("settings", [["--set", "train.epochs=8"], ["--epochs", "8"]])
def test_a_key_that_is_set_to_two_values_is_an_error(cli, recipe: Path, settings: list[str]) -> None:
    for words in (["--set", "train.epochs=7", *settings], [*settings, "--set", "train.epochs=7"]):
        done = cli("train", "-c", recipe, "--print-config", *words)
        assert done.code == 2
        assert "'train.epochs' is set to two different values" in done.err
        assert "train.epochs=7" in done.err
        assert "train.epochs=8" in done.err


# a flag, a key beside or below the one that it sets, and a value of it
FLAGS = {
    "--method": ("fastbert", "method.backbone_share", 0.25),
    "--model": ("cifar:resnet18", "model.options", {"dropout": 0.1}),
    "--data": ("cifar10", "modality.image_size", 48),
    "--data-dir": ("there", "data.name", "cifar10"),
    "--epochs": ("3", "train.schedule.warmup_epochs", 1.0),
    "--batch-size": ("16", "train.accumulate", 2),
    "--lr": ("0.25", "train.optimizer.weight_decay", 0.0),
    "--seed": ("3", "name", "other"),
}


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_throws_away_no_setting_beside_it_in_either_order(cli, flag: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("method: {name: byot, temperature: 2.0}", encoding="utf-8")
    word, key, value = FLAGS[flag]
    setting = ["--set", f"{key}={json.dumps(value)}"]
    printed = [
        cli("train", "-c", tmp_path / "a.yaml", "--print-config", *words)
        for words in ([flag, word, *setting], [*setting, flag, word])
    ]
    assert printed[0].out == printed[1].out
    found = yaml.safe_load(printed[0].out)
    for part in key.split("."):
        found = found[part]
    assert found == value


def test_every_flag_of_train_sets_the_key_that_its_help_names(cli, recipe: Path) -> None:
    flags = {
        "--method eed": ("method", "name", "eed"),
        "--model timm:resnet18": ("model", "name", "timm:resnet18"),
        "--data cifar10": ("data", "name", "cifar10"),
        "--data-dir there": ("data", "dir", "there"),
        "--batch-size 16": ("train", "batch_size", 16),
    }
    for words, (section, key, value) in flags.items():
        printed = yaml.safe_load(cli("train", "-c", recipe, *words.split(), "--print-config").out)
        assert printed[section][key] == value, words
    printed = yaml.safe_load(cli("train", "-c", recipe, "--lr", "0.25", "--seed", "3", "--print-config").out)
    assert (printed["train"]["optimizer"]["lr"], printed["seed"]) == (0.25, 3)


def test_a_method_named_on_the_command_line_does_not_inherit_the_parameters_of_the_files(cli, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("method: {name: byot, temperature: 2.0}", encoding="utf-8")
    printed = cli("train", "-c", tmp_path / "recipe.yaml", "--method", "baseline", "--print-config")
    assert yaml.safe_load(printed.out)["method"] == {"name": "baseline", "file": None, "teacher": None, "preset": None}


@pytest.mark.parametrize("name", recipes.names())
def test_a_shipped_recipe_is_valid_and_says_what_it_is_for(cli, name: str) -> None:
    printed = cli("run", name, "--print-config")
    assert printed.code == 0, printed.err
    assert yaml.safe_load(printed.out)["name"] == name
    assert recipes.describe(name).endswith(".")


def test_invalid_yaml_says_where(cli, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("train: {epochs: 3\nseed: 1\n", encoding="utf-8")
    done = cli("train", "-c", tmp_path / "recipe.yaml", "--print-config")
    assert done.code == 2
    assert "no valid YAML" in done.err
    assert "line 2" in done.err
    assert "in the value of 'train.epochs'" in cli("train", "--set", "train.epochs=[1", "--print-config").err


def test_a_recipe_that_is_not_utf_8_is_told_by_name(cli, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes("name: café".encode("latin-1"))
    done = cli("train", "-c", tmp_path / "recipe.yaml", "--print-config")
    assert done.code == 2
    assert f"{tmp_path / 'recipe.yaml'} cannot be read" in done.err


MISTAKES = {
    "key": (["train", "--set", "train.epoch=3"], "'epochs'"),
    "section": (["train", "--set", "trian.epochs=3"], "'train'"),
    "value": (["train", "--set", "train.epochs=none"], "train.epochs"),
    "setting": (["train", "--set", "train.epochs"], "section.key=value"),
    "recipe": (["train", "-c", "digit"], "'digits'"),
    "recipe of run": (["run", "digit"], "'digits'"),
    "method": (["train", "--method", "byott"], "'byot'"),
    "parameter of the method": (["train", "--set", "method.temperatur=3"], "'temperature'"),
    "family": (["train", "--model", "cifra:resnet8"], "'cifar'"),
    "model": (["train", "--model", "cifar:resnet88"], "'resnet8'"),
    "model without family": (["train", "--model", "resnet8"], "family:name"),
    "head": (["train", "--set", "exits.head=linea"], "'linear'"),
    "place of an exit": (["train", "--set", "exits.modules=[layers.9]"], "'layer"),
    "data": (["train", "--data", "digit"], "'digits'"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_answered_with_what_is_right(cli, what: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, right = MISTAKES[what]
    done = cli(*arguments, *([] if arguments[0] == "run" else ["--out", tmp_path / "run"]))
    assert done.code == 2
    assert right in done.err
    assert done.err.count("error: ") == 1
    assert "  next: " in done.err
    assert "Traceback" not in done.err
    assert not done.out
    assert not list(tmp_path.rglob("*.safetensors"))
