"""Tables of texts become data sets; each kind of broken table has its error."""

import json
from pathlib import Path

import numpy as np
import pytest
from texts import tokenizer_in

from sdcompress.data import load
from sdcompress.data.samples import originals
from sdcompress.errors import DataError, RecipeError
from sdcompress.schema import recipe

ROWS = [("good film", "0"), ("bad film", "1"), ("a fine plot", "0"), ("dull plot", "1"), ("very good", "0")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer_in(tmp_path / "encoder")
    data = tmp_path / "data"
    data.mkdir()
    write(data / "train.tsv", ROWS)
    write(data / "dev.tsv", ROWS[:2])
    write(data / "test.tsv", ROWS[1:3])
    return data


def write(file: Path, rows, columns=("text", "label")) -> None:
    lines = ["\t".join(columns), *("\t".join(row) for row in rows)]
    file.write_text("\n".join(lines) + "\n", "utf-8")


def loaded(folder: Path, *, name="texts", modality=(), **data):
    settings = {"name": "text", "tokenizer": str(folder.parent / "encoder"), "max_length": 16, **dict(modality)}
    spec = recipe.Data(name=name, dir=str(folder), **data)
    return load(spec, seed=0, modality=recipe.ModalitySection(**settings))


def test_tables_by_split(folder: Path) -> None:
    dataset = loaded(folder)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (5, 2, 2)
    assert dataset.outputs == ("0", "1")
    assert dataset.train.targets.tolist() == [0, 1, 0, 1, 0]
    rows = np.array([1, 4])
    assert originals(dataset.train, rows) == ["bad film", "very good"]
    expected = dataset.modality.prepare(["bad film", "very good"]).arrays
    given = dataset.modality.collate(dataset.train.examples(rows)).arrays
    for name, array in expected.items():
        np.testing.assert_array_equal(given[name], array)


def test_names_of_classes_are_sorted_and_used_by_every_split(folder: Path) -> None:
    named = [(text, {"0": "pos", "1": "neg"}[label]) for text, label in ROWS]
    write(folder / "train.tsv", named)
    write(folder / "dev.tsv", named[:2])
    write(folder / "test.tsv", named[1:3])
    dataset = loaded(folder)
    assert dataset.outputs == ("neg", "pos")
    assert dataset.test.targets.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("labels", "outputs", "targets"),
    [
        (["0", "1", "1.0"], ("0", "1"), [0, 1, 1]),
        (["one", "two", "one"], ("one", "two"), [0, 1, 0]),
        (["2 stars", "1", "0"], ("0", "1", "2 stars"), [2, 1, 0]),
    ],
)
@pytest.mark.filterwarnings("ignore:Some labels are numbers")
def test_labels_are_numbers_or_names(folder: Path, labels, outputs, targets) -> None:
    for split in ("train", "dev", "test"):
        write(folder / f"{split}.tsv", [("good", label) for label in labels])
    dataset = loaded(folder)
    assert (dataset.outputs, dataset.test.targets.tolist()) == (outputs, targets)


def test_labels_of_both_kinds_get_a_warning_that_names_a_row(folder: Path) -> None:
    write(folder / "train.tsv", [*ROWS, ("bad", "oops")])
    with pytest.warns(UserWarning, match=r"row train\.tsv:7 has the label 'oops': all 3 are read as names"):
        loaded(folder)


def test_a_text_that_the_tokenizer_cannot_read_is_named_by_its_row(folder: Path) -> None:
    for file in folder.glob("*.tsv"):
        file.unlink()
    rows = [{"text": "good film", "label": 0}, {"text": "bad film", "label": 1}, {"text": "bad \ud800", "label": 1}]
    for split, count in (("train", 3), ("test", 2)):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows[:count])), "utf-8")
    with pytest.raises(DataError, match=r"train\.jsonl:3 cannot be used: The tokenizer .*surrogate pair") as caught:
        loaded(folder)
    assert "data.exclude" in (caught.value.next_step or "")


@pytest.mark.filterwarnings("ignore:Some labels are numbers")
def test_a_number_is_no_position_among_classes_that_are_called_by_numbers(folder: Path) -> None:
    write(folder / "train.tsv", [("good", "1"), ("bad", "many")])
    write(folder / "test.tsv", [("good", "0")])
    write(folder / "dev.tsv", [("good", "1")])
    with pytest.raises(DataError, match=r"test\.tsv:2 has the label '0'"):
        loaded(folder)


def test_pairs_and_other_columns(folder: Path) -> None:
    for split in ("train", "test"):
        rows = [{"question": text, "answer": "a film", "gold": int(label)} for text, label in ROWS]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    for file in folder.glob("*.tsv"):
        file.unlink()
    dataset = loaded(folder, columns=("question", "answer"), label="gold", modality={"token_types": True})
    assert originals(dataset.train, np.array([0])) in ([("good film", "a film")], [("bad film", "a film")])
    assert dataset.modality.columns == ("question", "answer")
    assert len(dataset.modality.tensors) == 3


@pytest.mark.parametrize("suffix", [".tsv", ".csv"])
def test_a_document_is_longer_than_the_usual_value_of_a_table(folder: Path, suffix: str) -> None:
    """Python's csv module refuses a value of more than 131,072 characters unless it is told otherwise."""
    lines = ["text,label", f"{'good ' * 30_000},1", *(f"bad film {row},0" for row in range(6))]
    for split in ("train", "dev", "test"):
        (folder / f"{split}.tsv").unlink()
        (folder / f"{split}{suffix}").write_text("\n".join(lines).replace(",", {".csv": ",", ".tsv": "\t"}[suffix]))
    with pytest.warns(UserWarning, match="1 of 7 texts have more than 16 tokens"):
        dataset = loaded(folder)
    (first,) = originals(dataset.train, np.array([0]))
    assert len(first) == 150_000


def test_a_text_that_is_its_own_label_is_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"'label' is in data\.columns"):
        loaded(folder, columns=("text", "label"))


def test_one_table_is_split(folder: Path) -> None:
    for name in ("dev", "test"):
        (folder / f"{name}.tsv").unlink()
    write(folder / "train.tsv", ROWS * 8)
    dataset = loaded(folder)
    assert len(dataset.train) + len(dataset.val) + len(dataset.test) == 40
    assert len(dataset.test) == 8


def test_a_row_can_be_left_out(folder: Path) -> None:
    write(folder / "train.tsv", [*ROWS, (" ", "1"), ("bad", "1")])
    with pytest.raises(DataError, match=r"train\.tsv:7 .*empty"):
        loaded(folder)
    dataset = loaded(folder, exclude=("train.tsv:7",))
    assert originals(dataset.train, np.arange(len(dataset.train))).count("bad") == 2  # it takes the place
    with pytest.raises(RecipeError, match=r"train\.tsv:99"):
        loaded(folder, exclude=("train.tsv:99",))


def test_the_label_of_a_row_that_is_left_out_is_no_class(folder: Path) -> None:
    write(folder / "train.tsv", [*ROWS, ("bad", "bda")])
    write(folder / "test.tsv", [*ROWS, ("bad", "3")])
    dataset = loaded(folder, exclude=("train.tsv:7", "test.tsv:7"))
    assert (dataset.outputs, len(dataset.train), len(dataset.test)) == (("0", "1"), 6, 5)


def test_the_content_decides_the_fingerprint(folder: Path) -> None:
    before = loaded(folder).fingerprint
    assert loaded(folder).fingerprint == before
    assert loaded(folder, modality={"max_length": 8}).fingerprint != before
    write(folder / "test.tsv", ROWS[2:4])
    assert loaded(folder).fingerprint != before


def test_another_tokenizer_is_another_fingerprint(folder: Path) -> None:
    before = loaded(folder).fingerprint
    tokenizer_in(folder.parent / "encoder", ("good", "bad"))
    assert loaded(folder).fingerprint != before


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("good", "0"), ("bad", "2")], "No row .*label 1"),
        ([("good", "1"), ("bad", "2")], "No row .*label 0"),
        ([("good", "0.5"), ("bad", "1")], r"train\.tsv:2 has the label '0\.5'"),
        ([("good", "-1"), ("bad", "0")], r"train\.tsv:2 has the label '-1'"),
        ([("good", ""), ("bad", "neg")], r"train\.tsv:2 has an empty label"),
        ([("bad", "0"), ("good", "nan")], r"train\.tsv:3 has the label 'nan'"),
    ],
)
def test_labels_that_are_no_classes(folder: Path, rows, message) -> None:
    write(folder / "train.tsv", rows)
    with pytest.raises(DataError, match=message):
        loaded(folder)


def test_an_unknown_label_of_another_split(folder: Path) -> None:
    write(folder / "test.tsv", [("good", "3")])
    with pytest.raises(DataError, match=r"test\.tsv:2 has the label '3'"):
        loaded(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": ("texts",)}, "no column 'texts'.*Did you mean 'text'"),
        ({"label": "gold"}, "no column 'gold'"),
        ({"columns": ("a", "b", "c")}, "columns"),
    ],
)
def test_unknown_columns(folder: Path, settings, message) -> None:
    with pytest.raises((DataError, RecipeError), match=message):
        loaded(folder, **settings)


def test_folders_that_hold_no_tables(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no table"):
        loaded(tmp_path / "empty")
    with pytest.raises(DataError, match="not a folder"):
        loaded(tmp_path / "absent")
    (folder / "train.csv").write_text("text,label\n", "utf-8")
    with pytest.raises(DataError, match="two tables of one name"):
        loaded(folder)


def test_a_missing_tokenizer_and_a_parameter_of_images(folder: Path) -> None:
    with pytest.raises(RecipeError, match="tokenizer"):
        load(recipe.Data(name="texts", dir=str(folder)), seed=0)
    with pytest.raises(DataError, match="no tokenizer at"):
        loaded(folder, modality={"tokenizer": str(folder)})
    with pytest.raises(RecipeError, match="image_size"):
        loaded(folder, modality={"image_size": 3})


def test_sst2_as_glue_has_it(folder: Path) -> None:
    for split in ("train", "dev", "test"):
        write(folder / f"{split}.tsv", ROWS, ("sentence", "label"))
    dataset = loaded(folder, name="sst2")
    assert dataset.outputs == ("negative", "positive")
    assert (len(dataset.val), len(dataset.test)) == (5, 5)
    # GLUE's own test sentences have no labels
    write(folder / "test.tsv", [("0", "good film")], ("index", "sentence"))
    dataset = loaded(folder, name="sst2", validation=0.2)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (4, 1, 5)
    (folder / "dev.tsv").unlink()
    with pytest.raises(DataError, match=r"no dev\.tsv"):
        loaded(folder, name="sst2")


@pytest.mark.needs_data("sst2")
def test_the_real_sst2(sst2_folder: Path, tmp_path: Path) -> None:
    tokenizer_in(tmp_path)
    spec = recipe.Data(name="sst2", dir=str(sst2_folder))
    dataset = load(spec, seed=0, modality=recipe.ModalitySection(name="text", tokenizer=str(tmp_path)))
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (67349, 872, 1821)
    assert dataset.test.targets.mean() == pytest.approx(909 / 1821)
