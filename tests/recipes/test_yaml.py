"""Recipes are strangers' files: every one is read or refused by an error of ours, within a second."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sdcompress import recipes
from sdcompress.errors import RecipeError, UnknownNameError, UsageError
from sdcompress.recipes._yaml import MAX_BYTES, dump_yaml, load_yaml


def too_slow(*_: object) -> None:
    raise AssertionError("more than a second")


@pytest.fixture
def within_a_second() -> Iterator[None]:
    """Of this process alone: that the machine is busy is no fault of the recipe."""
    before = signal.signal(signal.SIGVTALRM, too_slow)
    signal.setitimer(signal.ITIMER_VIRTUAL, 1.0)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


BOMB = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
BOMB += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
CHAIN = ["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 1500))]
HOSTILE = {
    "aliases that multiply": "model: {options: {" + ", ".join(BOMB) + "}}",
    "aliases that multiply, as text": "\n".join(BOMB),
    "merge keys that multiply": "m0: &m0 {k: v}\n"
    + "\n".join(f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}" for n in range(1, 10)),
    "aliases that nest": "\n".join(CHAIN),
    "an anchor within itself": "model: {options: &a {b: *a}}",
    "the whole within itself": "&a {model: *a}",
    "brackets": "model: {options: {a: " + "[" * 3000 + "]" * 3000 + "}}",
    "open brackets": "model: " + "[" * 3000,
    "braces": "model: " + "{" * 3000 + "}" * 3000,
    "dashes": "model: \n" + "- " * 3000,
    "indents": "\n".join(" " * n + "a:" for n in range(200)),
    "5,000 digits": "seed: " + "9" * 5000,
    "400 digits of a float": "train: {optimizer: {lr: " + "9" * 400 + "}}",
    "400 digits of an option": "model: {options: {a: " + "9" * 400 + "}}",
    "hexadecimal digits": "seed: 0x" + "f" * 5000,
    "unknown keys": "\n".join(f"ke{n}: 1" for n in range(100_000)),
    "unknown keys that fit": "\n".join(f"ke{n}: 1" for n in range(1500)),
    "a name of 5,000 letters": "name: " + "a" * 5000,
    "a folder of 5,000 letters": "data: {dir: " + "a" * 5000 + "}",
    "a method of 5,000 letters": "method: {name: " + "a" * 5000 + "}",
    "a literal of 5,000 letters": "train: {device: " + "a" * 5000 + "}",
    "a key of 5,000 letters": "? " + "a" * 5000 + "\n: 1",
    "a seed of 65 bits": "seed: 18446744073709551616",
    "epochs of 64 bits": "train: {epochs: 18446744073709551615}",
    "infinity": "train: {optimizer: {lr: .inf}}",
    "infinity in digits": "train: {optimizer: {lr: 1e999}}",
    "nan": "train: {optimizer: {weight_decay: .nan}}",
    "nan in a list": "train: {schedule: {name: multistep, milestones: [.nan]}}",
    "a month 13": "seed: 2024-13-45",
    "a number that is none": "seed: !!int abc",
    "bytes": "model: {options: {a: !!binary aGk=}}",
    "an object": "name: !!python/object/apply:os.getcwd []",
    "a list as a key": "{[1, 2]: 3}",
    "a mapping as a key": "? {a: 1}\n: 3",
    "a control character": "name: a\x07b",
    "nothing but a list": "[1, 2]",
}


@pytest.mark.usefixtures("within_a_second")
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_recipe_is_refused_at_once_and_briefly(what: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(HOSTILE[what], encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        recipes.read(tmp_path / "a.yaml")
    assert str(tmp_path / "a.yaml") in str(caught.value)
    assert len(str(caught.value)) < 3000


@pytest.mark.usefixtures("within_a_second")
@pytest.mark.parametrize(
    "setting",
    [
        "model.options=" + "[" * 50,
        "model.options=" + "[" * 50 + "]" * 50,
        "seed=" + "{" * 50 + "}" * 50,
        "train.epochs=" + "9" * 5000,
        "a." * 5000 + "b=1",
        "." * 50 + "=1",
        "a" * 5000 + "=1",
        "a" * 5000,
        "train.epochs=" + "a" * 5000,
        "name=\udcff",
        "train.optimizer.lr=nan",
    ],
)
def test_a_hostile_setting_is_refused_at_once_and_briefly(setting: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipes.read("digits", [setting])
    assert len(str(caught.value)) < 3000


@pytest.mark.usefixtures("within_a_second")
@pytest.mark.parametrize("name", ["a" * 5000, "a/" * 3000, "a\0b", "\udcff"])
def test_a_name_that_is_no_file_is_no_recipe(name: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        recipes.read(name)
    assert len(str(caught.value)) < 1000


def test_the_largest_seed_is_one() -> None:
    assert recipes.read(None, [f"seed={2**64 - 1}"]).seed == 2**64 - 1


def test_aliases_and_merge_keys_that_are_modest_stay_what_they_are() -> None:
    text = "base: &b {a: 1, c: [2]}\nfirst: *b\nsecond: {<<: *b, a: 3}"
    assert load_yaml(text, "it") == {
        "base": {"a": 1, "c": [2]},
        "first": {"a": 1, "c": [2]},
        "second": {"a": 3, "c": [2]},
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-1", 0.1),
        ("5E-4", 5e-4),
        ("1e3", 1000.0),
        ("+1e3", 1000.0),
        ("-1e-3", -0.001),
        (".5", 0.5),
        (".5e1", 5.0),
        ("1.", 1.0),
        ("1.e2", 100.0),
        ("1.5e-05", 1.5e-5),
        ("1_000", 1000),
        ("1_000.5", 1000.5),
        ("0x10", 16),
        ("-3", -3),
        ("0", 0),
        ("-.inf", -math.inf),
        ("1e5e", "1e5e"),
        ("e5", "e5"),
        ("1e", "1e"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("1.2.3", "1.2.3"),
        ("'1e-1'", "1e-1"),
        ("yes", True),
        ("~", None),
        ("_1", "_1"),
    ],
)
def test_numbers_are_those_of_yaml_1_2(text: str, value: object) -> None:
    for parsed in (load_yaml(text, "it"), load_yaml(f"a: {text}", "it")["a"], load_yaml(f"[{text}]", "it")[0]):
        assert parsed == value
        assert type(parsed) is type(value)


@pytest.mark.parametrize("text", ["1e-1", "1:30", "2024-01-01", "0o17", "yes", "null", "", "1.5", ".inf", "a: b", "é"])
def test_a_text_that_looks_like_a_number_is_dumped_so_that_it_stays_a_text(text: str) -> None:
    written = dump_yaml({"a": text, "b": [text]})
    assert load_yaml(written, "it") == {"a": text, "b": [text]}
    assert yaml.safe_load(written) == {"a": text, "b": [text]}  # for readers of YAML 1.1, which have other numbers


def test_numbers_are_numbers_in_files_in_settings_and_in_options(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model: {options: {drop_rate: 1e-1}}\nmethod: {name: byot, temperature: 2e0}")
    read = recipes.read(tmp_path / "a.yaml", ["model.options.drop_path_rate=5e-2", "method.kd_weight=1e-2"])
    assert read.model.options == {"drop_rate": 0.1, "drop_path_rate": 0.05}
    assert read.method.parameters == {"temperature": 2.0, "kd_weight": 0.01}
    assert recipes.read("digits", ["model.options={drop_rate: 1e-1}"]).model.options == {"drop_rate": 0.1}


def test_the_longest_recipe_fits(tmp_path: Path) -> None:
    text = recipes.dump(recipes.read("digits"))
    assert len(text) * 4 < MAX_BYTES
    (tmp_path / "a.yaml").write_text(text + "#" * (MAX_BYTES - len(text)))
    assert recipes.read(tmp_path / "a.yaml") == recipes.read("digits")
    (tmp_path / "a.yaml").write_text(text + "#" * (MAX_BYTES - len(text) + 1))
    with pytest.raises(UsageError, match="more than 16,384 characters"):
        recipes.read(tmp_path / "a.yaml")
