"""Targets as the supervised loss takes them, and that loss."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from steps import step_of

from sdcompress.objectives.batch import Mix
from sdcompress.objectives.supervised import encoded_targets, supervised_loss, supervised_losses


def test_a_smoothed_label_by_hand() -> None:
    # 0.8 * [0, 1, 0, 0] + 0.2 / 4
    encoded = encoded_targets(step_of([1], count=4, smoothing=0.2))
    torch.testing.assert_close(encoded, torch.tensor([[0.05, 0.85, 0.05, 0.05]]))


def test_a_mixed_and_smoothed_label_by_hand() -> None:
    mix = Mix(torch.tensor([2]), torch.tensor([0.7]), torch.tensor([0]))
    encoded = encoded_targets(step_of([0], count=4, mix=mix))
    torch.testing.assert_close(encoded, torch.tensor([[0.7, 0.0, 0.3, 0.0]]))
    encoded = encoded_targets(step_of([0], count=4, smoothing=0.2, mix=mix))
    torch.testing.assert_close(encoded, torch.tensor([[0.61, 0.05, 0.29, 0.05]]))


def test_a_mix_that_keeps_the_whole_image_is_no_mix() -> None:
    mix = Mix(torch.tensor([1, 0]), torch.ones(2), torch.tensor([1, 0]))
    plain = step_of([0, 2], count=3, smoothing=0.1)
    mixed = step_of([0, 2], count=3, smoothing=0.1, mix=mix)
    assert torch.equal(encoded_targets(mixed), encoded_targets(plain))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1), st.integers(2, 20))
def test_cross_entropy_with_targets_is_torchs_smoothed_and_mixed_one(seed: int, smoothing: float, classes: int) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, classes, generator=random)
    own, other = torch.randint(classes, (2, 5), generator=random)
    weight = torch.rand(5, generator=random)
    mix = Mix(other, weight, torch.arange(5))
    ours = supervised_loss(logits, step_of(own, count=classes, smoothing=smoothing, mix=mix))
    parts = [F.cross_entropy(logits, y, label_smoothing=smoothing, reduction="none") for y in (own, other)]
    torch.testing.assert_close(ours, (weight * parts[0] + (1 - weight) * parts[1]).mean())


def test_class_weights_are_those_of_torchs_cross_entropy() -> None:
    logits, weights = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5, 1.0, 2.0, 7.0])
    labels = [0, 3, 3, 1, 2]
    for smoothing in (0.0, 0.1):
        plain = step_of(labels, count=4, smoothing=smoothing)
        expected = F.cross_entropy(logits, encoded_targets(plain), weight=weights)
        weighed = replace(plain, class_weights=weights)
        torch.testing.assert_close(supervised_loss(logits, weighed), expected)
        (found,) = supervised_losses([logits], weighed)
        torch.testing.assert_close(found, expected)
    # of hard labels: the mean of each image's loss times the weight of its class
    by_hand = (F.cross_entropy(logits, torch.tensor(labels), reduction="none") * weights[labels]).mean()
    torch.testing.assert_close(supervised_loss(logits, step_of(labels, count=4, class_weights=weights)), by_hand)
