"""What a person enters for an example, and that entering it gives the example again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from meaning import image_modality
from texts import tokenizer_in

from sdcompress.modalities import FormField, Modality
from sdcompress.modalities.table import Table
from sdcompress.modalities.text import Text


def again(modality: Modality, values: tuple[str, ...] | None) -> np.ndarray:
    """The example of what was entered, by way of the bytes that a client sends."""
    assert values is not None
    form = modality.form
    named = dict(zip((field.name for field in form.fields), values, strict=True))
    sent = {"text": values[0], "list": json.dumps(values), "object": json.dumps(named)}[form.encoding]
    return modality.example(modality.raw_from_bytes(sent.encode(), most_bytes=2**20))


def test_images_are_files() -> None:
    modality = image_modality((1, 4, 4))
    assert modality.form.encoding == "file"
    assert ".png" in modality.form.suffixes
    assert modality.entered(modality.edge_cases()["black"]) is None


def test_a_text_is_decoded_without_its_special_tokens(tmp_path: Path) -> None:
    modality = Text.of(tokenizer_in(tmp_path))
    example = modality.example("A very good film")
    assert modality.form.fields == (FormField("text"),)
    assert modality.entered(example) == ("a very good film",)
    assert np.array_equal(again(modality, modality.entered(example)), example)


@pytest.mark.parametrize("token_types", [True, False])
def test_special_tokens_tell_two_texts_apart(tmp_path: Path, token_types: bool) -> None:
    modality = Text.of(tokenizer_in(tmp_path), columns=("one", "two"), token_types=token_types)
    example = modality.example(("good plot", "a dull film"))
    assert modality.form.encoding == "list"
    assert modality.entered(example) == ("good plot", "a dull film")
    assert np.array_equal(again(modality, modality.entered(example)), example)


def test_a_pair_that_cannot_be_told_apart_is_not_entered(tmp_path: Path) -> None:
    modality = Text.of(tokenizer_in(tmp_path), columns=("one", "two"))
    example = modality.blank(1)[0]
    example[0, :3] = (2, 4, 3)  # one text alone
    assert modality.entered(example) is None


def test_a_row_has_a_field_for_each_column() -> None:
    table = Table(
        numbers=("age", "hours"), mean=(40.0, 38.0), std=(10.0, 5.0),
        categories=("sex",), values=(("f", "m"),), missing="fill",
    )  # fmt: skip
    assert table.form.encoding == "object"
    assert table.form.fields == (
        FormField("age", "number", optional=True),
        FormField("hours", "number", optional=True),
        FormField("sex", "choice", ("f", "m"), optional=True),
    )
    for row, entered in (
        ({"age": 31, "hours": 37.5, "sex": "m"}, ("31", "37.5", "m")),
        ({"age": None, "hours": 0.1, "sex": ""}, ("", "0.1", "")),
    ):
        example = table.example(row)
        assert table.entered(example) == entered
        np.testing.assert_array_equal(again(table, table.entered(example)), example)
    with pytest.warns(UserWarning, match="no training row has"):
        assert table.entered(table.example({"age": 1, "hours": 2, "sex": "x"})) == ("1", "2", "?")
