"""A small network with three exits, one behind a gate and one narrower than the backbone, and its batches."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from steps import classes
from torch import Tensor, nn

from sdcompress.methods._base import Context, Method
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch, Minibatch, Mix
from sdcompress.tasks import Task
from sdcompress.training.schedule import Clock
from sdcompress.training.step import TrainingStep

CLASSES = 5
SAMPLES = 32
WIDTHS = (6, 8, 8)
MAPS = ((4, 8, 8), (6, 4, 4), (8, 2, 2))


class Gated(nn.Module):
    """Two heads, the shallower behind an attention gate, and the backbone's classifier; no batch statistics."""

    def __init__(self, *, exits: bool, maps: bool = False) -> None:
        super().__init__()
        self.maps = maps
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
            seen = tuple(maps) if self.maps else (maps[-1],)
            return Outputs((self.classifiers[0](features[0]),), tuple(features), seen)
        gated = [maps[0] * self.gate(maps[0]).sigmoid(), maps[1]]
        features = [head(m.mean((2, 3))).relu() for head, m in zip(self.heads, gated, strict=True)] + features
        logits = [classify(feature) for classify, feature in zip(self.classifiers, features, strict=True)]
        return Outputs(tuple(logits), tuple(features), tuple(maps))


class Case:
    """A method with all that it learns with, run by the training step itself.

    Attributes:
        net: the network, with the same weights each time.
        state: what the method built.
        phases: how many it has.
    """

    def __init__(self, method: Method, smoothing: float = 0.0, task: Task | None = None) -> None:
        needs, task = method.needs, task or classes(CLASSES)
        torch.manual_seed(0)
        self.net = Gated(exits=needs.exits, maps=needs.maps)
        maps = MAPS if needs.exits or needs.maps else MAPS[-1:]
        widths = WIDTHS if needs.exits else WIDTHS[-1:]
        self.state = method.state(Context(SAMPLES, SAMPLES, task, widths, maps))
        self.phases, self._view = len(method.phases), needs.view
        teacher = Gated(exits=needs.exits, maps=needs.maps).eval().requires_grad_(requires_grad=False)
        taught = needs.average > 0 or needs.teacher or any(phase.restart for phase in method.phases)
        self.step = TrainingStep(
            self.net, method, self.state, task=task, smoothing=smoothing, teacher=teacher if taught else None
        )

    def __call__(self, batch: Batch, phase: int | None = None) -> dict[str, Tensor]:
        """The terms of a batch, by default in the last phase."""
        number = self.phases - 1 if phase is None else phase
        own = batch.samples
        return self.step(own, self.second(own), Clock(batch.step, batch.epoch, batch.progress, number))

    def loss(self, batch: Batch, phase: int | None = None) -> Tensor:
        """The sum of the terms."""
        return torch.stack(list(self(batch, phase).values())).sum()

    def second(self, own: Minibatch) -> Minibatch | None:
        """The further view of a minibatch, where the method has one."""
        view, (images,) = self._view, own.inputs
        if view is None:
            return None
        if view.mixed:  # each with its neighbour, so that halves of a batch are mixed as the whole is
            partner = torch.arange(len(images)) ^ 1
            weight = torch.full((len(images),), 0.3)
            mixed = 0.3 * images + 0.7 * images[partner]
            return own._replace(inputs=(mixed,), mix=Mix(own.targets[partner], weight, partner))
        if view.samples == "same":
            return own._replace(inputs=(images + 0.1 * images.roll(1, dims=3),))
        others = own._replace(inputs=(images.flip(2),), positions=(own.positions + SAMPLES // 2) % SAMPLES)
        targets = (own.targets + 1) % CLASSES if own.targets.dim() == 1 else 1 - own.targets
        return others._replace(targets=targets) if view.samples == "previous" else others


@pytest.fixture
def case() -> Callable[..., Case]:
    """Make a method's case."""
    return Case


@pytest.fixture
def batch() -> Callable[..., Batch]:
    """Make a batch of the samples ``start`` to ``start + size``."""

    def make(size: int = 8, *, start: int = 0, epoch: int = 0, progress: float = 0.5) -> Batch:
        random = torch.Generator().manual_seed(start)
        images = torch.randn(size, 1, 8, 8, generator=random)
        labels = torch.randint(CLASSES, (size,), generator=random)
        samples = Minibatch((images,), labels, torch.arange(start, start + size))
        return Batch(samples, classes(CLASSES), epoch=epoch, progress=progress)

    return make
