"""The perceptron of tables: its inputs, the places of its exits, and unknown categories."""

from __future__ import annotations

import pytest
import torch

from sdcompress.errors import RecipeError
from sdcompress.models.backbones.mlp import mlp
from sdcompress.models.build import build
from sdcompress.schema import recipe
from sdcompress.schema.graphs import Tensor

NUMBERS = Tensor(name="numbers", dtype="float32", shape=("batch", 3))
CATEGORIES = Tensor(name="categories", dtype="int64", shape=("batch", 2), below=7)


@pytest.mark.parametrize("inputs", [(NUMBERS, CATEGORIES), (NUMBERS,), (CATEGORIES,)])
def test_an_exit_stands_behind_any_layer(inputs: tuple[Tensor, ...]) -> None:
    model, exits = recipe.Model(name="mlp:4x8"), recipe.Exits(count=3, head="linear")
    network = build(model, exits, outputs=(2,), inputs=inputs).eval()
    assert network.taps == ("layers.0", "layers.1", "layers.2")
    given = {"numbers": torch.zeros(5, 3), "categories": torch.ones(5, 2, dtype=torch.int64)}
    outputs = network(*(given[tensor.name] for tensor in inputs)).logits
    assert [tuple(each.shape) for each in outputs] == [(5, 2)] * 4


def test_a_category_that_was_never_trained_adds_nothing() -> None:
    network = mlp("1x4", outputs=(2,), inputs=(NUMBERS, CATEGORIES), pretrained=False).eval()
    numbers = torch.randn(2, 3)
    plain, other = (network(numbers, torch.full((2, 2), index)) for index in (0, 6))
    assert torch.equal(plain, other)


@pytest.mark.parametrize(
    ("name", "inputs", "why"),
    [
        ("wide", (NUMBERS,), "no such network: 'mlp:wide'"),
        ("2x8", (CATEGORIES.model_copy(update={"below": None}),), "cannot take categories int64"),
        ("2x8", (NUMBERS.model_copy(update={"shape": ("batch", "sequence")}),), "cannot take numbers"),
    ],
)
def test_what_it_cannot_be_or_take_is_refused(name: str, inputs: tuple[Tensor, ...], why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        mlp(name, outputs=(2,), inputs=inputs, pretrained=False)
