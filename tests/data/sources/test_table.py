"""Tables of files: which column is which, splits, missing values, numbers as targets, and the files of Adult."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import numpy as np
import pytest

from sdcompress import data
from sdcompress.errors import DataError, RecipeError
from sdcompress.schema.recipe import Data, ModalitySection, TaskSection

ADULT = "39, State-gov, 77516, Bachelors, 13, Never-married, ?, Not-in-family, White, Male, 2174, 0, 40, Cuba, {}\n"


def csv(folder: Path, name: str, rows: list[str], header: str = "age,city,code,label") -> None:
    (folder / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def test_columns_of_numbers_and_of_categories_are_told_apart_by_the_training_rows(tmp_path: Path) -> None:
    csv(tmp_path, "train", [f"{age},{city},7,{label}" for age, city, label in [(1, "x", "no"), (3, "y", "yes")] * 5])
    csv(tmp_path, "test", ["5,x,7,yes", "5,z,8,no"])
    with pytest.warns(UserWarning, match="'city' holds a category that no training row has"):
        dataset = data.load(Data(name="table", dir=str(tmp_path), validation=0.2), seed=0)
    assert dataset.outputs == ("no", "yes")
    table = dataset.modality
    assert (table.numbers, table.mean, table.std) == (("age", "code"), (2.0, 7.0), (1.0, 1.0))
    assert (table.categories, table.values) == (("city",), (("x", "y"),))
    inputs = dataset.modality.collate(dataset.test.examples(np.arange(2))).arrays
    assert inputs["numbers"].tolist() == [[3, 0], [3, 1]]
    assert inputs["categories"].tolist() == [[2], [0]]
    assert dataset.test.targets.tolist() == [1, 0]
    assert [len(dataset.train), len(dataset.val)] == [8, 2]


def test_missing_values_are_refused_with_the_row_or_filled(tmp_path: Path) -> None:
    csv(tmp_path, "train", [f"{age},x,7,{label}" for age, label in [(1, "no"), ("", "yes"), (3, "no"), (4, "yes")] * 5])
    spec = Data(name="table", dir=str(tmp_path))
    with pytest.raises(DataError, match=r"(?s)row train.csv:3 cannot be used: The column 'age' has no value"):
        data.load(spec, seed=0)
    csv(tmp_path, "test", ["9,x,7,no"])
    whole = spec.model_copy(update={"validation": 0.0})
    filled = data.load(whole, seed=0, modality=ModalitySection(missing="fill"))
    assert filled.modality.mean[0] == pytest.approx(8 / 3)
    chosen = data.load(spec.model_copy(update={"columns": ("city",)}), seed=0)
    assert [tensor.name for tensor in chosen.modality.tensors] == ["categories"]


def test_an_infinite_number_is_refused_with_its_row_and_makes_no_categories_of_its_column(tmp_path: Path) -> None:
    csv(tmp_path, "train", [f"{age},x,7,{label}" for age, label in [(1, "no"), ("inf", "yes"), (3, "no")] * 5])
    spec = Data(name="table", dir=str(tmp_path))
    with pytest.raises(DataError, match=r"row train.csv:3 cannot be used: The column 'age' holds 'inf'"):
        data.load(spec, seed=0)


def test_a_word_among_numbers_that_makes_categories_of_them_is_named(tmp_path: Path) -> None:
    ages = [*map(str, range(8)), "NA", "9"]
    csv(tmp_path, "train", [f"{age},x,7,{label}" for age, label in zip(ages, ["no", "yes"] * 5, strict=True)])
    with pytest.warns(UserWarning, match="'age' is read as categories: 9 of its 10 values are numbers, and 'NA' is"):
        dataset = data.load(Data(name="table", dir=str(tmp_path)), seed=0)
    assert dataset.modality.categories == ("age", "city")


def test_rows_of_json_hold_numbers_and_null(tmp_path: Path) -> None:
    rows = [{"age": age, "city": city, "label": age or 0} for age, city in [(0, "x"), (1, None), (None, "y"), (1, "x")]]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows * 5)))
    spec = Data(name="table", dir=str(tmp_path))
    with pytest.raises(DataError, match=r"train.jsonl:2 cannot be used: The column 'city' has no value"):
        data.load(spec, seed=0)
    (tmp_path / "test.jsonl").write_text(json.dumps(rows[0]))
    whole = spec.model_copy(update={"validation": 0.0})
    dataset = data.load(whole, seed=0, modality=ModalitySection(missing="fill"))
    assert (dataset.modality.mean, dataset.modality.values) == ((pytest.approx(2 / 3),), (("x", "y"),))
    (tmp_path / "train.jsonl").write_text(json.dumps({**rows[0], "label": None}))
    with pytest.raises(DataError, match=r"Line 1 .*no value of 'label'"):
        data.load(spec, seed=0)


def test_only_rows_that_train_are_measured(tmp_path: Path) -> None:
    """Certificates are tested on validation rows, so that these may have no part in what the network gets."""
    csv(tmp_path, "train", [f"{2**n},x,7,{n % 2}" for n in range(20)])
    spec = Data(name="table", dir=str(tmp_path), validation=0.25, exclude=("train.csv:3",))
    dataset = data.load(spec, seed=0)
    held_out = {age for split in (dataset.val, dataset.test) for age in split.examples(np.arange(len(split)))[:, 0]}
    trained = [2.0**n for n in range(20) if 2.0**n not in held_out and n != 1]  # line 3 holds 2
    assert len(trained) == 11  # 4 of 20 test, 4 of 16 validate, and of the others one is left out
    assert dataset.modality.mean[0] == pytest.approx(sum(trained) / len(trained))
    assert dataset.modality.std[0] == pytest.approx(np.std(trained))


def test_a_held_out_row_beyond_float32_once_standardised_is_refused(tmp_path: Path) -> None:
    csv(tmp_path, "train", [f"{n / 100},x,7,{n % 2}" for n in range(100)])
    csv(tmp_path, "test", ["-3.4028234663852886e38,x,7,0"])  # what some programs write for no data
    with pytest.raises(DataError, match=r"row test.csv:2 cannot be used: The column 'age' holds '-3\.4028"):
        data.load(Data(name="table", dir=str(tmp_path)), seed=0)


def test_numbers_beyond_float32_may_be_standardised(tmp_path: Path) -> None:
    csv(tmp_path, "train", [f"{n}e39,x,7,{n % 2}" for n in range(1, 41)])
    dataset = data.load(Data(name="table", dir=str(tmp_path)), seed=0)
    numbers = dataset.modality.collate(dataset.train.examples(np.arange(len(dataset.train)))).arrays["numbers"]
    assert (abs(numbers[:, 0].mean()), numbers[:, 0].std()) == (pytest.approx(0, abs=1e-6), pytest.approx(1))


def test_a_column_that_never_changes_has_the_deviation_1(tmp_path: Path) -> None:
    csv(tmp_path, "train", [f"0.1,x,7.7,{n % 2}" for n in range(1000)])  # the deviation of these rounds to 1e-17
    assert data.load(Data(name="table", dir=str(tmp_path)), seed=0).modality.std == (1.0, 1.0)


def test_names_of_columns_are_read_as_rows_are(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text('"age"\tlabel\n' + "1\tno\n2\tyes\n" * 10)
    assert data.load(Data(name="table", dir=str(tmp_path)), seed=0).modality.numbers == ('"age"',)
    csv(tmp_path, "train", ["1,x,7,no"] * 3, "age,city,age,label")
    (tmp_path / "train.tsv").unlink()
    with pytest.raises(DataError, match="two columns 'age'"):
        data.load(Data(name="table", dir=str(tmp_path)), seed=0)


def test_numbers_are_targets_of_a_regression_with_the_figures_of_the_training_rows(tmp_path: Path) -> None:
    csv(tmp_path, "train", [f"{n},x,{2 * n},{10 * n}" for n in range(10)])
    csv(tmp_path, "test", ["5,x,7,1"])
    spec = Data(name="table_numbers", dir=str(tmp_path), label="code, label", validation=0)
    dataset = data.load(spec, seed=0, task=TaskSection(name="regression"))
    assert (dataset.outputs, dataset.test.targets.tolist()) == (("code", "label"), [[7, 1]])
    assert dataset.task.mean == (9.0, 45.0)
    assert dataset.task.std == pytest.approx((2 * np.std(range(10)), 10 * np.std(range(10))))
    with pytest.raises(RecipeError, match="regression"):
        data.load(spec, seed=0)


@pytest.mark.parametrize("value", ["", "nan", "old"])
def test_a_target_that_is_no_number_is_refused_with_its_row(tmp_path: Path, value: str) -> None:
    csv(tmp_path, "train", ["1,x,7,1", f"1,x,7,{value}"])
    spec = Data(name="table_numbers", dir=str(tmp_path), validation=0)
    with pytest.raises(DataError, match=f"train.csv:3 has '{value}' as its 'label'"):
        data.load(spec, seed=0, task=TaskSection(name="regression"))
    csv(tmp_path, "train", [f"1,x,7,{n}" for n in range(1, 10)] + [f"1,x,7,{value}"])
    left = data.load(
        spec.model_copy(update={"exclude": ("train.csv:11",)}), seed=0, task=TaskSection(name="regression")
    )
    assert {*left.train.targets.ravel(), *left.test.targets.ravel()} <= set(range(1, 10))


def test_targets_that_are_all_the_same_are_refused(tmp_path: Path) -> None:
    csv(tmp_path, "train", [f"{n},x,7,7.7" for n in range(1000)])
    with pytest.raises(DataError, match="'label' are all the same number"):
        data.load(Data(name="table_numbers", dir=str(tmp_path)), seed=0, task=TaskSection(name="regression"))


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    csv(tmp_path, "train", ["1,x,7,1"] * 3)
    with pytest.raises(DataError, match=r"no column 'lable'. Did you mean 'label'"):
        data.load(Data(name="table", dir=str(tmp_path), label="lable"), seed=0)


@pytest.mark.parametrize(("name", "label"), [("table", "label"), ("table_numbers", "code, label")])
def test_a_label_among_the_columns_is_refused(tmp_path: Path, name: str, label: str) -> None:
    csv(tmp_path, "train", [f"{n},x,{n},{n % 2}" for n in range(20)])
    spec = Data(name=name, dir=str(tmp_path), label=label, columns=("age", "label"))
    with pytest.raises(RecipeError, match=r"'label' is in data\.columns") as caught:
        data.load(spec, seed=0, task=TaskSection(name="regression" if "," in label else "classification"))
    assert "'data.columns=[age]'" in caught.value.next_step


def test_the_files_of_adult_are_read_as_published(tmp_path: Path) -> None:
    rows = "".join(ADULT.format(label) for label in ("<=50K", ">50K") * 10)
    (tmp_path / "adult.data.xz").write_bytes(lzma.compress(rows.encode()))
    (tmp_path / "adult.test").write_text("|1x3 Cross validator\n" + ADULT.format(">50K."))
    dataset = data.load(Data(name="adult", dir=str(tmp_path)), seed=0)
    assert (dataset.outputs, dataset.test.targets.tolist()) == (("<=50K", ">50K"), [1])
    assert dataset.modality.numbers == ("age", "education-num", "capital-gain", "capital-loss", "hours-per-week")
    occupation = dataset.modality.categories.index("occupation")
    assert dataset.modality.values[occupation] == ()  # "?" is missing
    (tmp_path / "adult.test").unlink()
    with pytest.raises(DataError, match=r"no adult\.test"):
        data.load(Data(name="adult", dir=str(tmp_path)), seed=0)


def test_row_numbers_without_a_name_are_no_column(tmp_path: Path) -> None:
    csv(tmp_path, "train", [f"{row},{row % 2},{'ab'[row % 2]}" for row in range(20)], header=",age,label")
    spec = Data(name="table", dir=str(tmp_path))
    with pytest.raises(DataError, match=r"Column 1 of .*train.csv has no name") as caught:
        data.load(spec, seed=0)
    assert "to_csv(index=False)" in caught.value.next_step
    chosen = data.load(spec.model_copy(update={"columns": ("age",)}), seed=0)
    assert chosen.modality.numbers == ("age",)


@pytest.mark.parametrize(("header", "mark"), [("age;label", "';'"), ("age\tlabel", r"'\\t'")])
def test_a_table_that_is_separated_otherwise_is_said_to_be(tmp_path: Path, header: str, mark: str) -> None:
    csv(tmp_path, "train", [header.replace("age", "1").replace("label", "a")], header=header)
    with pytest.raises(DataError, match=f"names one column, with {mark} in it") as caught:
        data.load(Data(name="table", dir=str(tmp_path)), seed=0)
    assert "commas" in caught.value.allowed


def test_a_folder_that_is_not_there_is_said_with_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match=f"data.dir is people, looked for in {tmp_path}, which is not a folder"
    ) as caught:
        data.load(Data(name="table", dir="people"), seed=0)
    assert "--data-dir" in caught.value.next_step
    csv(tmp_path, "people", ["1,x,7,no"])
    with pytest.raises(DataError, match="which is not a folder") as caught:
        data.load(Data(name="table", dir=str(tmp_path / "people.csv")), seed=0)
    assert caught.value.next_step == "name the folder that holds this file"


def test_numbers_in_the_place_of_classes_are_answered_with_the_regression(tmp_path: Path) -> None:
    csv(tmp_path, "train", [f"{row},x,7,{row + 0.5}" for row in range(20)])
    with pytest.raises(DataError, match=r"has the label '19\.5'") as caught:
        data.load(Data(name="table", dir=str(tmp_path)), seed=0)
    assert "data.name=table_numbers, task=regression" in caught.value.next_step
