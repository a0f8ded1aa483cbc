"""How a decoded image becomes the input of a network, as manifests, checkpoints and ONNX files record it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from sdcompress.schema.base import Frozen

__all__ = ["Preprocess"]

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

    @model_validator(mode="after")
    def _per_channel(self) -> Preprocess:
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean and std need {self.channels} values each")
        return self
