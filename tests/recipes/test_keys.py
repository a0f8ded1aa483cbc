"""The list of a recipe's keys: all of them, as --set takes them, with their defaults and meanings."""

from __future__ import annotations

import pytest

from sdcompress import list_entries, recipes


def test_every_key_is_there_with_its_default() -> None:
    tree = recipes.read(None).model_dump(mode="json")
    for name, default, _ in recipes.all_keys():
        value = tree
        for part in name.split("."):
            value = value[part]
        assert value == default, name
    sections = {name.partition(".")[0] for name, _, _ in recipes.all_keys()}
    assert sections == set(tree)


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("train.batch_size", "samples a step, over all processes [default: 128]"),
        ("train.epochs", "[default: 30]"),
        ("data.dir", "folder that holds the data (or receives the download) [default: null]"),
        ("train.optimizer.name", 'sgd, adamw [default: "sgd"]'),
    ],
)
def test_a_key_is_listed_with_its_meaning_and_default(key: str, line: str) -> None:
    assert list_entries("keys")["keys"][key] == line
