"""Images: files of any size, resized, cropped and normalised to float32 [B, C, H, W]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from pydantic import TypeAdapter

from sdcompress.errors import DataError, InputError, RecipeError
from sdcompress.modalities._augmentation import Augment, AugmentationSettings
from sdcompress.modalities._base import Modality
from sdcompress.modalities._image_card import card_code, card_text
from sdcompress.modalities._image_files import check_picture, open_picture
from sdcompress.modalities._image_preprocess import geometry, normalise
from sdcompress.modalities._image_pretrained import own_settings, settings_of_weights
from sdcompress.modalities._image_settings import ImageAugmentation, ImageSettings
from sdcompress.modalities._inputs import Inputs
from sdcompress.modalities._preprocess_settings import Preprocess, sized_geometry
from sdcompress.modalities._settings import checked
from sdcompress.schema import recipe
from sdcompress.schema.graphs import Tensor

__all__ = ["Image"]

_SEED = 0
_BYTES_PER_PIXEL = 8  # while it is decoded: the file's channels, and those of the network
_LARGEST_SIDE = 16384  # pixels; what a manifest asks for must fit into memory


@dataclass(frozen=True)
class Image(Modality):
    """Grey or colour images; an example is uint8 [H, W, C].

    Attributes:
        preprocess: from a decoded image to the input.
        shape: C, H, W of the input.
    """

    preprocess: Preprocess
    shape: tuple[int, int, int]

    INPUT: ClassVar[str] = "input"
    augmentation: ClassVar[type[AugmentationSettings]] = ImageAugmentation
    from_weights = ("mean", "std", "interpolation", "crop")
    suffixes = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

    @classmethod
    def of(cls, preprocess: Preprocess, size: Sequence[int | str] = ()) -> Image:
        """The modality of images of one size, or of any size that the preprocessing brings to one.

        Args:
            preprocess: from a decoded image to the input.
            size: height and width, where the preprocessing neither crops nor resizes to both.
        """
        resized = preprocess.resize if isinstance(preprocess.resize, tuple) else size
        height, width = map(int, preprocess.crop or resized)
        return cls(preprocess, (preprocess.channels, height, width))

    @classmethod
    def setting_names(cls) -> tuple[str, ...]:
        """The keys of ``ImageSettings``, from which the preprocessing is made."""
        return tuple(ImageSettings.model_fields)

    @classmethod
    def build(cls, parameters: Mapping[str, Any]) -> Image:
        """Make it of ``image_size``, ``mean`` and ``std`` at least; see ``Modality``."""
        settings = checked(TypeAdapter(ImageSettings), parameters, "modality")
        if settings.image_size is None or settings.mean is None or settings.std is None:
            raise RecipeError(
                "The data set says neither the size nor the mean and std of its images.",
                allowed="modality.image_size, modality.mean and modality.std",
                next_step="set all three",
            )
        size, mean, std = settings.image_size, settings.mean, settings.std
        channels = 3 if len(mean) == 3 else 1
        return cls.of(Preprocess(channels=channels, mean=mean, std=std, **sized_geometry(size, None))).with_settings(
            parameters
        )

    def with_settings(self, parameters: Mapping[str, Any]) -> Image:
        """Change the preprocessing; one number as size, or a crop, makes the input a square. See ``Modality``."""
        settings, own = checked(TypeAdapter(ImageSettings), parameters, "modality"), self.preprocess
        for name, values in (("mean", settings.mean), ("std", settings.std)):
            if values is not None and len(values) != own.channels:
                raise RecipeError(
                    f"modality.{name} has {len(values)} values.",
                    allowed=f"one for each channel; the images of the data set have {own.channels}",
                    next_step=f"--set 'modality.{name}=[{', '.join(['0.5'] * own.channels)}]', with your numbers",
                )
        changed = settings.model_dump(include={"mean", "std", "interpolation", "white_level"}, exclude_none=True)
        if settings.image_size is not None or settings.crop is not None:
            share = own.share if settings.crop is None else None if settings.crop == "none" else settings.crop
            changed |= sized_geometry(settings.image_size or min(self.shape[1:]), share)
        return Image.of(own.model_copy(update=changed), self.shape[1:])

    def settings_of_weights(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """See ``Modality``."""
        return settings_of_weights(config)

    def own_settings(self, like: Mapping[str, Any]) -> dict[str, Any]:
        """See ``Modality``; a crop only where the data set crops, colours where there are as many channels."""
        return own_settings(self.preprocess, like)

    @property
    def fingerprint_text(self) -> str:
        """The preprocessing; a white level that is not set is left out."""
        unset = {"white_level"} if self.preprocess.white_level is None else None
        return self.preprocess.model_dump_json(exclude=unset)

    def __post_init__(self) -> None:
        if self.shape[0] != self.preprocess.channels:
            raise ValueError(f"the input has {self.shape[0]} channels, its preprocessing {self.preprocess.channels}")
        if not all(0 < side <= _LARGEST_SIDE for side in self.shape[1:]):
            raise ValueError(f"height and width must be between 1 and {_LARGEST_SIDE} pixels")

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """One: float32 [batch, C, H, W]."""
        return (Tensor(name=self.INPUT, dtype="float32", shape=("batch", *self.shape)),)

    def prepare(self, raw: Any) -> Inputs:
        """See ``Modality``.

        Args:
            raw: a list of images of any size: Pillow images, arrays (uint8 [H, W, C], or uint16 [H, W] for grey of 16
                bits), paths of image files, or their bytes; or one array, uint8 [B, H, W, C], which is resized and
                cropped too unless it has the network's H, W and C already.
        """
        channels, height, width = self.shape
        if isinstance(raw, Pillow.Image | str | bytes | Path) or (isinstance(raw, np.ndarray) and raw.ndim != 4):
            raise InputError(
                f"The images have the shape {list(raw.shape)}."
                if isinstance(raw, np.ndarray) and raw.ndim > 4
                else "This is one image, not a batch of them.",
                allowed="a list of images, or uint8 [B, H, W, C]",
                next_step="put it into a list: engine.preprocess([image])",
            )
        if isinstance(raw, np.ndarray) and raw.shape[1:] == (height, width, channels) and raw.dtype != np.uint16:
            return Inputs({self.INPUT: normalise(raw, self.preprocess)})
        return super().prepare(raw)

    def collate(self, examples: Any) -> Inputs:
        """Normalise uint8 [B, H, W, C]; see ``Modality``."""
        channels, height, width = self.shape
        if examples.dtype != np.uint8 or examples.shape[1:] != (height, width, channels):
            raise DataError(
                f"The images are {examples.dtype} {'x'.join(map(str, examples.shape[1:]))} (height, width, channels).",
                allowed=f"{height}x{width}x{channels}, uint8, the size that the network was trained at",
                next_step="load the data set with the recipe of the network (modality.image_size)",
            )
        return Inputs({self.INPUT: normalise(examples, self.preprocess)})

    def check(self, inputs: Any) -> Inputs:
        """See ``Modality``: float32 [B, C, H, W]. What fits takes no detour: this runs in every call."""
        named = inputs.arrays if isinstance(inputs, Inputs) else inputs
        array = named.get(self.INPUT) if isinstance(named, Mapping) else named
        if (
            isinstance(array, np.ndarray)
            and array.dtype == np.float32
            and array.ndim == 4
            and array.shape[1:] == self.shape
        ):
            return Inputs({self.INPUT: np.ascontiguousarray(array)})
        return super().check(named)

    def edge_cases(self) -> Mapping[str, npt.NDArray[np.uint8]]:
        """Black, grey and white images, halves, and noise, each uint8 [H, W, C]; the same each time."""
        channels, height, width = self.shape
        shape = (height, width, channels)
        rng = np.random.default_rng(_SEED)
        halves = np.zeros(shape, np.uint8)
        halves[:, width // 2 :] = 255
        noise = rng.integers(0, 256, shape, np.uint8)
        return {
            "black": np.full(shape, 0, np.uint8),
            "grey": np.full(shape, 128, np.uint8),
            "white": np.full(shape, 255, np.uint8),
            "half black, half white": halves,
            "saturated noise": 255 * rng.integers(0, 2, shape, np.uint8),
            "noise": noise,
        }

    def example(self, raw: Any) -> npt.NDArray[np.uint8]:
        """One raw image, as ``prepare`` takes them, past its geometry: uint8 [H, W, C]; see ``Modality``."""
        sized = _sized(raw, self.preprocess)
        channels, height, width = self.shape
        if sized.shape != (height, width, channels):
            raise InputError(
                f"The image has {sized.shape[0]}x{sized.shape[1]} pixels (height x width) after preprocessing.",
                allowed=f"{height}x{width}; this network's preprocessing does not resize to it",
                next_step=f"resize the image to {height}x{width} first",
            )
        return sized

    def raw_from_bytes(self, content: bytes, *, most_bytes: int) -> bytes:
        """The bytes of an image file whose header says that its pixels take no more; see ``Modality``."""
        with open_picture(content) as opened:
            pixels = opened.width * opened.height
        if (most := most_bytes // _BYTES_PER_PIXEL) < pixels:
            raise InputError(
                f"The image has {opened.width}x{opened.height} pixels (width x height).",
                allowed=f"at most {most:,} pixels",
                next_step="make it smaller first",
            )
        return content

    def decode(self, raw: Any) -> Pillow.Image:
        """The image at its own size, with the network's channels."""
        pixels = _sized(raw, self.preprocess.model_copy(update={"resize": None, "crop": None}))
        return Pillow.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)

    def preparation_text(self, raw: Sequence[Pillow.Image] | None) -> str:
        """The sizes of the images; see ``Modality``."""
        sizes = [self.shape[:0:-1]] if raw is None else [image.size for image in raw]
        small, large = ("x".join(map(str, size)) for size in (min(sizes), max(sizes)))
        pixels = small if small == large else f"{small} to {large}"
        resized = "nothing is resized" if raw is None else "resized and cropped as the network wants it"
        return f"from decoded images of {pixels} pixels (width x height), {resized}; decoding a file is not included"

    def check_raw(self, raw: Any) -> None:
        """Read the header of an image's file, and see whether the file is whole; see ``Modality``."""
        check_picture(raw)

    def augment(self, settings: recipe.Augmentation, *, rank: int = 0, world: int = 1) -> Augment:
        """See ``Modality`` and ``ImageAugment``."""
        from sdcompress.modalities._image_augment import ImageAugment

        chosen = self.augmentation_settings(settings)
        assert isinstance(chosen, ImageAugmentation), chosen
        return ImageAugment(chosen, settings.mixup, self.preprocess, rank=rank, world=world)

    def drawn(self, examples: Any) -> npt.NDArray[np.uint8]:
        """The images themselves; see ``Modality``."""
        return np.asarray(np.broadcast_to(examples, (*examples.shape[:3], 3)))

    def card_text(self) -> str:
        """Resizing, cropping and normalisation."""
        return card_text(self.preprocess)

    def card_code(self) -> str:
        """With numpy and Pillow; see ``Modality``."""
        return card_code(self.preprocess, self.INPUT)


def _sized(raw: Any, preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    if not isinstance(raw, str | bytes | Path):
        return geometry(raw, preprocess)
    with open_picture(raw) as opened:
        return geometry(opened, preprocess)
