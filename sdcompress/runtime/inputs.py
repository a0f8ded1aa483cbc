"""The edge of an engine: images become inputs, inputs are checked once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sdcompress.errors import InputError
from sdcompress.modalities._geometry import geometry, normalise
from sdcompress.modalities._pictures import open_picture
from sdcompress.policies._base import Float
from sdcompress.runtime.engine import Images
from sdcompress.schema.manifest import Preprocess

__all__ = ["checked", "checked_temperatures", "exit_position", "prepared"]


def prepared(images: Images, spec: Preprocess, image: tuple[int, int, int]) -> Float:
    """Images as inputs, float32 [B, C, H, W]; see ``Engine.preprocess``.

    Args:
        images: a list of images of any size, or of the paths or the bytes of image files; or uint8 [B, H, W, C].
        spec: how an image becomes an input.
        image: C, H, W of the network.

    Raises:
        InputError: if an image cannot be used, or has another size than the network afterwards.
    """
    channels, height, width = image
    if isinstance(images, Image.Image | str | bytes | Path) or (isinstance(images, np.ndarray) and images.ndim != 4):
        raise InputError(
            f"The images have the shape {list(images.shape)}."
            if isinstance(images, np.ndarray) and images.ndim > 4
            else "This is one image, not a batch of them.",
            allowed="a list of images, or uint8 [B, H, W, C]",
            next_step="put it into a list: engine.preprocess([image])",
        )
    if isinstance(images, np.ndarray) and images.shape[1:] == (height, width, channels) and images.dtype != np.uint16:
        return normalise(images, spec)
    if len(images) == 0:
        return np.empty((0, *image), np.float32)
    pictures = np.stack([_one(picture, spec, image, at) for at, picture in enumerate(images)])
    return normalise(pictures, spec)


def checked(inputs: Any, image: tuple[int, int, int]) -> Float:
    """The inputs, C-contiguous (copied only if they are not).

    Args:
        inputs: what the caller gave.
        image: C, H, W of the network.

    Raises:
        InputError: if it is not a float32 array [B, C, H, W].
    """
    if isinstance(inputs, np.ndarray) and inputs.dtype == np.float32 and inputs.ndim == 4 and inputs.shape[1:] == image:
        return np.ascontiguousarray(inputs)
    if not isinstance(inputs, np.ndarray):
        found, step = f"The input is a {type(inputs).__name__}, not an array.", "give a numpy array"
    elif inputs.dtype == np.uint8:
        found, step = "The input is uint8: images, not inputs.", "call engine.preprocess(images) first"
    elif inputs.dtype != np.float32:
        found, step = f"The input is {inputs.dtype}.", "convert it: inputs.astype(numpy.float32)"
    elif inputs.shape == image:
        found, step = f"The input has the shape {list(inputs.shape)}: one sample, no batch.", "give inputs[None]"
    else:
        found, step = f"The input has the shape {list(inputs.shape)}.", "make it with engine.preprocess(images)"
    raise InputError(found, allowed=f"float32 of shape [B, {', '.join(map(str, image))}]", next_step=step)


def checked_temperatures(temperatures: Sequence[float], exits: int) -> tuple[float, ...]:
    """One temperature for each exit.

    Args:
        temperatures: what the caller gave.
        exits: how many there are.

    Raises:
        InputError: if there are more or fewer, or one is no finite number above 0.
    """
    if len(temperatures) == exits and all(0 < temperature < math.inf for temperature in temperatures):
        return tuple(temperatures)
    raise InputError(
        f"The temperatures are {list(temperatures)}.",
        allowed=f"{exits} finite numbers above 0, one for each exit",
        next_step="leave them out to take those of the artifact",
    )


def exit_position(exit: int, names: tuple[str, ...]) -> int:  # noqa: A002 - the field's word
    """The exit as a position from the front.

    Args:
        exit: a position; negative counts from the last.
        names: of the exits.

    Raises:
        InputError: if there is no such exit.
    """
    if not -len(names) <= exit < len(names):
        raise InputError(
            f"There is no exit {exit}.",
            allowed=", ".join(f"{position} ({name})" for position, name in enumerate(names)),
            next_step="choose one of them",
        )
    return exit % len(names)


def _one(picture: Any, spec: Preprocess, image: tuple[int, int, int], at: int) -> np.ndarray:
    """One image of the batch past its geometry; an error says which of them it is."""
    try:
        if isinstance(picture, str | bytes | Path):
            with open_picture(picture) as opened:
                sized = geometry(opened, spec)
        else:
            sized = geometry(picture, spec)
    except InputError as error:
        path = f" ('{picture}')" if isinstance(picture, str | Path) else ""
        raise InputError(
            f"Image {at}{path} cannot be used: {error.found}", allowed=error.allowed, next_step=error.next_step
        ) from error
    return _checked_size(sized, image, at)


def _checked_size(picture: np.ndarray, image: tuple[int, int, int], at: int) -> np.ndarray:
    channels, height, width = image
    if picture.shape != (height, width, channels):
        raise InputError(
            f"Image {at} is {picture.shape[0]}x{picture.shape[1]} pixels (height x width) after preprocessing.",
            allowed=f"{height}x{width}; this network's preprocessing does not resize to it",
            next_step=f"resize the image to {height}x{width} first",
        )
    return picture
