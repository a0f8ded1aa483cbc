from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sdcompress.errors import InputError
from sdcompress.modalities._image_preprocess import geometry, normalise
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image as Modality

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
        np.zeros((4, 4, 3), np.uint16),
        Image.fromarray(np.zeros((4, 4), np.float32)),
        Image.fromarray(np.full((4, 4), 65536, np.int32)),
        Image.fromarray(np.full((4, 4), -1, np.int32)),
        Image.new("L", (0, 4)),
        None,
        [[0, 1], [2, 3]],
    ],
)
def test_what_cannot_be_meant_is_refused(image: np.ndarray | Image.Image) -> None:
    with pytest.raises(InputError):
        geometry(image, Preprocess(channels=3, crop=(3, 3), **RGB))


@pytest.mark.parametrize(
    ("white", "values", "levels"),
    [
        # 65535 / 255 = 257 to a level; 128 is the last value nearer to 0 than to 257
        (None, [0, 128, 129, 257, 32896, 65535], [0, 0, 1, 1, 128, 255]),
        (4095, [0, 8, 9, 2048, 4095, 65535], [0, 0, 1, 128, 255, 255]),
        (255, [0, 1, 128, 255, 256, 65535], [0, 1, 128, 255, 255, 255]),
    ],
)
def test_grey_of_16_bits_is_scaled_to_its_white_level(white: int | None, values: list[int], levels: list[int]) -> None:
    array = np.array([values], np.uint16)
    images = [array, array[..., None], Image.fromarray(array.astype(np.int32))]
    images += [Image.frombytes(m, (6, 1), array.astype(t).tobytes()) for m, t in (("I;16", "<u2"), ("I;16B", ">u2"))]
    for image in images:
        grey = geometry(image, Preprocess(channels=1, white_level=white, **GREY))
        assert grey[0, :, 0].tolist() == levels
        assert geometry(image, Preprocess(channels=3, white_level=white, **RGB))[0, :, 1].tolist() == levels


def test_hsv_and_lab_have_8_bits_and_become_rgb_and_grey() -> None:
    colour = Image.fromarray(noise(6, 5))
    hsv = colour.convert("HSV")
    assert np.array_equal(geometry(hsv, Preprocess(channels=3, **RGB)), np.asarray(hsv.convert("RGB")))
    assert np.array_equal(
        geometry(hsv, Preprocess(channels=1, **GREY))[..., 0], np.asarray(hsv.convert("RGB").convert("L"))
    )
    white = Image.merge("LAB", [Image.new("L", (2, 2), level) for level in (255, 128, 128)])
    assert (geometry(white, Preprocess(channels=1, **GREY)) >= 250).all()
    with pytest.raises(InputError, match=r"mode 'RGBa'.*\n.*allowed: .*RGBA"):
        geometry(colour.convert("RGBA").convert("RGBa"), Preprocess(channels=1, **GREY))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_truncated_file_that_was_opened_already_is_an_input_error(kind: str) -> None:
    file = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(file, kind)
    with pytest.raises(InputError, match="cannot be decoded"):
        geometry(Image.open(io.BytesIO(file.getvalue()[: len(file.getvalue()) // 2])), Preprocess(channels=3, **RGB))


def test_the_fingerprints_of_data_stay_without_a_white_level() -> None:
    plain, set_to = Preprocess(channels=1, **GREY), Preprocess(channels=1, white_level=4095, **GREY)
    text = '{"channels":1,"resize":null,"crop":null,"interpolation":"bilinear","mean":[0.5],"std":[0.25]%s}'
    assert Modality.of(plain, (4, 4)).fingerprint_text == text % ""
    assert Modality.of(set_to, (4, 4)).fingerprint_text == text % ',"white_level":4095'


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


def test_normalise_gives_the_same_bits_in_any_batch() -> None:
    """Images are looked up some at a time; of 100x100 pixels six of them."""
    spec = Preprocess(channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    images = np.random.default_rng(0).integers(0, 256, (20, 100, 100, 3), dtype=np.uint8)
    exact = ((images / 255.0 - np.array(spec.mean)) / np.array(spec.std)).astype(np.float32).transpose(0, 3, 1, 2)
    for batch in (images, images[::2], images[:, ::-1, ::2], images[:1], images[:0]):
        expected = ((batch / 255.0 - np.array(spec.mean)) / np.array(spec.std)).astype(np.float32)
        found = normalise(batch, spec)
        np.testing.assert_array_equal(found, expected.transpose(0, 3, 1, 2))
        assert found.flags.c_contiguous
    one_by_one = np.concatenate([normalise(images[k : k + 1], spec) for k in range(20)])
    np.testing.assert_array_equal(one_by_one, exact)


@pytest.mark.parametrize(
    "images", [np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4, 1), np.uint8), np.zeros((1, 4, 4, 3), np.float32)]
)
def test_normalise_refuses_other_arrays(images: np.ndarray) -> None:
    with pytest.raises(InputError):
        normalise(images, Preprocess(channels=3, **RGB))


def test_a_line_that_resizing_would_make_huge_is_refused() -> None:
    line = np.zeros((1, 20_000, 3), np.uint8)
    with pytest.raises(InputError, match="1x20000 pixels, and 224x4480000 after resizing"):
        geometry(line, Preprocess(channels=3, resize=224, crop=(224, 224), **RGB))
