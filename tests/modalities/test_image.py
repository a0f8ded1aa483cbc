"""Images as a modality, and as an engine uses it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdcompress.errors import InputError
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image as ImageModality
from sdcompress.runtime.open import open_engine

CROPPED = Preprocess(channels=1, resize=(4, 4), crop=(2, 2), interpolation="nearest", mean=(0.5,), std=(0.25,))
GREY = np.arange(16, dtype=np.uint8).reshape(4, 4, 1) * 10


def prepared(images: Any, spec: Preprocess, shape: tuple[int, int, int]) -> np.ndarray:
    return np.asarray(ImageModality(spec, shape).prepare(images))


def test_images_of_any_kind_give_the_same_inputs(tiny_artifact: Callable[..., Path]) -> None:
    engine = open_engine(tiny_artifact(), threads=1)
    expected = ((GREY[None, :, :, 0] / 255 - 0.5) / 0.25).astype(np.float32)[None]
    for images in ([GREY], [GREY[:, :, 0]], [Image.fromarray(GREY[:, :, 0])], GREY[None], (GREY,)):
        found = np.asarray(engine.preprocess(images))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert found.flags.c_contiguous
        assert engine(found).outputs.shape == (1, 3)


def test_images_of_several_sizes_in_one_batch(tiny_artifact: Callable[..., Path]) -> None:
    engine = open_engine(tiny_artifact(), threads=1)
    pictures = [np.full((high, wide, 3), level, np.uint8) for high, wide, level in ((9, 5, 0), (4, 4, 51), (3, 8, 255))]
    found = np.asarray(engine.preprocess(pictures))
    assert found.shape == (3, 1, 4, 4)
    np.testing.assert_allclose(found[:, 0, 0, 0], [-2.0, -1.2, 2.0], rtol=1e-5)
    assert all(len(np.unique(one)) == 1 for one in found)


def test_an_array_of_the_networks_size_is_cropped_already_and_a_list_is_not() -> None:
    small, large = np.uint8([[[[0], [255]], [[255], [0]]]]), GREY[None]
    np.testing.assert_allclose(prepared(small, CROPPED, (1, 2, 2))[0, 0], [[-2, 2], [2, -2]])
    # 2x2 -> nearest 4x4 -> the middle 2x2 holds one pixel of each corner; 4x4 -> the middle itself
    np.testing.assert_allclose(prepared([small[0]], CROPPED, (1, 2, 2))[0, 0], [[-2, 2], [2, -2]])
    middle = (GREY[1:3, 1:3, 0] / 255 - 0.5) / 0.25
    np.testing.assert_allclose(prepared(large, CROPPED, (1, 2, 2))[0, 0], middle, rtol=1e-5)
    np.testing.assert_allclose(prepared([large[0]], CROPPED, (1, 2, 2))[0, 0], middle, rtol=1e-5)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (GREY, r"one image, not a batch.*\[B, H, W, C\].*engine.preprocess\(\[image\]\)"),
        (Image.fromarray(GREY[:, :, 0]), "one image, not a batch"),
        (GREY[None].astype(np.float32), "float32.*uint8"),
        ([GREY.astype(np.float32)], "float32.*uint8"),
        ("photo.png", "one image, not a batch"),
        (b"bytes of a file", "one image, not a batch"),
        ([None], "Image 0 cannot be used: The image is of the type NoneType"),
        (GREY[None, None], r"\[1, 1, 4, 4, 1\]"),
    ],
)
def test_what_is_no_batch_of_images(tiny_artifact: Callable[..., Path], images: Any, said: str) -> None:
    engine = open_engine(tiny_artifact(), threads=1)
    with pytest.raises(InputError, match=f"(?s){said}"):
        engine.preprocess(images)


def test_paths_and_bytes_are_images_too(tiny_artifact: Callable[..., Path], tmp_path: Path) -> None:
    engine = open_engine(tiny_artifact(), threads=1)
    path = tmp_path / "grey.png"
    Image.fromarray(GREY[:, :, 0]).save(path)
    expected = engine.preprocess([GREY])
    for image in (path, str(path), path.read_bytes(), GREY[:, :, 0].astype(np.uint16) * 257):
        np.testing.assert_array_equal(engine.preprocess([image]), expected)
    np.testing.assert_array_equal(engine.preprocess([path, GREY]), engine.preprocess([GREY, path.read_bytes()]))
    # a batch of 16 bits is scaled; one of 8 bits and the network's size is taken as it is
    np.testing.assert_array_equal(engine.preprocess(GREY[None].astype(np.uint16) * 257), expected)


def test_a_broken_image_is_named_by_its_place_and_path(tiny_artifact: Callable[..., Path], tmp_path: Path) -> None:
    engine = open_engine(tiny_artifact(), threads=1)
    path = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    half = path.read_bytes()[:1500]
    path.write_bytes(half)
    for image, named in ((path, "photo.jpg"), (half, ""), (Image.open(path), ""), ("no.png", "no.png"), (b"x", "")):
        with pytest.raises(InputError, match=rf"(?s)Image 1.*{named}.* cannot be used: .*next: "):
            engine.preprocess([GREY, image])


def test_an_image_that_preprocessing_does_not_bring_to_size() -> None:
    fixed = Preprocess(channels=1, mean=(0.5,), std=(0.25,))
    with pytest.raises(InputError, match=r"(?s)Image 1 cannot be used: The image has 3x5 pixels.*4x4"):
        prepared([GREY, GREY[:3].repeat(2, axis=1)[:, :5]], fixed, (1, 4, 4))


def test_inputs_reach_a_backend_contiguous_and_are_copied_only_for_that() -> None:
    image = ImageModality(Preprocess(channels=1, mean=(0.5,), std=(0.25,)), (1, 4, 4))
    inputs = np.zeros((4, 1, 4, 4), np.float32)
    assert np.asarray(image.check(inputs)) is inputs
    assert np.asarray(image.check({"input": inputs})) is inputs
    strided = np.zeros((4, 4, 4, 1), np.float32).transpose(0, 3, 2, 1)
    assert not strided.flags.c_contiguous
    assert np.asarray(image.check(strided)).flags.c_contiguous


def test_a_batch_is_cut_by_rows() -> None:
    image = ImageModality(Preprocess(channels=1, mean=(0.5,), std=(0.25,)), (1, 4, 4))
    inputs = image.collate(np.arange(48, dtype=np.uint8).reshape(3, 4, 4, 1))
    assert (len(inputs), len(inputs[1:]), len(inputs[np.array([0, 0])])) == (3, 2, 2)
    np.testing.assert_array_equal(inputs[1:], np.asarray(inputs)[1:])
