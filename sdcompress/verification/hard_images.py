"""Images that real ones rarely are: blank, saturated, noise. A lost epsilon shows on them alone, as NaN."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdcompress.schema.recipe import Export
from sdcompress.verification.parity import allowance

__all__ = ["KINDS", "HardLogits", "decided_by_rounding", "differences", "hard_images", "lost", "nudged"]

KINDS = ("black", "grey", "white", "half black, half white", "saturated noise", "noise")

_SEED = 0
_NUDGE = 2.0**-21  # some roundings of float32

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class HardLogits:
    """What the checkpoint answers to ``hard_images``.

    Attributes:
        images: uint8 [N, H, W, C], N the number of ``KINDS``.
        logits: for each exit, float32 [N, K].
        nudged: the same for inputs that are some roundings off.
    """

    images: npt.NDArray[np.uint8]
    logits: Mapping[str, Floats]
    nudged: Mapping[str, Floats]


def hard_images(height: int, width: int, channels: int) -> npt.NDArray[np.uint8]:
    """One image of each of ``KINDS``, uint8 [N, H, W, C]; the same each time."""
    shape = (height, width, channels)
    rng = np.random.default_rng(_SEED)
    halves = np.zeros(shape, np.uint8)
    halves[:, width // 2 :] = 255
    blank = [np.full(shape, value, np.uint8) for value in (0, 128, 255)]
    noise = rng.integers(0, 256, shape, np.uint8)
    return np.stack([*blank, halves, 255 * rng.integers(0, 2, shape, np.uint8), noise])


def nudged(inputs: Floats) -> Floats:
    """Inputs [B, C, H, W] of which every number is a few roundings off, up or down."""
    signs = np.random.default_rng(_SEED).integers(0, 2, inputs.shape) * 2 - 1
    return np.asarray(inputs * (1 + signs * _NUDGE), np.float32)


def differences(run: Callable[[np.ndarray], np.ndarray], hard: HardLogits, settings: Export) -> list[str]:
    """What an exported network answers otherwise than the checkpoint: a sentence for each exit and image.

    A number must be a number, and NaN must be NaN. How large a number is counts only where the checkpoint's own answer
    does not hang on the last digits of the image: what is left of a blank image after its mean is roundings.

    Args:
        run: the exported network: images [B, H, W, C] -> logits [E, B, K].
        hard: the checkpoint's answers, E exits in the order of the logits.
        settings: tolerances.
    """
    found = []
    for name, logits in zip(hard.logits, run(hard.images), strict=True):
        reference, other = hard.logits[name], hard.nudged[name]
        for kind, wanted, near, made in zip(KINDS, reference, other, logits, strict=True):
            sentence = _difference(wanted, near, made, settings)
            if sentence:
                found.append(f"{name}: of an image that is {kind}, {sentence}")
    return found


def _difference(wanted: Floats, near: Floats, made: Floats, settings: Export) -> str:
    finite, other = (bool(np.isfinite(logits).all()) for logits in (wanted, near))
    if finite != other:
        return ""
    if not np.isfinite(made).all():
        return "logits are not finite, which the checkpoint's are" if finite else ""
    if not finite:
        return "logits are finite, which the checkpoint's are not"
    allowed = allowance(wanted, settings)
    off, moved = float(np.abs(made - wanted).max()), float(np.abs(near - wanted).max())
    return f"logits are off by {off:.2g} (allowed {allowed:.2g})" if off > allowed >= moved else ""


def decided_by_rounding(hard: HardLogits, settings: Export) -> list[str]:
    """The kinds of images on which the checkpoint's own logits move beyond the tolerance with roundings of the image.

    There an exported graph may answer otherwise, and so may torch on another machine.
    """
    kinds = []
    for row, kind in enumerate(KINDS):
        pairs = [(hard.logits[name][row], hard.nudged[name][row]) for name in hard.logits]
        finite = [(logits, near) for logits, near in pairs if np.isfinite([logits, near]).all()]
        if any(float(np.abs(near - logits).max()) > allowance(logits, settings) for logits, near in finite):
            kinds.append(kind)
    return kinds


def lost(before: Sequence[Floats], after: Floats) -> list[tuple[int, int]]:
    """Exit and image where all of ``before`` are finite and ``after`` is not; all float32 [E, N, K]."""
    finite = np.logical_and.reduce([np.isfinite(logits).all(axis=2) for logits in before])
    return [(int(exit_), int(image)) for exit_, image in np.argwhere(finite & ~np.isfinite(after).all(axis=2))]
