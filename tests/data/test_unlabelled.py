"""A folder of a user's own images: each once, by its pixels, whatever its name, format or place."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdcompress.data.samples import ArraySamples
from sdcompress.data.unlabelled import UnlabelledFolder
from sdcompress.errors import DataError
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image as Modality

GREY = Preprocess(channels=1, resize=(6, 5), mean=(0.5,), std=(0.25,))
SHAPE = (6, 5, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(12):
        place = tmp_path / "camera" / ("north" if number % 2 else "south")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 15), np.uint8)).save(place / f"{number}.png")
    (tmp_path / "camera" / "notes.txt").write_text("no image")
    (tmp_path / "camera" / "._1.png").write_bytes(b"not an image either")
    return tmp_path / "camera"


def read(folder: Path, preprocess: Preprocess = GREY) -> UnlabelledFolder:
    return UnlabelledFolder(folder, Modality.of(preprocess, SHAPE[:2]))


def pixels(found: UnlabelledFolder) -> np.ndarray:
    return found.examples(np.arange(len(found)))


def test_all_images_below_the_folder_without_labels(folder: Path) -> None:
    found = read(folder)
    assert pixels(found).shape == (12, *SHAPE)
    assert found.targets.tolist() == [-1] * 12
    assert not found.apart


def test_names_and_places_decide_neither_order_nor_fingerprint(folder: Path, tmp_path: Path) -> None:
    """Whoever renames files to draw other parts draws the same again."""
    first = read(folder)
    other = tmp_path / "other"
    other.mkdir()
    for number, path in enumerate(sorted(folder.rglob("[0-9]*.png"), reverse=True)):
        Image.open(path).save(other / f"{chr(97 + number)}.bmp")
    second = read(other)
    np.testing.assert_array_equal(pixels(first), pixels(second))
    assert first.fingerprint == second.fingerprint
    next(other.glob("a*")).unlink()
    assert read(other).fingerprint != first.fingerprint
    assert read(folder, GREY.model_copy(update={"mean": (0.4,)})).fingerprint != first.fingerprint


def test_a_copy_is_refused_by_its_pixels(folder: Path) -> None:
    shutil.copy(folder / "north" / "1.png", folder / "again.png")
    Image.open(folder / "south" / "2.png").save(folder / "as.tiff")
    with pytest.raises(DataError, match="2 of 14 examples are copies") as caught:
        read(folder)
    assert "again.png" in str(caught.value)
    assert "1.png" in str(caught.value)
    assert caught.value.next_step == "remove all but one of each"


def test_a_file_that_cannot_be_read_is_named_before_anything_runs(folder: Path) -> None:
    (folder / "north" / "broken.png").write_bytes((folder / "north" / "1.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"broken\.png cannot be used"):
        read(folder)


def test_an_image_of_another_size_is_named_where_nothing_is_resized(folder: Path) -> None:
    with pytest.raises(DataError, match=r"\.png cannot be used: The image has 20x15") as caught:
        read(folder, GREY.model_copy(update={"resize": None}))
    assert "6x5" in caught.value.allowed


@pytest.mark.parametrize("name", ["camera/empty", "camera/none", "camera/notes.txt"])
def test_no_image_at_all(folder: Path, name: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no file|is not a folder") as caught:
        read(folder.parent / name)
    assert "--samples FOLDER" in caught.value.next_step


def test_training_images_are_found_among_them(folder: Path) -> None:
    found = read(folder)
    strange = ArraySamples(255 - pixels(found), np.zeros(12, np.int64))
    found.check_apart(strange)
    assert found.apart
    found = read(folder)
    mixed = np.concatenate([255 - pixels(found), pixels(found)[3:5], pixels(found)[3:4]])
    with pytest.raises(DataError, match="2 of 12 examples are among those that the network was trained on"):
        found.check_apart(ArraySamples(mixed, np.zeros(15, np.int64)))
    assert not found.apart
