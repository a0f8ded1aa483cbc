"""The preparation of images in an artifact's card: in words, and as a program without sdcompress."""

from __future__ import annotations

from sdcompress.modalities._image_files import FORMATS
from sdcompress.modalities._preprocess_settings import Preprocess

__all__ = ["card_code", "card_text"]

_DEPTH = """\
from PIL import Image


def network_input(image):
    \"\"\"float32 [1, {channels}, height, width] of a Pillow image of any size, as the network was trained.\"\"\"
    if image.mode.startswith("I"):  # grey of 16 bits; {white} and above is white
        levels = np.minimum(np.asarray(image), {white}).astype(np.uint32)
        image = Image.fromarray(((255 * levels + {half}) // {white}).astype(np.uint8))
    image = image.convert("{mode}")  # 8 bits a channel; an orientation in EXIF is ignored
"""

_SHORTER_SIDE = """\
    width, height = image.size
    short = min(width, height)  # it becomes {side} pixels; the longer side keeps the aspect ratio, rounded down
    size = int({side} * width / short), int({side} * height / short)
    image = image.resize(size, Image.Resampling.{filter})  # {antialias}
"""

_BOTH_SIDES = """\
    image = image.resize(({width}, {height}), Image.Resampling.{filter})  # width, height; {antialias}
"""

_CROP = """\
    left, top = round((image.width - {width}) / 2), round((image.height - {height}) / 2)  # halves to even
    image = image.crop((left, top, left + {width}, top + {height}))  # the centre
"""

_NORMALISE = """\
    pixels = np.asarray(image, np.float64).reshape(image.height, image.width, {channels})
    x = (pixels / 255 - np.array({mean})) / np.array({std})
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None].astype(np.float32))


def inputs_of(path):
    \"\"\"The input of the network, by its name, of an image file.\"\"\"
    with Image.open(path, formats={formats}) as image:
        return {{{name!r}: network_input(image)}}
"""


def card_code(spec: Preprocess, name: str) -> str:
    """Python source with numpy and Pillow: ``network_input(image)`` and ``inputs_of(path)``.

    Args:
        spec: what it does.
        name: of the network's input.
    """
    resampling = {
        "filter": spec.interpolation.upper(),
        "antialias": "picks pixels"
        if spec.interpolation == "nearest"
        else "with antialias: it low-passes when it shrinks",
    }
    white = spec.white_level or 65535
    mode = "L" if spec.channels == 1 else "RGB"
    text = _DEPTH.format(channels=spec.channels, white=white, half=white // 2, mode=mode)
    if isinstance(spec.resize, int):
        text += _SHORTER_SIDE.format(side=spec.resize, **resampling)
    elif spec.resize:
        text += _BOTH_SIDES.format(height=spec.resize[0], width=spec.resize[1], **resampling)
    if spec.crop:
        text += _CROP.format(height=spec.crop[0], width=spec.crop[1])
    return text + _NORMALISE.format(
        channels=spec.channels, mean=list(spec.mean), std=list(spec.std), name=name, formats=list(FORMATS)
    )


def card_text(spec: Preprocess) -> str:
    """Return the same in words."""
    steps = []
    if isinstance(spec.resize, int):
        steps = [f"the shorter side resized to {spec.resize} pixels ({spec.interpolation}), the aspect ratio kept"]
    elif spec.resize:
        steps = [f"resized to {spec.resize[0]}x{spec.resize[1]} (height x width, {spec.interpolation})"]
    steps += [f"the centre of {spec.crop[0]}x{spec.crop[1]} cropped"] if spec.crop else []
    return ", ".join([*steps, f"(pixel / 255 - {list(spec.mean)}) / {list(spec.std)}, channels first"])
