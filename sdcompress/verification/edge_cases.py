"""Edge cases: blank, saturated and noisy images, on which a lost epsilon shows as NaN."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdcompress.schema.recipe import Export
from sdcompress.verification.parity import allowance

__all__ = ["KINDS", "EdgeCaseLogits", "differences", "edge_case_images", "ill_conditioned", "lost_finite", "perturbed"]

KINDS = ("black", "grey", "white", "half black, half white", "saturated noise", "noise")

_SEED = 0
_PERTURBATION = 2.0**-21  # relative; a few roundings of float32

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EdgeCaseLogits:
    """The checkpoint's logits for ``edge_case_images``.

    Attributes:
        images: uint8 [N, H, W, C], N the number of ``KINDS``.
        logits: for each exit, float32 [N, K].
        perturbed: the same for inputs that are a few roundings off.
    """

    images: npt.NDArray[np.uint8]
    logits: Mapping[str, Floats]
    perturbed: Mapping[str, Floats]


def edge_case_images(height: int, width: int, channels: int) -> npt.NDArray[np.uint8]:
    """One image of each of ``KINDS``, uint8 [N, H, W, C]; deterministic."""
    shape = (height, width, channels)
    rng = np.random.default_rng(_SEED)
    halves = np.zeros(shape, np.uint8)
    halves[:, width // 2 :] = 255
    blank = [np.full(shape, value, np.uint8) for value in (0, 128, 255)]
    noise = rng.integers(0, 256, shape, np.uint8)
    return np.stack([*blank, halves, 255 * rng.integers(0, 2, shape, np.uint8), noise])


def perturbed(inputs: Floats) -> Floats:
    """Inputs [B, C, H, W] with every number moved by a few roundings, up or down."""
    signs = np.random.default_rng(_SEED).integers(0, 2, inputs.shape) * 2 - 1
    return np.asarray(inputs * (1 + signs * _PERTURBATION), np.float32)


def differences(run: Callable[[np.ndarray], np.ndarray], checkpoint: EdgeCaseLogits, settings: Export) -> list[str]:
    """How an exported network differs from the checkpoint, one sentence for each exit and image.

    Logits must be finite where the checkpoint's are, and nowhere else. Their size is compared only where a few
    roundings of the image do not move the checkpoint's logits: a blank image minus its mean consists of roundings.

    Args:
        run: the exported network: images [B, H, W, C] -> logits [E, B, K].
        checkpoint: its logits, E exits in the order of ``run``.
        settings: tolerances.
    """
    sentences = []
    for name, outputs in zip(checkpoint.logits, run(checkpoint.images), strict=True):
        reference, perturbed = checkpoint.logits[name], checkpoint.perturbed[name]
        for kind, expected, moved, logits in zip(KINDS, reference, perturbed, outputs, strict=True):
            sentence = _difference(expected, moved, logits, settings)
            if sentence:
                sentences.append(f"{name}: of an image that is {kind}, {sentence}")
    return sentences


def _difference(expected: Floats, perturbed: Floats, logits: Floats, settings: Export) -> str:
    finite, finite_perturbed = (bool(np.isfinite(logits).all()) for logits in (expected, perturbed))
    if finite != finite_perturbed:
        return ""
    if not np.isfinite(logits).all():
        return "logits are not finite, which the checkpoint's are" if finite else ""
    if not finite:
        return "logits are finite, which the checkpoint's are not"
    allowed = allowance(expected, settings)
    largest, shift = float(np.abs(logits - expected).max()), float(np.abs(perturbed - expected).max())
    return f"logits are off by {largest:.2g} (allowed {allowed:.2g})" if largest > allowed >= shift else ""


def ill_conditioned(checkpoint: EdgeCaseLogits, settings: Export) -> list[str]:
    """The kinds of images for which roundings of the image move the checkpoint's logits beyond the tolerance."""
    kinds = []
    for row, kind in enumerate(KINDS):
        pairs = [(checkpoint.logits[name][row], checkpoint.perturbed[name][row]) for name in checkpoint.logits]
        finite = [(logits, perturbed) for logits, perturbed in pairs if np.isfinite([logits, perturbed]).all()]
        if any(float(np.abs(perturbed - logits).max()) > allowance(logits, settings) for logits, perturbed in finite):
            kinds.append(kind)
    return kinds


def lost_finite(before: Sequence[Floats], after: Floats) -> list[tuple[int, int]]:
    """Positions (exit, image) where all of ``before`` are finite and ``after`` is not; all float32 [E, N, K]."""
    finite = np.logical_and.reduce([np.isfinite(logits).all(axis=2) for logits in before])
    return [(int(exit_), int(image)) for exit_, image in np.argwhere(finite & ~np.isfinite(after).all(axis=2))]
