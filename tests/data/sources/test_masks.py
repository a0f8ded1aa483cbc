"""Images with masks from folders, and what cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdcompress.data import load
from sdcompress.data.samples import Dataset
from sdcompress.errors import DataError, RecipeError
from sdcompress.schema.recipe import Data, ModalitySection, TaskSection
from sdcompress.tasks._palette import colours

VOID = 255
MASK = np.uint8([[0, 0, 1, 1, 2, VOID], [0, 0, 1, 1, 2, 2], [2, 2, 2, 2, 0, 0], [2, 2, 2, 2, 0, 0]])
Damage = Callable[[Path], None]


def save(path: Path, pixels: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette(colours().tobytes())
    image.save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of 4x6 in each split, with palettes; one lies in a folder of its own."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in ("a", "b", "deeper/c"):
            save(tmp_path / split / "images" / f"{name}.jpg", rng.integers(0, 256, (4, 6, 3), np.uint8))
            save(tmp_path / split / "masks" / f"{name}.png", MASK, palette=True)
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n")
    return tmp_path


def loaded(folder: Path, *, size: object = None, name: str = "masks", **settings: object) -> Dataset:
    modality = ModalitySection() if size is None else ModalitySection(image_size=size)
    return load(
        Data(name=name, dir=str(folder), **settings), seed=0, task=TaskSection(name="segmentation"), modality=modality
    )


def test_images_keep_the_size_of_the_first_and_masks_their_numbers(folder: Path) -> None:
    dataset = loaded(folder)
    assert [len(part) for part in (dataset.train, dataset.val, dataset.test)] == [3, 3, 3]
    assert dataset.outputs == ("sky", "road", "car")
    assert dataset.task.output_shape == (3, 4, 6)
    np.testing.assert_array_equal(dataset.train.targets, [MASK] * 3)
    image = np.asarray(Image.open(folder / "val" / "images" / "a.jpg"))
    np.testing.assert_array_equal(dataset.val.examples(np.array([0]))[0], image)


def test_a_size_of_the_recipe_is_that_of_images_and_masks(folder: Path) -> None:
    dataset = loaded(folder, size=[2, 3])
    assert dataset.modality.tensors[0].shape == ("batch", 3, 2, 3)
    assert dataset.task.output_shape == (3, 2, 3)
    # the nearest pixel of each block of four is the lower right one
    np.testing.assert_array_equal(dataset.train.targets[0], [[0, 1, 2], [2, 2, 0]])
    assert dataset.fingerprint != loaded(folder).fingerprint


@pytest.mark.parametrize("form", ["3 sky\n7 road\n9 car\n4 void\n", "1 2 3 sky\n7 7 7 road\n0 0 9 car\n0 0 0 void\n"])
def test_numbers_and_colours_stand_for_classes(folder: Path, form: str) -> None:
    (folder / "classes.txt").write_text(form)
    codes = [line.split()[:-1] for line in form.splitlines()]
    table = np.array([list(map(int, code)) for code in codes], np.uint8)
    rows = np.where(MASK == VOID, 3, MASK)
    pixels = table[rows] if table.shape[1] == 3 else table[rows][:, :, 0]
    for path in folder.glob("*/masks/**/*.png"):
        save(path, pixels)
    np.testing.assert_array_equal(loaded(folder).test.targets, [MASK] * 3)


def test_one_set_is_split(folder: Path) -> None:
    root = folder / "train"
    (root / "classes.txt").write_text("sky\nroad\ncar\n")
    dataset = loaded(root, validation=0.5)
    assert [len(part) for part in (dataset.train, dataset.val, dataset.test)] == [1, 1, 1]


def test_what_is_excluded_is_not_read(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"train/images/x\.jpg"):
        loaded(folder, exclude=("train/images/x.jpg",))
    (folder / "train" / "masks" / "b.png").unlink()
    (folder / "train" / "images" / "b.jpg").write_bytes(b"nothing")
    dataset = loaded(folder, exclude=("train/images/b.jpg",))
    assert len(dataset.train) == 3  # another stands in its place
    np.testing.assert_array_equal(dataset.train.targets, [MASK] * 3)


def _set(split: str, pixels: np.ndarray) -> Damage:
    return lambda root: save(root / split / "masks" / "a.png", pixels)


def _write(text: str) -> Damage:
    return lambda root: (root / "classes.txt").write_text(text) and None


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            lambda root: (root / "train" / "masks" / "b.png").unlink(),
            "1 of 3 images have no mask: .*b.jpg needs .*b.png",
        ),
        (_set("val", np.zeros((4, 5), np.uint8)), r"val/masks/a.png.*has 4x5 pixels .*its image 4x6"),
        (_set("test", np.full((4, 6), 3, np.uint8)), "test/masks/a.png.*holds the value 3"),
        (_set("train", np.full((4, 6), VOID, np.uint8)), "train/masks/a.png.*void everywhere"),
        (_set("train", np.zeros((4, 6, 3), np.uint8)), r"train/masks/a.png.*shape \[4, 6, 3\]"),
        (lambda root: (root / "val" / "masks" / "a.png").write_bytes(b"no image"), "val/masks/a.png"),
        (lambda root: (root / "train" / "images" / "a.jpg").write_bytes(b"no image"), "first image.*a.jpg"),
        (lambda root: (root / "classes.txt").unlink(), "classes.txt cannot be read"),
        (_write("0 sky\nroad\n"), "several forms"),
        (_write("1 2 sky\n3 4 road\n"), "several forms"),
        (_write("\u00b2 sky\n1 road\n"), "several forms"),
        (_write("0 sky\n0 road\n"), "twice"),
        (_write("sky\nvoid\n"), "names 1 classes"),
        (_write("0 sky\n300 road\n"), "above 255"),
    ],
)
def test_what_cannot_be_used_is_named(folder: Path, damage: Damage, says: str) -> None:
    damage(folder)
    with pytest.raises(DataError, match=f"(?s){says}"):
        loaded(folder)


def test_an_unknown_colour_is_named(folder: Path) -> None:
    (folder / "classes.txt").write_text("0 0 0 sky\n1 1 1 road\n")
    with pytest.raises(DataError, match=r"one channel|colours R G B"):
        loaded(folder)
    for path in folder.glob("*/masks/**/*.png"):
        save(path, np.zeros((4, 6, 3), np.uint8))
    save(folder / "test" / "masks" / "b.png", np.full((4, 6, 3), (9, 8, 7), np.uint8))
    with pytest.raises(DataError, match=r"test/masks/b\.png.*the colour 9 8 7"):
        loaded(folder)


def test_camvid_has_void_at_11(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in ("a", "b"):
            save(tmp_path / "CamVid" / split / f"{name}.png", rng.integers(0, 256, (36, 48, 3), np.uint8))
            mask = rng.integers(0, 12, (36, 48)).astype(np.uint8)
            save(tmp_path / "CamVid" / f"{split}annot" / f"{name}.png", mask)
    dataset = loaded(tmp_path, name="camvid", size=[36, 48])
    np.testing.assert_array_equal(dataset.test.targets[1], np.where(mask == 11, VOID, mask))
    assert dataset.task.output_shape == (11, 36, 48)
    with pytest.raises(RecipeError, match="segmentation"):
        load(Data(name="camvid", dir=str(tmp_path)), seed=0)
    with pytest.raises(DataError, match="'camvid' is not in"):
        loaded(tmp_path / "CamVid" / "train", name="camvid")
