from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdcompress.data import image_arrays as module
from sdcompress.data.image_arrays import image_source
from sdcompress.data.source import data_folder
from sdcompress.errors import RecipeError
from sdcompress.modalities import build
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image
from sdcompress.schema.recipe import Augmentation, Data, ModalitySection

CORNERS = np.array([[0, 200], [40, 80]], np.uint8).reshape(1, 2, 2, 1)


def test_images_are_brought_to_the_geometry() -> None:
    preprocess = Preprocess(channels=1, resize=(4, 4), interpolation="nearest", mean=(0.5,), std=(0.5,))
    source = image_source(("a", "b"), preprocess, (CORNERS, np.zeros(1, np.int64)))
    expected = np.repeat(np.repeat(CORNERS, 2, axis=1), 2, axis=2)
    assert np.array_equal(source.train.examples(np.array([0])), expected)


def test_a_set_that_is_large_when_resized_gives_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 256, (6, 5, 5, 3), np.uint8), np.arange(6)
    preprocess = Preprocess(channels=3, resize=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    in_memory = image_source(("a", "b"), preprocess, arrays)
    monkeypatch.setattr(module, "_IN_MEMORY", 6 * 8 * 8 * 3 - 1)
    when_asked = image_source(("a", "b"), preprocess, arrays)
    assert (in_memory.train.in_memory, when_asked.train.in_memory) == (True, False)
    which = np.array([4, 0, 5])
    assert np.array_equal(in_memory.train.examples(which), when_asked.train.examples(which))
    assert np.array_equal(in_memory.train.targets, when_asked.train.targets)
    assert len(when_asked.train) == 6


def test_a_blank_first_image_does_not_spare_the_others_the_geometry() -> None:
    """Of a single colour it stays what it is when its middle half is enlarged; the others do not."""
    images = np.zeros((2, 2, 2, 1), np.uint8)
    images[1, :, 1] = 90
    preprocess = Preprocess(channels=1, resize=(4, 4), crop=(2, 2), mean=(0.5,), std=(0.5,))
    source = image_source(("a", "b"), preprocess, (images, np.arange(2)))
    # bilinear between the centres of two pixels: 0 and 90 become 0, 22.5, 67.5, 90, of which the middle is kept
    enlarged = np.array([[23, 68], [23, 68]], np.uint8)[None, :, :, None]
    assert np.array_equal(source.train.examples(np.array([1])), enlarged)


def test_the_folder_is_the_recipes_then_the_environments_then_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDCOMPRESS_DATA", "/from/environment")
    assert data_folder(Data(dir="/from/recipe")) == Path("/from/recipe")
    assert data_folder(Data()) == Path("/from/environment")
    monkeypatch.delenv("SDCOMPRESS_DATA")
    assert data_folder(Data()) == Path("data")


OWN = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.2)}
HALF = (0.5, 0.5, 0.5)


def changed(own: Preprocess, **settings: object) -> Preprocess:
    return Image.of(own, (224, 224)).with_settings(settings).preprocess


def test_a_recipe_says_how_images_are_prepared_and_the_set_says_the_rest() -> None:
    own = Preprocess.square(224, **OWN, crop=0.875)
    assert own == Preprocess(channels=3, resize=256, crop=(224, 224), **OWN)
    assert changed(own) == own
    # 64 / 0.875 = 73.1 and 48 / 0.95 = 50.5, of which the nearest whole numbers are 73 and 51
    assert changed(own, image_size=64) == Preprocess(channels=3, resize=73, crop=(64, 64), **OWN)
    settings = {"mean": list(HALF), "std": HALF, "interpolation": "bicubic", "white_level": 4095}
    expected = Preprocess(channels=3, resize=51, crop=(48, 48), **settings)
    assert changed(own, image_size=48, crop=0.95, **settings) == expected
    wide = Preprocess(channels=3, resize=(10, 20), **OWN)
    assert changed(wide, mean=HALF) == Preprocess(channels=3, resize=(10, 20), mean=HALF, std=OWN["std"])


@pytest.mark.parametrize(
    ("own", "settings", "resize", "cut"),
    [
        (0.875, {"crop": "none"}, (64, 64), None),
        (0.875, {"crop": 1.0}, 64, (64, 64)),
        (None, {}, (64, 64), None),
        (None, {"crop": 0.5}, 128, (64, 64)),
    ],
)
def test_the_share_of_the_crop(own: float | None, settings: dict[str, Any], resize: Any, cut: Any) -> None:
    made = changed(Preprocess.square(224, **OWN, crop=own), image_size=64, **settings)
    assert (made.resize, made.crop) == (resize, cut)


def test_weights_say_a_crop_of_images_that_are_no_squares() -> None:
    """8 x 16 cut out of 10 x 20 is a share of 0.8, 0.81 comes to the same pixels, 0.5 does not."""
    image = Image.of(Preprocess.square(8, **OWN, crop=0.8)).with_settings({"image_size": [8, 16]})
    assert (image.preprocess.resize, image.preprocess.crop) == ((10, 20), (8, 16))
    assert image.own_settings({"crop": 0.81})["crop"] == 0.81
    assert image.own_settings({"crop": 0.5})["crop"] == 0.8
    assert image.with_settings({"image_size": [8, 16], "crop": 0.5}).preprocess.resize == (16, 32)


def test_an_image_of_a_recipe_alone_needs_size_mean_and_std() -> None:
    made = build(ModalitySection(image_size=64, mean=HALF), ModalitySection(name="image", std=HALF, crop=0.5))
    assert made == Image.of(Preprocess(channels=3, resize=128, crop=(64, 64), mean=HALF, std=HALF))
    with pytest.raises(RecipeError, match=r"image_size.*mean.*std"):
        build(ModalitySection(image_size=64), ModalitySection(name="image", std=HALF))


def test_means_of_another_number_of_channels_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"(?s)modality\.mean has 1 values.*3.*modality\.mean=\[0\.5, 0\.5, 0\.5\]"):
        changed(Preprocess.square(224, **OWN), mean=[0.5])


@pytest.mark.parametrize(
    "wrong", [{"crop": 0.0}, {"crop": 1.1}, {"mean": (float("nan"),) * 3}, {"std": (0.0,) * 3}, {"image_size": "big"}]
)
def test_numbers_that_cannot_be_meant(wrong: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        changed(Preprocess.square(224, **OWN), **wrong)


def test_a_parameter_that_the_modality_does_not_have_is_refused_with_those_that_it_has() -> None:
    own = Image.of(Preprocess.square(8, **OWN))
    with pytest.raises(RecipeError, match=r"(?s)modality\.imagesize.*'image_size'.*image_size, mean, std") as caught:
        build(ModalitySection(imagesize=8), own)
    assert "list modalities" in caught.value.next_step


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"flipp": True}, r"(?s)train\.augment\.flipp.*'flip'.*mixup, resized_crop"),
        ({"crop": -1}, "train.augment.*crop"),
    ],
)
def test_augmentation_that_images_do_not_have_is_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        Image.of(Preprocess.square(8, **OWN)).augmentation_settings(Augmentation(**settings))
