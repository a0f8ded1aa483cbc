"""Edge cases: inputs that real data rarely holds, such as blank ones, on which a lost epsilon shows as NaN."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress.modalities import Inputs, Modality
from sdcompress.schema.recipe import Export
from sdcompress.verification.parity import allowance

__all__ = ["EdgeCases", "differences", "edge_case_inputs", "ill_conditioned", "lost_finite", "perturbed"]

_SEED = 0
_PERTURBATION = 2.0**-21  # relative; a few roundings of float32

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EdgeCases:
    """The checkpoint's outputs for ``edge_case_inputs``.

    Attributes:
        kinds: N words for what the inputs are.
        inputs: of N rows.
        outputs: for each exit, float32 [N, ...].
        perturbed: the same for inputs that are a few roundings off.
    """

    kinds: tuple[str, ...]
    inputs: Inputs
    outputs: Mapping[str, Floats]
    perturbed: Mapping[str, Floats]


def edge_case_inputs(modality: Modality) -> tuple[tuple[str, ...], Inputs]:
    """What the modality's edge cases are, and the inputs that they become."""
    examples = modality.edge_cases()
    return tuple(examples), modality.collate(np.stack(list(examples.values())))


def perturbed(inputs: Inputs) -> Inputs:
    """Return inputs with every float moved by a few roundings, up or down; integers stay."""
    rng = np.random.default_rng(_SEED)
    return Inputs({name: _moved(array, rng) for name, array in inputs.arrays.items()})


def _moved(array: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
    if not np.issubdtype(array.dtype, np.floating):
        return array
    signs = rng.integers(0, 2, array.shape) * 2 - 1
    return np.asarray(array * (1 + signs * _PERTURBATION), array.dtype)


def differences(run: Callable[[Inputs], np.ndarray], checkpoint: EdgeCases, settings: Export) -> list[str]:
    """Return how an exported network differs from the checkpoint, one sentence for each exit and edge case.

    Outputs must be finite where the checkpoint's are, and nowhere else. Their size is compared only where a few
    roundings of the input do not move the checkpoint's outputs: a blank image minus its mean consists of roundings.

    Args:
        run: the exported network: inputs -> outputs [E, B, ...].
        checkpoint: its outputs, E exits in the order of ``run``.
        settings: tolerances.
    """
    sentences = []
    for name, exit_outputs in zip(checkpoint.outputs, run(checkpoint.inputs), strict=True):
        reference, shifted = checkpoint.outputs[name], checkpoint.perturbed[name]
        for kind, expected, moved, outputs in zip(checkpoint.kinds, reference, shifted, exit_outputs, strict=True):
            sentence = _difference(expected, moved, outputs, settings)
            if sentence:
                sentences.append(f"{name}: of an example that is {kind}, {sentence}")
    return sentences


def _difference(expected: Floats, perturbed: Floats, outputs: Floats, settings: Export) -> str:
    finite, finite_perturbed = (bool(np.isfinite(values).all()) for values in (expected, perturbed))
    if finite != finite_perturbed:
        return ""
    if not np.isfinite(outputs).all():
        return "outputs are not finite, which the checkpoint's are" if finite else ""
    if not finite:
        return "outputs are finite, which the checkpoint's are not"
    allowed = allowance(expected, settings)
    largest, shift = float(np.abs(outputs - expected).max()), float(np.abs(perturbed - expected).max())
    return f"outputs are off by {largest:.2g} (allowed {allowed:.2g})" if largest > allowed >= shift else ""


def ill_conditioned(checkpoint: EdgeCases, settings: Export) -> list[str]:
    """Return the kinds for which roundings of the input move the checkpoint's outputs beyond the tolerance."""
    kinds = []
    for row, kind in enumerate(checkpoint.kinds):
        pairs = [(outputs[row], checkpoint.perturbed[name][row]) for name, outputs in checkpoint.outputs.items()]
        finite = [(outputs, moved) for outputs, moved in pairs if np.isfinite([outputs, moved]).all()]
        if any(float(np.abs(moved - outputs).max()) > allowance(outputs, settings) for outputs, moved in finite):
            kinds.append(kind)
    return kinds


def lost_finite(before: Sequence[Floats], after: Floats) -> list[tuple[int, int]]:
    """Return positions (exit, row) where all of ``before`` are finite and ``after`` is not; all float32 [E, N, ...]."""
    finite = np.logical_and.reduce([_finite(outputs) for outputs in before])
    return [(int(exit_), int(row)) for exit_, row in np.argwhere(finite & ~_finite(after))]


def _finite(outputs: Floats) -> npt.NDArray[np.bool_]:
    """For each exit and row whether all outputs are finite, [E, N]."""
    return np.asarray(np.isfinite(outputs).all(axis=tuple(range(2, outputs.ndim))))
