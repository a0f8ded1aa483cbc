"""Labels as distributions."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcompress.objectives.batch import Batch, Mix
from sdcompress.objectives.labels import label_losses, targets


def _batch(labels: list[int], smoothing: float = 0.0, mix: Mix | None = None) -> Batch:
    n = len(labels)
    return Batch(torch.zeros(n, 1, 2, 2), torch.tensor(labels), torch.arange(n), smoothing=smoothing, mix=mix)


def test_a_smoothed_label_by_hand() -> None:
    # 0.8 * [0, 1, 0, 0] + 0.2 / 4
    torch.testing.assert_close(targets(_batch([1], smoothing=0.2), 4), torch.tensor([[0.05, 0.85, 0.05, 0.05]]))


def test_a_mixed_and_smoothed_label_by_hand() -> None:
    mix = Mix(torch.tensor([2]), torch.tensor([0.7]), torch.tensor([0]))
    torch.testing.assert_close(targets(_batch([0], mix=mix), 4), torch.tensor([[0.7, 0.0, 0.3, 0.0]]))
    torch.testing.assert_close(targets(_batch([0], 0.2, mix), 4), torch.tensor([[0.61, 0.05, 0.29, 0.05]]))


def test_a_mix_that_keeps_the_whole_image_is_no_mix() -> None:
    mix = Mix(torch.tensor([1, 0]), torch.ones(2), torch.tensor([1, 0]))
    assert torch.equal(targets(_batch([0, 2], 0.1, mix), 3), targets(_batch([0, 2], 0.1), 3))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1), st.integers(2, 20))
def test_cross_entropy_with_targets_is_torchs_smoothed_and_mixed_one(seed: int, smoothing: float, classes: int) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, classes, generator=random)
    own, other = torch.randint(classes, (2, 5), generator=random)
    weight = torch.rand(5, generator=random)
    ours = F.cross_entropy(
        logits, targets(_batch(own.tolist(), smoothing, Mix(other, weight, torch.arange(5))), classes)
    )
    parts = [F.cross_entropy(logits, y, label_smoothing=smoothing, reduction="none") for y in (own, other)]
    torch.testing.assert_close(ours, (weight * parts[0] + (1 - weight) * parts[1]).mean())


def test_class_weights_are_those_of_torchs_cross_entropy() -> None:
    logits, weights = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5, 1.0, 2.0, 7.0])
    labels = [0, 3, 3, 1, 2]
    for smoothing in (0.0, 0.1):
        plain = _batch(labels, smoothing=smoothing)
        expected = F.cross_entropy(logits, targets(plain, 4), weight=weights)
        weighed = replace(plain, class_weights=weights)
        torch.testing.assert_close(F.cross_entropy(logits, targets(weighed, 4)), expected)
        (found,) = label_losses([logits], weighed)
        torch.testing.assert_close(found, expected)
    # of hard labels: the mean of each image's loss times the weight of its class
    by_hand = (F.cross_entropy(logits, torch.tensor(labels), reduction="none") * weights[labels]).mean()
    torch.testing.assert_close(
        F.cross_entropy(logits, targets(replace(_batch(labels), class_weights=weights), 4)), by_hand
    )
