from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdcompress.data import load
from sdcompress.errors import DataError, RecipeError
from sdcompress.schema.recipe import Data, TaskSection

MULTILABEL = TaskSection(name="multilabel")


def write(root: Path, split: str, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    for folder, pixels in ((split, image), (f"{split}annot", mask)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / folder / f"{name}.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of 250x130 for each split: two squares each, and a rest of 10 pixels on two sides."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in ("a", "b"):
            mask = np.full((130, 250), 11, np.uint8)
            mask[:60, :120] = 3  # half of the first square is road
            mask[100, :71] = 8  # 71 of 14,400 pixels are below 0.5 %, 72 are not
            mask[100, 120:192] = 8
            mask[:, 240:] = mask[120:] = 0  # outside of the squares
            write(tmp_path / "CamVid", split, name, rng.integers(0, 256, (130, 250, 3), np.uint8), mask)
    return tmp_path


def data(folder: Path, **settings: object) -> Data:
    return Data(name="camvid_labels", dir=str(folder), **settings)


def test_squares_have_the_labels_of_their_masks(folder: Path) -> None:
    dataset = load(data(folder), seed=0, task=MULTILABEL)
    assert [len(dataset.train), len(dataset.val), len(dataset.test)] == [4, 4, 4]
    assert dataset.modality.tensors[0].shape == ("batch", 3, 120, 120)
    named = [[dataset.outputs[k] for k in np.flatnonzero(row)] for row in dataset.test.targets]
    assert named == [["road"], ["car"]] * 2
    image = np.asarray(Image.open(folder / "CamVid" / "val" / "b.png"))
    np.testing.assert_array_equal(dataset.val.examples(np.array([3]))[0], image[:120, 120:240])


def test_the_fingerprint_is_of_images_labels_and_every_split(folder: Path) -> None:
    prints = {load(data(folder), seed=0, task=MULTILABEL).fingerprint}
    assert load(data(folder / "CamVid"), seed=0, task=MULTILABEL).fingerprint in prints
    for split, pixel in (("val", 0), ("valannot", 2)):
        path = folder / "CamVid" / split / "a.png"
        pixels = np.array(Image.open(path))
        pixels[:40, :40] = pixel
        Image.fromarray(pixels).save(path)
        prints.add(load(data(folder), seed=0, task=MULTILABEL).fingerprint)
    assert len(prints) == 3


def test_a_recipe_for_another_task_is_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match="multilabel"):
        load(data(folder), seed=0)


def _no_masks(root: Path) -> None:
    (root / "trainannot" / "b.png").unlink()


def _no_images(root: Path) -> None:
    for path in (root / "test").iterdir():
        path.unlink()


def _other_size(root: Path) -> None:
    Image.fromarray(np.zeros((130, 240), np.uint8)).save(root / "valannot" / "a.png")


def _other_values(root: Path) -> None:
    Image.fromarray(np.full((130, 250), 12, np.uint8)).save(root / "valannot" / "a.png")


def _colours(root: Path) -> None:
    Image.fromarray(np.zeros((130, 250, 3), np.uint8)).save(root / "valannot" / "a.png")


def _too_small(root: Path) -> None:
    write(root, "train", "a", np.zeros((119, 250, 3), np.uint8), np.zeros((119, 250), np.uint8))


def _cut_short(root: Path) -> None:
    path = root / "train" / "a.png"
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_no_masks, r"train/b.png has no mask.*trainannot/b.png"),
        (_no_images, "test holds no image"),
        (_other_size, r"valannot/a.png is uint8 of shape \[130, 240\].*its image 130x250"),
        (_other_values, "values up to 12"),
        (_colours, r"shape \[130, 250, 3\]"),
        (_too_small, "119x250"),
        (_cut_short, "train/a.png or its mask"),
    ],
)
def test_what_cannot_be_used_is_named(folder: Path, damage: object, says: str) -> None:
    damage(folder / "CamVid")
    with pytest.raises(DataError, match=says):
        load(data(folder), seed=0, task=MULTILABEL)


def test_a_folder_without_camvid_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folders 'train' and 'trainannot'.*"):
        load(data(tmp_path), seed=0, task=MULTILABEL)


@pytest.mark.needs_data("camvid")
def test_the_published_files(camvid_folder: Path) -> None:
    dataset = load(Data(name="camvid_labels", dir=str(camvid_folder)), seed=0, task=MULTILABEL)
    # 12 squares of 367, 101 and 233 images
    assert [len(dataset.train), len(dataset.val), len(dataset.test)] == [4404, 1212, 2796]
    share = dict(zip(dataset.outputs, dataset.train.targets.mean(axis=0), strict=True))
    assert share["building"] == pytest.approx(0.578, abs=0.001)
    assert share["bicyclist"] == pytest.approx(0.054, abs=0.001)
    # every tenth square; of all squares the mean is that of the modality to four digits
    pixels = dataset.train.examples(np.arange(0, 4404, 10)).reshape(-1, 3)
    np.testing.assert_allclose(pixels.mean(axis=0) / 255, dataset.modality.preprocess.mean, atol=0.02)
