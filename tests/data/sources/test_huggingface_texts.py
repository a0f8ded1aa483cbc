"""Texts in datasets that save_to_disk wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from texts import tokenizer_in

from sdcompress.data import load
from sdcompress.data.samples import Dataset, originals
from sdcompress.errors import DataError, RecipeError
from sdcompress.schema.recipe import Data, ModalitySection

datasets = pytest.importorskip("datasets")

CLASSES = datasets.ClassLabel(names=["neg", "pos"])
TEXTS = ["bad film", "good film", "dull plot", "fine plot"]


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    datasets.disable_progress_bars()


def table(label=CLASSES, **columns):
    features = {name: datasets.Value("string") for name in columns} | {"label": label}
    content = {**columns, "label": [0, 1, 0, 1] if label is CLASSES else ["neg", "pos", "neg", "pos"]}
    return datasets.Dataset.from_dict(content, features=datasets.Features(features))


def loaded(root: Path, made, **settings) -> Dataset:
    datasets.DatasetDict({"train": made, "validation": made, "test": made}).save_to_disk(root / "data")
    modality = ModalitySection(name="text", tokenizer=str(tokenizer_in(root / "encoder")), max_length=8)
    return load(Data(name="huggingface", dir=str(root / "data"), **settings), seed=0, modality=modality)


@pytest.mark.parametrize("label", [CLASSES, datasets.Value("string")])
def test_the_only_column_of_texts_and_its_labels(tmp_path: Path, label) -> None:
    dataset = loaded(tmp_path, table(label, review=TEXTS))
    assert (dataset.outputs, len(dataset.val)) == (("neg", "pos"), 4)
    assert dataset.train.targets.tolist() == [0, 1, 0, 1]
    assert originals(dataset.train, np.array([2])) == ["dull plot"]


def test_labels_are_positions_of_classes_that_are_called_by_other_numbers(tmp_path: Path) -> None:
    stars = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["1", "2", "0"])})
    made = datasets.Dataset.from_dict({"text": TEXTS, "label": [0, 1, 2, 0]}, features=stars)
    dataset = loaded(tmp_path, made)
    assert (dataset.outputs, dataset.test.targets.tolist()) == (("1", "2", "0"), [0, 1, 2, 0])
    unlabelled = datasets.Dataset.from_dict({"text": TEXTS, "label": [0, 1, 2, -1]}, features=stars)
    with pytest.raises(DataError, match=r"/3 .*has the label -1"):
        loaded(tmp_path / "unlabelled", unlabelled)


def test_a_label_among_the_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'label' is in data\.columns"):
        loaded(tmp_path, table(datasets.Value("string"), review=TEXTS), columns=("review", "label"))


def test_pairs_by_the_names_of_their_columns(tmp_path: Path) -> None:
    made = table(question=TEXTS, answer=TEXTS[::-1])
    with pytest.raises(DataError, match="more than one column of texts: question, answer"):
        loaded(tmp_path, made)
    dataset = loaded(tmp_path, made, columns=("question", "answer"))
    assert originals(dataset.train, np.array([0])) == [("bad film", "fine plot")]


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        (TEXTS, {"columns": ("reviews",)}, "no column 'reviews'.*Did you mean 'review'"),
        (TEXTS, {"label": "gold"}, "no column 'gold'"),
        ([*TEXTS[:3], None], {}, "train/3 .*lacks a text"),
        ([*TEXTS[:3], " "], {}, "/3 .*empty"),
    ],
)
def test_what_is_missing(tmp_path: Path, texts, settings, message) -> None:
    with pytest.raises(DataError, match=message):
        loaded(tmp_path, table(review=texts), **settings)
