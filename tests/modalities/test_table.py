"""Rows of tables: inputs by hand, categories and values that training never saw, and what cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sdcompress import modalities
from sdcompress.errors import InputError
from sdcompress.modalities.table import Table

ROWS = Table(("age", "hours"), (40.0, 10.0), (10.0, 2.0), ("city", "job"), (("Bern", "Rome"), ("cook",)))
FILLED = Table(ROWS.numbers, ROWS.mean, ROWS.std, ROWS.categories, ROWS.values, "fill")
ROW = {"age": "50", "hours": 8, "city": " Rome ", "job": "cook", "name": "not used"}


def test_a_row_becomes_standardised_numbers_and_indices_of_which_each_column_has_its_own() -> None:
    assert [(tensor.name, tensor.dtype, tensor.shape, tensor.below) for tensor in ROWS.tensors] == [
        ("numbers", "float32", ("batch", 2), None),
        ("categories", "int64", ("batch", 2), 7),
    ]
    inputs = ROWS.prepare([ROW, {**ROW, "city": "Bern"}]).arrays
    np.testing.assert_array_equal(inputs["numbers"], np.float32([[1, -1], [1, -1]]))
    # city: 0 unknown, 1 missing, 2 Bern, 3 Rome; job: 4 unknown, 5 missing, 6 cook
    np.testing.assert_array_equal(inputs["categories"], [[3, 6], [2, 6]])
    assert len(ROWS.prepare([])) == 0
    assert modalities.restore(ROWS.record.name, ROWS.parameters) == ROWS


def test_a_category_that_training_never_saw_is_unknown_and_said() -> None:
    with pytest.warns(UserWarning, match="'city' holds a category that no training row has"):
        assert ROWS.prepare([{**ROW, "city": "Paris"}]).arrays["categories"].tolist() == [[0, 6]]


@pytest.mark.parametrize("nothing", [None, "", "  ", float("nan"), "nan"])
def test_missing_values_are_refused_or_filled(nothing: object) -> None:
    with pytest.raises(InputError, match=r"(?s)Table 0 cannot be used: The column 'age' has no value.*missing=fill"):
        ROWS.prepare([{**ROW, "age": nothing}])
    assert FILLED.prepare([{**ROW, "age": nothing}]).arrays["numbers"].tolist() == [[0, -1]]


def test_a_missing_category_has_an_index_of_its_own() -> None:
    assert FILLED.prepare([{**ROW, "job": ""}]).arrays["categories"].tolist() == [[3, 5]]
    with pytest.raises(InputError, match="'job' has no value"):
        ROWS.prepare([{**ROW, "job": None}])
    called_so = Table(categories=("a",), values=(("None", "nan"),), missing="fill")
    rows = [{"a": None}, {"a": float("nan")}, {"a": np.float32("nan")}, {"a": "None"}]
    assert called_so.prepare(rows).arrays["categories"].tolist() == [[1], [1], [1], [2]]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"age": 1, "hour": 2, "city": "Rome", "job": "cook"}, "no column 'hours'. Is it 'hour'"),
        ({**ROW, "age": "old"}, "'age' holds 'old'"),
        ({**ROW, "age": "inf"}, "'age' holds 'inf'"),
        ({**ROW, "age": 10**400}, "'age' holds '1000"),
        ([50, 8, "Rome", "cook"], "A row is a list"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(row: object, why: str) -> None:
    with pytest.raises(InputError, match=why):
        ROWS.prepare([row])


def test_files_hold_one_row_or_many(tmp_path: Path) -> None:
    (tmp_path / "row.json").write_text(json.dumps(ROW))
    (tmp_path / "rows.csv").write_text("job,city,age,hours,income\ncook,Rome,50,8,low\ncook,Bern,40,10,high\n")
    (tmp_path / "broken.json").write_text("{")
    np.testing.assert_array_equal(ROWS.example(tmp_path / "row.json"), [50, 8, 3, 6])
    names, rows = zip(*ROWS.raw_examples(tmp_path / "rows.csv"), strict=True)
    assert [Path(name).name for name in names] == ["rows.csv:2", "rows.csv:3"]
    np.testing.assert_array_equal(ROWS.example(rows[1]), [40, 10, 2, 6])
    assert [label for *_, label in ROWS.labelled_rows(tmp_path / "rows.csv", "income")] == ["low", "high"]
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name in ("broken.json", "deep.json"):
        with pytest.raises(InputError, match="cannot be read"):
            ROWS.example(tmp_path / name)


def test_an_index_that_is_no_category_is_refused() -> None:
    inputs = {"numbers": np.zeros((1, 2), np.float32), "categories": np.array([[3, 7]])}
    with pytest.raises(InputError, match="holds the index 7"):
        ROWS.check(inputs)


def test_columns_of_one_kind_give_one_input() -> None:
    assert [tensor.name for tensor in Table(("a",), (0.0,), (1.0,)).tensors] == ["numbers"]
    only = Table(categories=("a",), values=(("x",),))
    assert list(only.prepare([{"a": "x"}]).arrays) == ["categories"]


@pytest.mark.parametrize("nothing", [None, "nan"])
def test_the_program_of_the_card_prepares_a_row_as_the_modality_does(tmp_path: Path, nothing: object) -> None:
    (tmp_path / "row.json").write_text(json.dumps({**ROW, "city": "Paris", "hours": nothing}))
    names: dict[str, object] = {"np": np}
    exec(FILLED.card_code(), names)
    with pytest.warns(UserWarning, match="unknown"):
        expected = FILLED.prepare([tmp_path / "row.json"]).arrays
    for name, array in names["inputs_of"](tmp_path / "row.json").items():  # type: ignore[operator]
        np.testing.assert_array_equal(array, expected[name])


def test_edge_cases_are_inputs() -> None:
    batch = FILLED.collate(np.stack(list(FILLED.edge_cases().values())))
    assert FILLED.check(batch).arrays["categories"].max() == 6


class Frame:
    """What a frame of pandas has of its own."""

    def to_dict(self, orient: str) -> list[dict[str, object]]:
        return [ROW] if orient == "records" else []


@pytest.mark.parametrize(
    ("raw", "next_step"),
    [
        (ROW, "engine.preprocess([row])"),
        ("row.json", "engine.preprocess([row])"),
        (Path("row.json"), "engine.preprocess([row])"),
        (Frame(), "engine.preprocess(frame.to_dict('records'))"),
    ],
)
def test_what_is_no_list_of_rows_is_said_to_be_none(raw: object, next_step: str) -> None:
    with pytest.raises(InputError, match=f"This is a {type(raw).__name__}, not a list of rows") as caught:
        ROWS.prepare(raw)
    assert next_step in caught.value.next_step
