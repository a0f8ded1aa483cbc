"""Blank, saturated and noisy images: numbers for numbers, NaN for NaN."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from meaning import image_modality

from sdcompress.modalities import Inputs
from sdcompress.schema.recipe import Export
from sdcompress.verification.edge_cases import (
    EdgeCases,
    differences,
    edge_case_inputs,
    ill_conditioned,
    lost_finite,
    perturbed,
)

SETTINGS = Export(atol=1e-4, rtol=1e-3)
KINDS, INPUTS = edge_case_inputs(image_modality((3, 4, 6)))
LOGITS = np.tile(np.float32([1, -3]), (len(KINDS), 1))
HARD = EdgeCases(KINDS, INPUTS, {"exit1": LOGITS, "final": LOGITS}, {"exit1": LOGITS, "final": LOGITS})


def found(final: np.ndarray, hard: EdgeCases = HARD) -> list[str]:
    return differences(lambda _: np.stack([LOGITS, final]), hard, SETTINGS)


def changed(image: int, value: float) -> np.ndarray:
    logits = LOGITS.copy()
    logits[image, 0] = value
    return logits


def final(logits: np.ndarray, near: np.ndarray) -> EdgeCases:
    return replace(HARD, outputs=HARD.outputs | {"final": logits}, perturbed=HARD.perturbed | {"final": near})


def test_the_images_are_what_they_are_called_and_the_same_each_time() -> None:
    images = image_modality((3, 4, 6)).edge_cases()
    assert tuple(images) == KINDS
    for kind, image in images.items():
        assert (image.shape, image.dtype) == ((4, 6, 3), np.uint8)
        values = set(np.unique(image).tolist())
        single = {"black": {0}, "grey": {128}, "white": {255}}
        if kind in single:
            assert values == single[kind]
        elif kind == "noise":
            assert len(values) > 20
        else:
            assert values == {0, 255}
    np.testing.assert_array_equal(INPUTS, image_modality((3, 4, 6)).collate(np.stack(list(images.values()))))


def test_what_is_equal_is_no_difference() -> None:
    assert found(LOGITS) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_must_be_a_number(value: float) -> None:
    assert found(changed(2, value)) == [
        "final: of an example that is white, outputs are not finite, which the checkpoint's are"
    ]


def test_images_whose_answer_is_rounding_are_named() -> None:
    assert ill_conditioned(HARD, SETTINGS) == []
    # allowed are 1e-4 + 1e-3 * 3
    assert ill_conditioned(final(LOGITS, changed(2, 1.003)), SETTINGS) == []
    assert ill_conditioned(final(LOGITS, changed(2, 1.004)), SETTINGS) == ["white"]
    assert ill_conditioned(final(LOGITS, changed(0, np.nan)), SETTINGS) == []  # another check speaks of that


def test_nan_must_be_nan() -> None:
    nan = changed(0, np.nan)
    assert found(nan, final(nan, nan)) == []
    assert found(LOGITS, final(nan, nan)) == [
        "final: of an example that is black, outputs are finite, which the checkpoint's are not"
    ]


@pytest.mark.parametrize(("value", "passes"), [(1.003, True), (1.004, False)])  # allowed: 1e-4 + 1e-3 * 3
def test_the_tolerance_is_that_of_real_images(value: float, passes: bool) -> None:
    assert (found(changed(5, value)) == []) is passes


def test_a_prediction_that_depends_on_a_rounding_does_not_fail_the_export() -> None:
    """The checkpoint answers otherwise itself, or not at all, to a black image a rounding away."""
    assert found(changed(0, 2.0), final(LOGITS, changed(0, 1.5))) == []
    assert found(changed(0, np.nan), final(LOGITS, changed(0, np.nan))) == []
    assert found(changed(0, np.nan), final(LOGITS, changed(0, 1.5))) != []  # a number it is each time
    assert found(changed(1, 2.0), final(LOGITS, changed(0, 1.5))) != []


def test_a_nudge_is_a_few_roundings() -> None:
    inputs = np.float32([[[[1.0, -2.0, 0.0]]]])
    moved = perturbed(Inputs({"input": inputs, "length": np.array([3])}))
    assert moved.arrays["length"].tolist() == [3]
    off = np.abs(moved.arrays["input"] / np.where(inputs == 0, 1, inputs) - (inputs != 0))
    assert off.max() < 1e-6
    assert off[..., :2].min() > 1e-7


def test_lost_is_what_every_way_in_float32_has() -> None:
    one, other = np.zeros((2, 3, 2), np.float32), np.zeros((2, 3, 2), np.float32)
    one[0, 1, 0] = np.nan
    after = np.zeros((2, 3, 2), np.float32)
    after[0, 1, 1] = after[1, 2, 0] = np.inf
    assert lost_finite([one, other], after) == [(1, 2)]
