"""What is done to training images, on whole batches, on the device that they are on, from one generator.

Order: resized crop, crop, flip, AutoAugment (all on uint8), normalise, cutout, then mixup or CutMix. The global
generators are neither read nor moved. The mean colour is zero after normalisation: that is cutout's grey.

What is drawn for an image does not depend on how many processes share the step: each draws for all and takes its own.
Only the partner of mixup and CutMix is one of the same process.

Masks, targets that have the places of the image, are moved with it: they take the nearest value where an image is
resized. What cutout greys is void in them, and CutMix pastes the partner's mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from sdcompress.errors import RecipeError, requires_extra
from sdcompress.modalities._image_settings import ImageAugmentation
from sdcompress.modalities._mixing import Mixing, beta, integers, mixup, permutation, sent
from sdcompress.modalities._preprocess_settings import Preprocess

__all__ = ["ImageAugment"]

Policy = Callable[[Tensor], Tensor]
_TRIES = 10  # of torchvision's RandomResizedCrop
Draw = Callable[[int], Tensor]  # one integer for each image, from 0 and below a bound


class ImageAugment:
    """The augmentation of images by a recipe; see ``Augment``.

    Args:
        settings: what to do.
        mixup: alpha of the Beta distribution of mixup; 0 = off.
        preprocess: holds mean and std.
        rank: this process.
        world: number of processes.

    Raises:
        MissingExtraError: if ``auto_augment`` is on and torchvision is not installed.
    """

    def __init__(
        self, settings: ImageAugmentation, mixup: float, preprocess: Preprocess, *, rank: int = 0, world: int = 1
    ) -> None:
        self._settings, self._mixup, self._share = settings, mixup, (rank, world)
        # on the scale of 0..255 normalising takes two passes over the batch instead of three, and rounds less
        self._mean = torch.tensor([255 * mean for mean in preprocess.mean]).view(1, -1, 1, 1)
        self._scale = torch.tensor([1 / (255 * std) for std in preprocess.std]).view(1, -1, 1, 1)
        self._policy = _policy(settings.auto_augment)

    def __call__(self, examples: Tensor, generator: Generator) -> tuple[tuple[Tensor, ...], Mixing | None]:
        """Augment one batch.

        Args:
            examples: uint8 [B, H, W, C].
            generator: the only source of chance, alike in all processes; on any device.

        Returns:
            The input, float32 [B, C, H, W], normalised; and how it was mixed, None where mixup and CutMix are off.

        Raises:
            RecipeError: if the crop or the cutout does not fit the images.
        """
        inputs, _, mixing = self.joint(examples, None, generator)
        return inputs, mixing

    def joint(
        self, examples: Tensor, targets: Tensor | None, generator: Generator, *, fill: int = 0
    ) -> tuple[tuple[Tensor, ...], Tensor | None, Mixing | None]:
        """Augment images together with their masks; see ``Augment``.

        Args:
            examples: uint8 [B, H, W, C].
            targets: masks [B, H, W]; None: there are none.
            generator: as above.
            fill: value of a mask where cutout greys the image.

        Raises:
            RecipeError: also if AutoAugment is on and there are masks.
        """
        settings, images, masks = self._settings, examples.permute(0, 3, 1, 2), targets
        _check_sizes(settings, images)
        if settings.resized_crop:
            images, masks = _resized_crop(images, masks, settings.resized_crop, self._draw(images, generator))
        if settings.crop or settings.flip:
            images, masks = _crop_and_flip(images, masks, settings.crop, settings.flip, self._draw(images, generator))
        if self._policy is not None:
            _check_policy(settings, masks)
            images = _by_policy(self._policy, images, self._draw(images, generator))
        inputs = self.normalise(images)
        if settings.cutout:
            inputs, masks = _cutout(inputs, masks, settings.cutout, self._draw(images, generator), fill)
        if not self._mixup and not settings.cutmix:
            return (inputs,), masks, None
        both = self._mixup > 0 and settings.cutmix > 0
        if self._mixup and not (both and float(torch.rand((), generator=generator, device=generator.device)) < 0.5):
            mixed, mixing = self.mixup((inputs,), self._mixup, generator)
            return mixed, masks, mixing
        pasted, masks, share = _cutmix(inputs, masks, settings.cutmix, generator)
        return (pasted,), masks, share

    def mixup(
        self, inputs: tuple[Tensor, ...], alpha: float, generator: Generator
    ) -> tuple[tuple[Tensor, ...], Mixing]:
        """Mix inputs among themselves; see ``Augment``."""
        return mixup(inputs, alpha, generator)

    def _draw(self, images: Tensor, generator: Generator) -> Draw:
        rank, world = self._share

        def draw(below: int) -> Tensor:
            return integers(below, len(images) * world, generator, images.device)[rank::world]

        return draw

    def normalise(self, images: Tensor) -> Tensor:
        """``(x / 255 - mean) / std``, as ``sdcompress.modalities._image_preprocess.normalise`` does.

        Args:
            images: uint8 [B, C, H, W].

        Returns:
            float32 [B, C, H, W], contiguous.
        """
        inputs = images.to(torch.float32, memory_format=torch.contiguous_format)
        return inputs.sub_(sent(self._mean, images.device)).mul_(sent(self._scale, images.device))


def _check_sizes(settings: ImageAugmentation, images: Tensor) -> None:
    side = min(images.shape[2:])
    for name, value, most in (("crop", settings.crop, side - 1), ("cutout", settings.cutout, side)):
        if value > most:
            raise RecipeError(
                f"train.augment.{name} is {value}, but the images are {images.shape[2]}x{images.shape[3]}.",
                allowed=f"0 to {most}",
                next_step=f"--set train.augment.{name}={most // 4}",
            )


def _check_policy(settings: ImageAugmentation, masks: Tensor | None) -> None:
    if masks is not None:
        raise RecipeError(
            f"train.augment.auto_augment is {settings.auto_augment}, whose rotations would leave the masks behind.",
            allowed="none where targets are masks; torchvision's policies take images alone",
            next_step="--set train.augment.auto_augment=none; resized_crop, crop, flip, cutout and cutmix move both",
        )


def _resized_crop(images: Tensor, masks: Tensor | None, least: float, draw: Draw) -> tuple[Tensor, Tensor | None]:
    """Cut a random piece out of each image and resize it to the whole, bilinearly (Szegedy et al. 2014).

    As torchvision's RandomResizedCrop: the share of the area is uniform from ``least`` to 1, the logarithm of the
    aspect ratio uniform from 3/4 to 4/3, the first of ten tries that fits is taken, else the whole image. No piece is
    larger than the image, so that nothing is shrunk.
    """
    H, W = images.shape[2:]
    heights = torch.full((len(images),), H, device=images.device)
    widths = torch.full_like(heights, W)
    open_ = torch.ones_like(heights, dtype=torch.bool)
    for _ in range(_TRIES):
        area = H * W * (least + (1 - least) * _unit(draw))
        ratio = torch.exp((2 * _unit(draw) - 1) * math.log(4 / 3))
        wide, high = (torch.round(torch.sqrt(area * by)).to(torch.int64) for by in (ratio, 1 / ratio))
        fits = open_ & (wide >= 1) & (wide <= W) & (high >= 1) & (high <= H)
        heights, widths, open_ = torch.where(fits, high, heights), torch.where(fits, wide, widths), open_ & ~fits
    tops = (_unit(draw) * (H - heights + 1)).floor().to(torch.int64)
    lefts = (_unit(draw) * (W - widths + 1)).floor().to(torch.int64)
    resized = _stretched(_stretched(images.float(), tops, heights, dim=2), lefts, widths, dim=3)
    if masks is not None:
        masks = _nearest(_nearest(masks, tops, heights, dim=1), lefts, widths, dim=2)
    return resized.round().to(torch.uint8), masks


def _unit(draw: Draw) -> Tensor:
    """A number in [0, 1) for each image, float64."""
    return draw(2**30).double() / 2**30


def _centres(size: int, lengths: Tensor) -> Tensor:
    """Where the centres of ``size`` pixels lie in pieces of these lengths, float64 [B, size]."""
    centres = (torch.arange(size, device=lengths.device) + 0.5) * lengths[:, None].double() / size - 0.5
    return centres.clamp_min(0)


def _nearest(masks: Tensor, starts: Tensor, lengths: Tensor, *, dim: int) -> Tensor:
    """Along one dimension, a piece of each mask [B, H, W] on the whole length, each pixel the nearest of the piece."""
    places = (_centres(masks.shape[dim], lengths) + 0.5).floor().to(torch.int64)
    shape = [len(masks), 1, 1]
    shape[dim] = masks.shape[dim]
    return masks.gather(dim, (starts[:, None] + places).view(shape).expand_as(masks))


def _stretched(images: Tensor, starts: Tensor, lengths: Tensor, *, dim: int) -> Tensor:
    """Along one dimension, a piece of each image on the whole length, bilinearly between the centres of pixels."""
    size = images.shape[dim]
    centres = _centres(size, lengths)
    low = torch.minimum(centres.floor().to(torch.int64), lengths[:, None] - 1)
    high = torch.minimum(low + 1, lengths[:, None] - 1)
    shape = [len(images), 1, 1, 1]
    shape[dim] = size
    share = (centres - low).clamp(max=1).to(images.dtype).view(shape)
    below, above = (
        images.gather(dim, (starts[:, None] + places).view(shape).expand_as(images)) for places in (low, high)
    )
    return torch.lerp(below, above, share)


def _crop_and_flip(
    images: Tensor, masks: Tensor | None, pad: int, flip: bool, draw: Draw
) -> tuple[Tensor, Tensor | None]:
    """Shift by up to ``pad`` pixels, filling by reflection, and mirror every second image or so.

    That is what padding and cropping back gives, as one gather of pixels without the padded copy.
    """
    B, C, H, W = images.shape
    device = images.device
    top, left = (draw(2 * pad + 1) - pad for _ in range(2))
    rows, columns = (torch.arange(side, device=device).expand(B, side) for side in (H, W))
    if flip:
        mirrored = draw(2).bool()
        columns = torch.where(mirrored[:, None], W - 1 - columns, columns)
    rows, columns = _reflect(rows + top[:, None], H), _reflect(columns + left[:, None], W)
    pixels = (rows[:, :, None] * W + columns[:, None, :]).view(B, 1, H * W)
    if masks is not None:
        masks = masks.flatten(1).gather(1, pixels[:, 0]).view(B, H, W)
    return images.flatten(2).gather(2, pixels.expand(B, C, H * W)).view(B, C, H, W), masks


def _reflect(positions: Tensor, size: int) -> Tensor:
    """Positions outside 0..size-1, mirrored at the edge pixels (which are not repeated)."""
    return (size - 1) - ((size - 1) - positions.abs()).abs()


def _policy(name: str) -> Policy | None:
    if name == "none":
        return None
    with requires_extra("vision"):
        from torchvision.transforms import v2  # only recipes that ask for a policy need torchvision
    policies: dict[str, Callable[[], Policy]] = {
        "cifar10": lambda: v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10),
        "imagenet": lambda: v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET),
        "rand": v2.RandAugment,
        "trivial": v2.TrivialAugmentWide,
    }
    return policies[name]()


def _by_policy(policy: Policy, images: Tensor, draw: Draw) -> Tensor:
    # torchvision draws from the global CPU generator. torch.manual_seed would also move those of the GPUs,
    # which fork_rng with no devices does not put back: so only the CPU's is seeded.
    seeds = draw(2**62).tolist()
    with torch.random.fork_rng(devices=[]):
        return torch.stack([_seeded(policy, image, seed) for image, seed in zip(images, seeds, strict=True)])


def _seeded(policy: Policy, image: Tensor, seed: int) -> Tensor:
    torch.default_generator.manual_seed(seed)
    return policy(image)


def _cutout(images: Tensor, masks: Tensor | None, side: int, draw: Draw, fill: int) -> tuple[Tensor, Tensor | None]:
    """Grey one square of each image; its centre is any pixel, so a part may lie outside (DeVries and Taylor 2017)."""
    H, W = images.shape[2:]
    hit = []
    for size in (H, W):
        start = draw(size) - side // 2
        offset = torch.arange(size, device=images.device) - start[:, None]
        hit.append((offset >= 0) & (offset < side))
    square = hit[0][:, :, None] & hit[1][:, None, :]
    if masks is not None:
        masks = masks.masked_fill(square, fill)
    return images.masked_fill(square[:, None], 0.0), masks


def _cutmix(
    images: Tensor, masks: Tensor | None, alpha: float, generator: Generator
) -> tuple[Tensor, Tensor | None, Mixing | None]:
    """Paste one rectangle of another image, the same place for all, as the authors' code does (Yun et al. 2019).

    The weight is the share of pixels that stay, exactly. Masks are pasted as the images are: then nothing is weighed.
    """
    H, W = images.shape[2:]
    ratio = math.sqrt(1 - beta(alpha, generator))
    spans = []
    for size in (H, W):
        half = int(size * ratio) // 2
        centre = int(integers(size, 1, generator, generator.device))
        spans.append(slice(max(centre - half, 0), min(centre + half, size)))
    rows, columns = spans
    partner = permutation(images, generator)
    mixed = images.clone()
    mixed[:, :, rows, columns] = images[:, :, rows, columns][partner]
    if masks is not None:
        pasted_masks = masks.clone()
        pasted_masks[:, rows, columns] = masks[:, rows, columns][partner]
        return mixed, pasted_masks, None
    pasted = (rows.stop - rows.start) * (columns.stop - columns.start)
    weight = torch.full((len(images),), 1 - pasted / (H * W), device=images.device)
    return mixed, None, Mixing(weight, partner)
