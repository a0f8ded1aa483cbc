"""A small network with three exits, one behind a gate and one narrower than the backbone, and its batches."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from sdcompress.methods._base import Context
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch

CLASSES = 5
SAMPLES = 32
WIDTHS = (6, 8, 8)
MAPS = ((4, 8, 8), (6, 4, 4), (8, 2, 2))


class Gated(nn.Module):
    """Two heads, the shallower behind an attention gate, and the backbone's classifier; no batch statistics."""

    def __init__(self, *, exits: bool) -> None:
        super().__init__()
        channels = [1] + [shape[0] for shape in MAPS]
        self.stages = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=1 if i == 0 else 2, padding=1) for i, (a, b) in enumerate(pairwise(channels))
        )
        self.classifiers = nn.ModuleList(nn.Linear(width, CLASSES) for width in (WIDTHS if exits else WIDTHS[-1:]))
        self.gate = nn.Conv2d(4, 4, 1) if exits else None
        self.heads = nn.ModuleList(nn.Linear(MAPS[i][0], WIDTHS[i]) for i in range(2)) if exits else None

    def forward(self, images: Tensor) -> Outputs:
        maps = []
        for stage in self.stages:
            images = stage(images).relu()
            maps.append(images)
        features = [maps[-1].mean((2, 3))]
        if self.heads is None or self.gate is None:
            return Outputs((self.classifiers[0](features[0]),), tuple(features), (maps[-1],))
        gated = [maps[0] * self.gate(maps[0]).sigmoid(), maps[1]]
        features = [head(m.mean((2, 3))).relu() for head, m in zip(self.heads, gated, strict=True)] + features
        logits = [classify(feature) for classify, feature in zip(self.classifiers, features, strict=True)]
        return Outputs(tuple(logits), tuple(features), tuple(maps))


@pytest.fixture
def network() -> Callable[..., Gated]:
    """Make the network, with the same weights each time."""

    def make(*, exits: bool = True) -> Gated:
        torch.manual_seed(0)
        return Gated(exits=exits)

    return make


@pytest.fixture
def context() -> Callable[..., Context]:
    """Make what a state is sized by."""

    def make(*, exits: bool = True) -> Context:
        return Context(SAMPLES, CLASSES, WIDTHS, MAPS) if exits else Context(SAMPLES, CLASSES, WIDTHS[-1:], MAPS[-1:])

    return make


@pytest.fixture
def batch() -> Callable[..., Batch]:
    """Make a batch of the samples ``start`` to ``start + size``."""

    def make(size: int = 8, *, start: int = 0, epoch: int = 0, progress: float = 0.5) -> Batch:
        random = torch.Generator().manual_seed(start)
        images = torch.randn(size, 1, 8, 8, generator=random)
        labels = torch.randint(CLASSES, (size,), generator=random)
        return Batch(images, labels, torch.arange(start, start + size), epoch=epoch, progress=progress)

    return make
