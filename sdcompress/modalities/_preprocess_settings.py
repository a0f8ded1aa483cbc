"""How a decoded image becomes the input of a network, as manifests, checkpoints and ONNX files record it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, model_validator

from sdcompress.schema.base import Frozen

__all__ = ["Preprocess", "sized_geometry"]

Side = Annotated[int, Field(gt=0, le=16384)]  # pixels; a larger image would not fit into memory after resizing


class Preprocess(Frozen):
    """From a decoded image to the network's input: resize, centre crop, scale by 1/255, normalise, channels first.

    ``resize`` is the height and width in pixels, or one number for the shorter side; ``crop`` the height and width
    that are kept. Both optional. ``mean`` and ``std`` are per channel, in units of [0, 1] images. ``white_level`` is
    the value of grey images of 16 bits that becomes 255.
    """

    channels: Literal[1, 3]
    resize: tuple[Side, Side] | Side | None = None
    crop: tuple[Side, Side] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, ...]
    std: tuple[PositiveFloat, ...]
    white_level: Annotated[int, Field(ge=1, le=65535)] | None = None

    @classmethod
    def square(
        cls, side: int, *, mean: tuple[float, ...], std: tuple[float, ...], crop: float | None = None
    ) -> Preprocess:
        """Return the preprocessing to a square: the usual one of a data set.

        Args:
            side: of the square that the network sees, in pixels.
            mean: of each channel over the training images, in [0, 1].
            std: likewise.
            crop: the square's side as a share of the resized shorter side; None: the whole image becomes the square.
        """
        return cls(channels=3 if len(mean) == 3 else 1, mean=mean, std=std, **sized_geometry(side, crop))

    @property
    def share(self) -> float | None:
        """The crop's shorter side as a share of the resized one; None without a crop or a resizing."""
        if self.crop is None or self.resize is None:
            return None
        return min(self.crop) / (self.resize if isinstance(self.resize, int) else min(self.resize))

    @model_validator(mode="after")
    def _per_channel(self) -> Preprocess:
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean and std need {self.channels} values each")
        return self


def sized_geometry(size: int | tuple[int, int], share: float | None) -> dict[str, Any]:
    """Return ``resize`` and ``crop`` to a size.

    Args:
        size: in pixels: the side of a square, or height and width.
        share: of the resized image, along its shorter side, that is kept; None: the whole image becomes the size.
    """
    sides = (size, size) if isinstance(size, int) else size
    if share is None:
        return {"resize": sides, "crop": None}
    resize = round(size / share) if isinstance(size, int) else tuple(round(side / share) for side in size)
    return {"resize": resize, "crop": sides}
