from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sdcompress.data.preprocess import geometry, normalise
from sdcompress.errors import InputError
from sdcompress.schema.manifest import Preprocess

RGB = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.25)}
GREY = {"mean": (0.5,), "std": (0.25,)}


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, channels), np.uint8)


def test_grey_to_rgb_repeats_and_rgb_to_grey_is_itu_601() -> None:
    grey = noise(5, 4, 1)
    assert np.array_equal(geometry(grey, Preprocess(channels=3, **RGB)), np.repeat(grey, 3, axis=2))
    colour = noise(5, 4)
    weighted = colour.astype(np.int64) @ [19595, 38470, 7471]
    assert np.array_equal(geometry(colour, Preprocess(channels=1, **GREY))[..., 0], (weighted + 32768) >> 16)


def test_an_array_an_image_and_two_axes_give_the_same() -> None:
    p = Preprocess(channels=1, resize=(6, 9), **GREY)
    grey = noise(5, 4, 1)
    expected = geometry(grey, p)
    assert expected.shape == (6, 9, 1)
    assert np.array_equal(geometry(grey[..., 0], p), expected)
    assert np.array_equal(geometry(Image.fromarray(grey[..., 0]), p), expected)


@settings(deadline=None)  # the first example pays for importing torchvision
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 30), st.sampled_from(["bilinear", "bicubic", "nearest"]))
def test_the_shorter_side_is_resized_as_torchvision_does(height: int, width: int, side: int, how: str) -> None:
    v2 = pytest.importorskip("torchvision.transforms.v2")
    image = Image.fromarray(noise(height, width))
    ours = geometry(image, Preprocess(channels=3, resize=side, interpolation=how, **RGB))
    theirs = v2.Resize(side, interpolation=v2.InterpolationMode(how))(image)
    assert np.array_equal(ours, np.asarray(theirs))


@settings(deadline=None)
@given(st.integers(8, 41), st.integers(8, 41), st.integers(1, 8), st.integers(1, 8))
def test_the_centre_is_cut_out_as_torchvision_does(height: int, width: int, crop_h: int, crop_w: int) -> None:
    v2 = pytest.importorskip("torchvision.transforms.v2")
    image = Image.fromarray(noise(height, width))
    ours = geometry(image, Preprocess(channels=3, crop=(crop_h, crop_w), **RGB))
    assert np.array_equal(ours, np.asarray(v2.CenterCrop((crop_h, crop_w))(image)))


def test_the_centre_crop_takes_these_pixels() -> None:
    rows = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 7, 1), np.uint8)
    # (5 - 2) / 2 = 1.5 rounds to the even 2
    assert geometry(rows, Preprocess(channels=1, crop=(2, 7), **GREY))[:, 0, 0].tolist() == [2, 3]


def test_nothing_happens_to_an_image_of_the_right_size() -> None:
    image = noise(8, 8)
    assert np.array_equal(geometry(image, Preprocess(channels=3, resize=(8, 8), crop=(8, 8), **RGB)), image)


def test_exif_orientation_is_ignored() -> None:
    image, exif, file = Image.fromarray(noise(4, 6)), Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # lies on its side
    image.save(file, "PNG", exif=exif)
    assert np.array_equal(geometry(Image.open(file), Preprocess(channels=3, **RGB)), np.asarray(image))


def test_a_palette_with_transparency_is_converted_without_a_warning() -> None:
    palette = Image.fromarray(noise(4, 4)).quantize(4)
    file = io.BytesIO()
    palette.save(file, "PNG", transparency=bytes([0, 255, 255, 255]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = geometry(Image.open(file), Preprocess(channels=3, **RGB))
    assert np.array_equal(out, np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((1, 3, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((2, 9, 3), np.uint8),
        Image.fromarray(np.zeros((4, 4), np.uint16)),
        Image.fromarray(np.zeros((4, 4), np.float32)),
    ],
)
def test_what_cannot_be_meant_is_refused(image: np.ndarray | Image.Image) -> None:
    with pytest.raises(InputError):
        geometry(image, Preprocess(channels=3, crop=(3, 3), **RGB))


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_an_image_without_pixels_is_not_made_up(size: tuple[int, int]) -> None:
    for p in (Preprocess(channels=3, resize=(4, 4), **RGB), Preprocess(channels=3, resize=4, crop=(4, 4), **RGB)):
        for image in (Image.new("RGB", size), np.zeros((size[1], size[0], 3), np.uint8)):
            with pytest.raises(InputError, match="empty"):
                geometry(image, p)


def test_normalise_gives_these_numbers() -> None:
    images = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 3)
    out = normalise(images, Preprocess(channels=3, mean=(0.5, 0.2, 0.0), std=(0.25, 0.5, 2.0)))
    assert out.dtype == np.float32
    assert out.ravel().tolist() == [-2.0, 0.0, 0.5]


def test_normalise_puts_channels_first_and_is_rounded_once() -> None:
    images = np.stack([noise(5, 4), noise(5, 4)[::-1]])
    p = Preprocess(channels=3, **RGB)
    out = normalise(images, p)
    exact = ((images / 255 - np.array(p.mean)) / np.array(p.std)).transpose(0, 3, 1, 2)
    assert out.shape == (2, 3, 5, 4)
    assert out.flags.c_contiguous
    assert np.array_equal(out, exact.astype(np.float32))


@pytest.mark.parametrize(
    "images", [np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4, 1), np.uint8), np.zeros((1, 4, 4, 3), np.float32)]
)
def test_normalise_refuses_other_arrays(images: np.ndarray) -> None:
    with pytest.raises(InputError):
        normalise(images, Preprocess(channels=3, **RGB))
