"""Labelled images of a user's own: a folder for each class of a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from sdcompress.data.labelled import labelled_examples
from sdcompress.errors import DataError
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image
from sdcompress.modalities.table import Table
from sdcompress.tasks.classification import Classification

TASK = Classification(("cat", "dog", "owl"))
MODALITY = Image.of(Preprocess(channels=1, resize=(4, 4), mean=(0.5,), std=(0.25,)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, level in (("owl/1.png", 10), ("cat/b.png", 30), ("cat/a.png", 20)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Pillow.new("L", (9, 5), level).save(tmp_path / name)
    return tmp_path


def test_labels_are_the_positions_of_the_networks_classes(folder: Path) -> None:
    samples = labelled_examples(folder, TASK, MODALITY, "label")
    assert samples.targets.tolist() == [0, 0, 2]  # no dog, although owl is the second folder
    assert samples.examples(np.arange(3))[:, 0, 0, 0].tolist() == [20, 30, 10]


def test_what_is_no_class_is_refused_by_name(folder: Path) -> None:
    (folder / "cats").mkdir()
    with pytest.raises(DataError, match="Did you mean 'cat'"):
        labelled_examples(folder, TASK, MODALITY, "label")


def test_what_holds_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for path, why in ((tmp_path, "no class folder with a file"), (tmp_path / "none", "not a folder")):
        with pytest.raises(DataError, match=why):
            labelled_examples(path, TASK, MODALITY, "label")


def test_a_row_of_a_table_that_cannot_be_used_is_not_to_be_left_out_by_a_recipe(tmp_path: Path) -> None:
    file, rows = tmp_path / "rows.csv", Table(("age",), (40.0,), (10.0,))
    file.write_text("age,label\n50,owl\n30,1\n")
    samples = labelled_examples(file, TASK, rows, "label")
    assert (samples.targets.tolist(), samples.examples(np.arange(2)).tolist()) == ([2, 1], [[50], [30]])
    for row in ("old,cat", "50,cow"):
        file.write_text(f"age,label\n{row}\n")
        with pytest.raises(DataError, match=r"rows\.csv:2") as found:
            labelled_examples(file, TASK, rows, "label")
        assert found.value.next_step == "correct or remove the row"


def test_files_beside_the_class_folders_are_said_to_be_passed_over(folder: Path) -> None:
    Pillow.new("L", (4, 4)).save(folder / "loose.png")
    with pytest.warns(UserWarning, match="1 files outside class folders"):
        labelled_examples(folder, TASK, MODALITY, "label")
