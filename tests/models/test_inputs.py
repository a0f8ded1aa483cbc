"""Examples of inputs, and networks that take several."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from networks import pictures

from sdcompress.errors import RecipeError
from sdcompress.models.build import build
from sdcompress.models.cost import costs
from sdcompress.models.inputs import example_inputs, picture_size
from sdcompress.schema.graphs import Tensor
from sdcompress.schema.recipe import Exits, Model

TEXT = (
    Tensor(name="ids", dtype="int64", shape=("batch", "length")),
    Tensor(name="mask", dtype="float32", shape=("batch", "length")),
)
ENCODER = """
from torch import nn


class Encoder(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.table = nn.Embedding(7, width)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.GELU()) for _ in range(3))
        self.last = nn.Linear(width, classes)

    def forward(self, ids, mask):
        tokens = self.table(ids) + mask[:, :, None]
        for block in self.blocks:
            tokens = block(tokens)
        return self.last(tokens.mean(1))


def encoder(*, classes, inputs, width=8):
    assert [tensor.name for tensor in inputs] == ["ids", "mask"]
    return Encoder(classes, width)
"""


def test_floats_are_nothing_integers_hide_nothing_and_varying_axes_have_a_length() -> None:
    ids, mask = example_inputs(TEXT, 3)
    assert ids.dtype == torch.int64
    assert ids.shape == mask.shape
    assert len(ids) == 3
    assert (ids == 1).all()
    assert not mask.any()


def test_only_floats_of_four_axes_are_a_picture() -> None:
    assert picture_size(pictures(3, 8, 9)) == (3, 8, 9)
    assert picture_size(TEXT) is None
    assert picture_size(TEXT[1:]) is None


def test_a_network_of_two_inputs_gets_exits_on_its_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_text.py").write_text(ENCODER)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        net = build(
            Model(name="my_text:encoder"), Exits(modules=("blocks.0",), head="linear"), outputs=(4,), inputs=TEXT
        ).eval()
    finally:
        sys.modules.pop("my_text", None)
    outputs = net(torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.ones(2, 3))
    assert [tuple(z.shape) for z in outputs.logits] == [(2, 4), (2, 4)]
    assert net.taps == ("blocks.0",)
    assert net.map_shapes[0] == (16, 8)
    # 16 tokens through a block of 8 x 8, and a linear layer of 8 x 4
    assert [cost.macs for cost in costs(net, TEXT)] == [16 * 64 + 32, 3 * 16 * 64 + 32]


def test_a_family_of_pictures_is_refused_for_other_inputs() -> None:
    with pytest.raises(RecipeError, match="takes pictures") as caught:
        build(Model(name="cifar:resnet8"), Exits(), outputs=(4,), inputs=TEXT)
    assert "ids int64" in caught.value.problem
