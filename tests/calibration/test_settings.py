"""Settings of a recipe and of a call together: what is asked for takes the place of what cannot go with it."""

from __future__ import annotations

import pytest

from sdcompress.calibration.calibrate import merge_settings
from sdcompress.errors import RecipeError
from sdcompress.schema.recipe import Calibrate


def test_an_expectation_takes_the_place_of_a_certificate() -> None:
    found = merge_settings(
        Calibrate(confidence=0.95, extra_drops=(0.02,), group_by="exit", budget_ms=3.0), {"in_expectation": True}
    )
    assert (found.in_expectation, found.confidence, found.extra_drops, found.group_by, found.budget_ms) == (
        *(True, None, (), None, None),
    )


def test_a_certificate_takes_the_place_of_an_expectation() -> None:
    found = merge_settings(Calibrate(in_expectation=True), {"confidence": 0.9})
    assert (found.in_expectation, found.confidence) == (False, 0.9)


def test_without_labels_there_are_no_classes_to_certify() -> None:
    found = merge_settings(Calibrate(confidence=0.95, group_by="stratum"), {"unlabelled": True})
    assert (found.unlabelled, found.group_by, found.confidence) == (True, None, 0.95)


def test_what_is_asked_for_together_and_does_not_go_together_is_refused() -> None:
    with pytest.raises(RecipeError):
        merge_settings(Calibrate(), {"in_expectation": True, "confidence": 0.95})


def test_what_is_not_given_stays_as_the_recipe_has_it() -> None:
    found = merge_settings(Calibrate(confidence=0.95, max_drop=0.02, policy="margin"), {"max_drop": 0.03})
    assert (found.confidence, found.max_drop, found.policy) == (0.95, 0.03, "margin")
