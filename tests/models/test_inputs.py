"""Examples of inputs, and networks that take several."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from networks import pictures
from torch import nn

from sdcompress.errors import RecipeError
from sdcompress.models._feature_layout import tap
from sdcompress.models.build import build
from sdcompress.models.cost import costs
from sdcompress.models.cutpoints import cut_points, named
from sdcompress.models.heads.linear import Linear
from sdcompress.models.inputs import example_inputs, map_size
from sdcompress.models.multiexit import MultiExit
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


def encoder(*, outputs, inputs, width=8):
    assert [tensor.name for tensor in inputs] == ["ids", "mask"]
    return Encoder(outputs[0], width)
"""


def test_floats_are_nothing_integers_hide_nothing_and_varying_axes_have_a_length() -> None:
    ids, mask = example_inputs(TEXT, 3)
    assert ids.dtype == torch.int64
    assert ids.shape == mask.shape
    assert len(ids) == 3
    assert (ids == 1).all()
    assert not mask.any()


def test_only_floats_of_four_axes_are_a_picture() -> None:
    assert map_size(pictures(3, 8, 9)) == (3, 8, 9)
    assert map_size(TEXT) is None
    assert map_size(TEXT[1:]) is None


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
    with pytest.raises(RecipeError, match="takes images") as caught:
        build(Model(name="cifar:resnet8"), Exits(), outputs=(4,), inputs=TEXT)
    assert "ids int64" in caught.value.problem


class Masked(nn.Module):
    """Two layers of tokens, both of which read what is computed of the mask; and one that reads the tokens again."""

    def __init__(self, *, again: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.last = nn.Linear(4, 2)
        self.again = again

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        embedded = self.table(ids)
        seen = (mask * 2.0)[:, :, None]
        tokens = self.second(self.first(embedded) * seen) * seen
        return self.last((tokens + embedded if self.again else tokens).mean(1))


def test_what_is_computed_of_an_input_without_weights_may_be_read_anywhere() -> None:
    example = torch.ones(2, 5, dtype=torch.int64), torch.ones(2, 5)
    assert [point.name for point in cut_points(Masked(), example)] == ["table", "first", "second"]
    # embedded tokens are made with weights: they are no input that any later part may read
    assert [point.name for point in cut_points(Masked(again=True), example)] == ["table"]


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.linear(tokens), None


class OfPairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4)
        self.layers = nn.ModuleList([Pair(), Pair()])
        self.last = nn.Linear(4, 2)

    def forward(self, ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        tokens = self.table(ids)
        for layer in self.layers:
            tokens, _ = layer(tokens)
        return self.last((tokens * attention_mask[:, :, None]).sum(1))


@pytest.mark.parametrize("equilibrium", [False, True])
def test_a_layer_that_returns_a_tuple_has_an_exit_that_is_given_the_mask(*, equilibrium: bool) -> None:
    tensors = tuple(Tensor(name=name, dtype="int64", shape=("batch", "length")) for name in ("ids", "attention_mask"))
    points = cut_points(OfPairs(), example_inputs(tensors))
    assert [point.name for point in points] == ["table", "layers.0", "layers.1"]
    taps = [tap(point, OfPairs(), None, 16) for point in named(points, ("layers.0",))]
    head = Linear((16, 4), (2,), width=4, final_shape=(16, 4), pool="mean")
    net = MultiExit(
        OfPairs(), output_layer="last", taps=taps, heads=[head], deepest=taps[0], mask=1,
        equilibrium=equilibrium,
    )  # fmt: skip
    ids, mask = torch.tensor([[1, 2, 3]]), torch.tensor([[1, 1, 0]])
    seen = net.backbone.layers[0](net.backbone.table(ids[:, :2]))[0]
    assert torch.allclose(net(ids, mask).logits[0], head(seen)[0], atol=1e-6)
    net(ids, mask).logits[1].sum().backward()
    assert net.backbone.table.weight.grad is not None
