"""MixSKD's interpolation by hand, and whom it teaches."""

from __future__ import annotations

import math

import pytest
import torch
from steps import samples_of, step_of
from torch import Tensor, nn

from sdcompress.methods.mixskd import MixSkd
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Mix, SecondView

LABELS, PARTNER = torch.tensor([0, 1]), torch.tensor([1, 0])
MIX = Mix(LABELS[PARTNER], torch.tensor([0.75, 0.75]), PARTNER)


def _terms(plain: tuple[Tensor, ...], mixed: tuple[Tensor, ...], **parameters: float) -> dict[str, Tensor]:
    second = SecondView(Outputs(mixed, mixed, mixed), samples_of(LABELS, mix=MIX))
    step = step_of(LABELS, second=second)
    return MixSkd(**parameters)(Outputs(plain, plain, plain), step, nn.Module())


def test_by_hand_for_one_exit() -> None:
    # logits (4, 0) and (0, 0) mix to (3, 0) and (1, 0); at T = 2 to probabilities of 1.5 and 0.5
    plain, mixed = torch.tensor([[4.0, 0.0], [0.0, 0.0]]), torch.zeros(2, 2)
    terms = _terms((plain,), (mixed,), kd_weight=0.5, temperature=2.0)
    assert terms["ce"].item() == pytest.approx((math.log1p(math.exp(-4)) + math.log(2)) / 2, rel=1e-5)
    assert terms["mixed"].item() == pytest.approx(math.log(2), rel=1e-5)

    def both_ways(p: float) -> float:
        there = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
        return there + 0.5 * math.log(0.5 / p) + 0.5 * math.log(0.5 / (1 - p))

    shares = [1 / (1 + math.exp(-logit)) for logit in (1.5, 0.5)]
    assert terms["kd"].item() == pytest.approx(0.5 * 4 * sum(map(both_ways, shares)) / 2, rel=1e-5)


def test_a_mixed_label_is_a_mixture() -> None:
    sure = torch.tensor([[0.9, 0.1], [0.9, 0.1]]).log()
    terms = _terms((sure,), (sure,))
    of_first = -0.75 * math.log(0.9) - 0.25 * math.log(0.1)
    of_second = -0.75 * math.log(0.1) - 0.25 * math.log(0.9)
    assert terms["mixed"].item() == pytest.approx((of_first + of_second) / 2, rel=1e-5)


def test_both_sides_learn_at_every_exit_each_as_if_the_other_were_fixed() -> None:
    plain, mixed = (tuple(torch.randn(2, 2, requires_grad=True) for _ in range(2)) for _ in range(2))
    _terms(plain, mixed, temperature=1.0)["kd"].backward()
    for z, m in zip(plain, mixed, strict=True):
        mixture = 0.75 * z.detach() + 0.25 * z.detach()[PARTNER]
        gap = m.detach().softmax(1) - mixture.softmax(1)
        torch.testing.assert_close(m.grad, gap / 2)
        torch.testing.assert_close(z.grad, -(0.75 * gap + 0.25 * gap[PARTNER]) / 2)


def test_the_images_of_the_step_are_mixed_with_its_alpha() -> None:
    view = MixSkd(alpha=0.7).needs.view
    assert view is not None
    assert (view.mixed, view.augmented) == (0.7, False)
