"""Tables: a perceptron of residual layers with embeddings of categories, 'mlp:4x128' for 4 layers of width 128.

    h = W numbers + sum of the embeddings of the categories
    h = h + Dropout(ReLU(W_i norm(h)))      for each layer
    outputs = W norm(h)

It is the ResNet of "Revisiting Deep Learning Models for Tabular Data" (Gorishniy et al., NeurIPS 2021, arXiv
2106.11959) with layer norm in the place of batch norm and one matrix in each block, so that an exit can stand behind
each. The state is one token [B, 1, width], which every head for tokens can read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sdcompress.errors import RecipeError
from sdcompress.schema import graphs

__all__ = ["mlp"]

_NAME = re.compile(r"([1-9]\d{0,2})x([1-9]\d{0,4})")


def mlp(
    name: str, *, outputs: tuple[int, ...], inputs: Sequence[graphs.Tensor], pretrained: bool, dropout: float = 0.0
) -> nn.Module:
    """Return a perceptron with K outputs.

    Args:
        name: LAYERSxWIDTH.
        outputs: (K,).
        inputs: float [B, n], integers [B, m] below ``Tensor.below``, or one of each.
        pretrained: must be False.
        dropout: share of a layer's values that is dropped in training.

    Raises:
        RecipeError: if the name, the dropout or the inputs are others, or pretrained is set.
    """
    match = _NAME.fullmatch(name)
    if match is None or pretrained or not 0 <= dropout < 1:
        problem = "'mlp' has no published weights" if pretrained else f"'mlp:{name}' with dropout {dropout!r}"
        raise RecipeError(
            f"There is no such network: {problem}.",
            allowed="mlp:LAYERSxWIDTH, dropout from 0 to below 1",
            next_step="write for instance 'mlp:4x128'",
        )
    if any(len(tensor.shape) != 2 or not _usable(tensor) for tensor in inputs):
        shapes = ", ".join(f"{tensor.name} {tensor.dtype} {list(tensor.shape)}" for tensor in inputs)
        raise RecipeError(
            f"The backbone 'mlp:{name}' cannot take {shapes}.",
            allowed="numbers, float [batch, n], and indices below a bound, int [batch, m], as tables have them",
            next_step="choose another backbone in model.name, or a data set of tables",
        )
    return _Mlp(inputs, layers=int(match[1]), width=int(match[2]), outputs=outputs[0], dropout=dropout)


def _usable(tensor: graphs.Tensor) -> bool:
    return isinstance(tensor.shape[1], int) and (tensor.dtype == "float32" or tensor.below is not None)


class _Mlp(nn.Module):
    def __init__(
        self, inputs: Sequence[graphs.Tensor], *, layers: int, width: int, outputs: int, dropout: float
    ) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(_input(tensor, width) for tensor in inputs)
        self.layers = nn.ModuleList(_Layer(width, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, first: Tensor, second: Tensor | None = None) -> Tensor:
        given = (first,) if second is None else (first, second)
        state: Tensor = torch.stack([layer(values) for layer, values in zip(self.inputs, given, strict=True)]).sum(0)
        for layer in self.layers:
            state = layer(state)
        outputs: Tensor = self.head(self.norm(state).squeeze(1))
        return outputs


class _Layer(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.linear, self.dropout = nn.LayerNorm(width), nn.Linear(width, width), nn.Dropout(dropout)

    def forward(self, state: Tensor) -> Tensor:
        added: Tensor = state + self.dropout(self.linear(self.norm(state)).relu())
        return added


class _Numbers(nn.Linear):
    """[B, n] to one token [B, 1, width]."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return super().forward(input).unsqueeze(1)


class _Categories(nn.Embedding):
    """The sum of the embeddings of [B, m] as one token [B, 1, width]; they begin at 0, where unknown ones stay."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return super().forward(input).sum(1, keepdim=True)


def _input(tensor: graphs.Tensor, width: int) -> nn.Module:
    size = int(tensor.shape[1])
    return _Numbers(size, width) if tensor.below is None else _Categories(tensor.below, width)
