from __future__ import annotations

import numpy as np
import pytest
import torch

from sdcompress.errors import RecipeError
from sdcompress.modalities import _image_preprocess as preprocess
from sdcompress.modalities._image_augment import ImageAugment
from sdcompress.modalities._image_settings import ImageAugmentation
from sdcompress.modalities._preprocess_settings import Preprocess

SPEC = Preprocess(channels=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))
# (x / 255 - 0) / (1 / 255) = x: pixel values can be read off the result
PLAIN = Preprocess(channels=3, mean=(0.0,) * 3, std=(1 / 255,) * 3)
LABELS = torch.arange(64)


def noise(count: int = 64, height: int = 10, width: int = 12) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=seeded(9))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def augment_by(
    spec: Preprocess, *, rank: int = 0, world: int = 1, mixup: float = 0.0, **settings: object
) -> ImageAugment:
    return ImageAugment(ImageAugmentation(**settings), mixup, spec, rank=rank, world=world)


def applied(
    operation: ImageAugment, images: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """The result for images [B, C, H, W], the labels that were mixed in, and the weights."""
    (out,), mixing = operation(images.permute(0, 2, 3, 1), generator)
    return out, mixing and LABELS[: len(images)][mixing.partner], mixing and mixing.weight


def augment(
    images: torch.Tensor, spec: Preprocess = PLAIN, seed: int = 0, **settings: object
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    return applied(augment_by(spec, **settings), images, seeded(seed))


def pixels(out: torch.Tensor) -> np.ndarray:
    rounded = out.round()
    assert (out - rounded).abs().max() < 1e-3
    return rounded.to(torch.uint8).numpy()


def test_with_all_off_images_are_normalised_and_the_generator_stays() -> None:
    generator = seeded()
    before = generator.get_state()
    images = noise()
    out, mixed_in, _ = applied(augment_by(SPEC), images, generator)
    assert mixed_in is None
    assert torch.equal(out, augment_by(SPEC).normalise(images))
    assert torch.equal(generator.get_state(), before)


def test_normalise_is_that_of_the_deployed_preprocessing() -> None:
    every_level = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    ours = augment_by(SPEC).normalise(torch.from_numpy(every_level).permute(0, 3, 1, 2))
    assert ours.is_contiguous()
    assert np.abs(ours.numpy() - preprocess.normalise(every_level, SPEC)).max() <= 1e-6


def windows(image: np.ndarray, pad: int, flips: tuple[bool, ...]) -> dict[bytes, tuple[int, int, bool]]:
    """All results that padding by reflection, cropping and flipping one image at a time can give."""
    height, width = image.shape[1:]
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
    found = {}
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            window = padded[:, top : top + height, left : left + width]
            for flip in flips:
                found[np.ascontiguousarray(window[:, :, ::-1] if flip else window).tobytes()] = (top, left, flip)
    return found


@pytest.mark.parametrize("pad", [1, 4, 9])
def test_crop_gives_windows_of_the_padded_image_each_as_likely(pad: int) -> None:
    images = noise()
    out = pixels(augment(images, crop=pad)[0])
    places = [
        windows(image.numpy(), pad, (False,))[result.tobytes()] for image, result in zip(images, out, strict=True)
    ]
    tops, lefts = ([place[axis] for place in places] for axis in (0, 1))
    for starts in (tops, lefts):
        assert min(starts) <= pad // 2
        assert max(starts) >= pad + (pad + 1) // 2
        # uniform on 0..2 pad, 64 draws: five standard deviations of the mean
        assert abs(np.mean(starts) - pad) < 5 * np.sqrt(((2 * pad + 1) ** 2 - 1) / 12 / 64)
    assert tops != lefts


def test_flip_mirrors_about_half_and_leaves_the_rest() -> None:
    images = noise(1, 4, 5).expand(2000, 3, 4, 5)
    (out,), _ = augment_by(PLAIN, flip=True)(images.permute(0, 2, 3, 1), seeded())
    mirrored = (out == images.flip(3)).flatten(1).all(1)
    kept = (out == images).flatten(1).all(1)
    assert bool((mirrored ^ kept).all())
    assert abs(int(mirrored.sum()) - 1000) < 5 * np.sqrt(500)


def test_crop_and_flip_together_are_those_two() -> None:
    images = noise()
    out = pixels(augment(images, crop=3, flip=True)[0])
    flips = [
        windows(image.numpy(), 3, (False, True))[result.tobytes()][2] for image, result in zip(images, out, strict=True)
    ]
    assert 0 < sum(flips) < 64


def test_a_batch_that_is_stored_channels_last_gives_the_same() -> None:
    images = noise()
    strided = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    for settings in ({}, {"crop": 2, "flip": True, "cutout": 4, "mixup": 1.0}):
        one, two = augment(images, **settings)[0], augment(strided, **settings)[0]
        assert torch.equal(one, two)
        assert two.is_contiguous()


@pytest.mark.parametrize("side", [1, 4, 5])
def test_cutout_greys_one_square_that_may_hang_over_the_edge(side: int) -> None:
    plain = augment(noise(), SPEC)[0]
    out = augment(noise(), SPEC, cutout=side)[0]
    changed = ((out != plain).any(1)).numpy()
    sizes = set()
    for image, hit in zip(out, changed, strict=True):
        rows, columns = np.flatnonzero(hit.any(1)), np.flatnonzero(hit.any(0))
        assert hit.sum() == len(rows) * len(columns)
        assert (image[:, torch.from_numpy(hit)] == 0).all()
        sizes.add((len(rows), len(columns)))
    assert max(sizes) == (side, side)
    assert all(half >= side - side // 2 for size in sizes for half in size)


def test_mixup_is_the_convex_combination_that_its_weight_says() -> None:
    plain = augment(noise(), SPEC)[0]
    out, labels, weight = augment(noise(), SPEC, mixup=0.4)
    assert labels is not None
    assert weight is not None
    assert sorted(labels.tolist()) == LABELS.tolist()
    assert labels.tolist() != LABELS.tolist()
    assert 0 <= float(weight[0]) <= 1
    share = weight.view(-1, 1, 1, 1)
    # the labels are the positions: they name the partner
    assert torch.allclose(out, share * plain + (1 - share) * plain[labels], atol=1e-5)


def test_the_weight_of_mixup_is_beta_distributed() -> None:
    operation, generator = augment_by(SPEC, mixup=2.0), seeded()
    images = noise(2, 2, 2).permute(0, 2, 3, 1)
    weights = [float(mixing.weight[0]) for _ in range(1000) if (mixing := operation(images, generator)[1])]
    # Beta(2, 2): mean 1/2, variance 1/20
    assert np.mean(weights) == pytest.approx(0.5, abs=5 * np.sqrt(1 / 20 / 1000))
    assert np.var(weights) == pytest.approx(0.05, abs=0.008)


@pytest.mark.parametrize("seed", range(12))
def test_the_weight_of_cutmix_is_the_share_of_pixels_that_stay(seed: int) -> None:
    images = torch.arange(64, dtype=torch.uint8).view(64, 1, 1, 1).expand(64, 3, 10, 12)
    out, labels, weight = augment(images, seed=seed, cutmix=1.0)
    assert labels is not None
    assert weight is not None
    values = torch.from_numpy(pixels(out)).long()
    own, others = (values == LABELS.view(-1, 1, 1, 1)), (values == labels.view(-1, 1, 1, 1))
    assert bool((own | others).all())
    fixed = labels == LABELS
    assert torch.equal(own.float().mean((1, 2, 3))[~fixed], weight[~fixed])
    pasted = (~own)[~fixed][0, 0]
    rows, columns = pasted.any(1).sum(), pasted.any(0).sum()
    assert int(pasted.sum()) == int(rows * columns), "the pasted part is not a rectangle"


def test_cutmix_pastes_areas_of_all_sizes() -> None:
    weights = [
        float(weight[0]) for seed in range(40) if (weight := augment(noise(2), seed=seed, cutmix=1.0)[2]) is not None
    ]
    assert min(weights) < 0.4
    assert max(weights) > 0.9


def test_with_both_on_each_batch_has_one_of_them_half_of_the_time() -> None:
    # of black and white images only mixup makes grey ones
    images = torch.tensor([0, 255], dtype=torch.uint8).repeat(8).view(16, 1, 1, 1).expand(16, 3, 10, 12)
    greys = [bool(((out != 0) & (out.round() != 255)).any()) for out, *_ in (
        augment(images, seed=seed, mixup=2.0, cutmix=2.0) for seed in range(200))]  # fmt: skip
    assert abs(sum(greys) - 100) < 5 * np.sqrt(50)


POLICIES = ("cifar10", "imagenet", "rand", "trivial")


@pytest.mark.parametrize(
    "settings",
    [{"crop": 2}, {"flip": True}, {"cutout": 3}, {"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}]
    + [{"auto_augment": policy} for policy in POLICIES],
    ids=str,
)
def test_the_generator_is_the_only_source_of_chance(settings: dict[str, object]) -> None:
    if "auto_augment" in settings:
        pytest.importorskip("torchvision")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = augment(noise(), SPEC, **settings)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    two = augment(noise(), SPEC, **settings)
    for first, second in zip(one, two, strict=True):
        assert first is second or torch.equal(first, second)
    other = augment(noise(), SPEC, seed=1, **settings)
    assert not torch.equal(one[0], other[0])
    assert torch.isfinite(one[0]).all()


def test_a_policy_treats_each_image_by_itself() -> None:
    pytest.importorskip("torchvision")
    images = noise(1).expand(64, 3, 10, 12)
    out = augment(images, auto_augment="trivial")[0]
    assert len({image.numpy().tobytes() for image in out}) > 16


@pytest.mark.parametrize(("name", "value", "most"), [("crop", 10, 9), ("cutout", 11, 10)])
def test_what_does_not_fit_the_images_is_refused(name: str, value: int, most: int) -> None:
    with pytest.raises(RecipeError, match=rf"{name} is {value}, but the images are 10x12"):
        augment(noise(), **{name: value})
    augment(noise(), **{name: most})


def test_the_given_images_are_not_written_to() -> None:
    images = noise()
    augment(images, crop=1, flip=True, cutout=4, cutmix=1.0)
    assert torch.equal(images, noise())


@pytest.mark.gpu
def test_no_step_waits_for_the_gpu() -> None:
    augment = augment_by(SPEC, crop=2, flip=True, cutout=4, mixup=0.2, cutmix=1.0)
    images = torch.zeros(8, 16, 16, 3, dtype=torch.uint8, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for seed in range(8):
            augment(images, torch.Generator().manual_seed(seed))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_resized_crop_is_a_piece_of_the_image_as_torch_resizes_it() -> None:
    images = noise(24, 9, 11)
    out = pixels(augment(images, resized_crop=0.2)[0])
    areas = []
    for image, found in zip(images, out, strict=True):
        matches = [
            h * w
            for h in range(1, 10)
            for w in range(1, 12)
            if h * w / 99 > 0.15 and 0.6 < w / h < 1.7
            for top in range(10 - h)
            for left in range(12 - w)
            if np.abs(_piece(image, top, left, h, w) - found.astype(np.int64)).max() <= 1  # a tie may round either way
        ]
        assert matches
        areas.append(max(matches) / 99)
    assert min(areas) < 0.4
    assert max(areas) > 0.7


def _piece(image: torch.Tensor, top: int, left: int, height: int, width: int) -> np.ndarray:
    piece = image[None, :, top : top + height, left : left + width].float()
    resized = torch.nn.functional.interpolate(piece, size=(9, 11), mode="bilinear", align_corners=False)
    return resized[0].round().numpy().astype(np.int64)


def test_a_resized_crop_is_drawn_alike_in_all_processes() -> None:
    images = noise(64, 16, 16)
    assert torch.equal(augment(images[:8], resized_crop=0.3)[0], augment(images[:8], resized_crop=0.3)[0])
    whole = augment(images, resized_crop=0.3)[0]
    shares = [
        applied(augment_by(PLAIN, rank=rank, world=2, resized_crop=0.3), images[rank::2], seeded())[0]
        for rank in range(2)
    ]
    assert torch.equal(torch.stack(shares, 1).flatten(0, 1), whole)


def together(masks: torch.Tensor, seed: int = 0, fill: int = 255, **settings: object) -> tuple[np.ndarray, np.ndarray]:
    """Images whose every channel is the mask, augmented together with it: the images as numbers, and the masks."""
    images = masks[..., None].expand(*masks.shape, 3).contiguous()
    (out,), moved, mixing = augment_by(PLAIN, **settings).joint(images, masks, seeded(seed), fill=fill)
    assert mixing is None
    assert moved is not None
    return out[:, 0].numpy(), moved.numpy()


def blocks(count: int = 16, side: int = 24) -> torch.Tensor:
    """Masks of two values in large blocks, at other places in each."""
    masks = torch.zeros(count, side, side, dtype=torch.uint8)
    for at in range(count):
        masks[at, at % 5 + 2 : at % 5 + 12, at % 7 + 1 : at % 7 + 14] = 200
    return masks


def test_masks_move_with_their_images() -> None:
    for settings in ({"crop": 5}, {"flip": True}, {"crop": 3, "flip": True}, {"cutmix": 1.0}):
        out, moved = together(noise(16)[:, 0], **settings)
        np.testing.assert_array_equal(out.round(), moved)
    (same,), kept, _ = augment_by(PLAIN).joint(noise(4).permute(0, 2, 3, 1), LABELS[:4], seeded(), fill=255)
    assert same.shape == (4, 3, 10, 12)
    assert torch.equal(kept, LABELS[:4])


def test_a_resized_mask_takes_the_nearest_pixel() -> None:
    masks = blocks()
    out, moved = together(masks, resized_crop=0.3)
    assert set(np.unique(moved)) == {0, 200}
    assert (moved != masks.numpy()).any()
    pure = (out < 0.5) | (out > 199.5)  # an interpolated edge is of neither value
    np.testing.assert_array_equal(out[pure].round(), moved[pure])
    assert pure.mean() > 0.8


def test_what_cutout_greys_is_void() -> None:
    out, moved = together(blocks() + 1, cutout=6, fill=255)
    grey = out == 0
    assert grey.any()
    np.testing.assert_array_equal(moved == 255, grey)


def test_the_draws_are_those_without_masks() -> None:
    images = noise(8).permute(0, 2, 3, 1)
    operation = augment_by(PLAIN, resized_crop=0.5, crop=2, flip=True, cutout=3, cutmix=1.0)
    (alone,), _ = operation(images, seeded())
    (beside,), _, _ = operation.joint(images, torch.zeros(8, 10, 12, dtype=torch.uint8), seeded(), fill=0)
    assert torch.equal(alone, beside)


def test_policies_that_rotate_images_alone_are_refused_with_masks() -> None:
    pytest.importorskip("torchvision")
    with pytest.raises(RecipeError, match="would leave the masks behind"):
        together(blocks(), auto_augment="trivial")
