"""A tiny network of three exits, its ONNX graph, and a checkpoint of a small real network on real digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from meaning import image_modality
from torch import Tensor, nn

from sdcompress import data
from sdcompress.exporting.graph import export_all_exits
from sdcompress.modalities._image_preprocess import normalise
from sdcompress.models.build import build
from sdcompress.schema.recipe import Exits, Recipe
from sdcompress.training.save import Resumable, save

NAMES = ("exit1", "exit2", "final")
LOGITS = tuple(f"{name}_outputs" for name in NAMES)
IMAGE = (3, 8, 8)


class Tiny(nn.Module):
    """Two convolutions and a transposed one, a linear head on each; weights drawn from a fixed seed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2)
        self.third = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.heads = nn.ModuleList([nn.Linear(width, 5) for width in (4, 8, 6)])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = [self.first(images).relu()]
        maps.append(self.second(maps[-1]).relu())
        maps.append(self.third(maps[-1]).relu())
        return tuple(head(made.mean((2, 3))) for head, made in zip(self.heads, maps, strict=True))


@pytest.fixture(scope="session")
def tiny() -> nn.Module:
    return Tiny().eval()


@pytest.fixture(scope="session")
def model(tiny: nn.Module) -> onnx.ModelProto:
    return export_all_exits(tiny, NAMES, image_modality(IMAGE))


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, *IMAGE)).astype(np.float32)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained, but with the statistics of batch norm taken from real digits."""
    recipe = Recipe(name="tiny", exits=Exits(count=2, head="linear"))
    dataset = data.load(recipe.data, seed=recipe.seed, modality=recipe.modality)
    torch.manual_seed(0)
    net = build(recipe.model, recipe.exits, outputs=dataset.task.output_shape, inputs=dataset.modality.tensors).train()
    with torch.no_grad():
        net(torch.from_numpy(normalise(dataset.train.examples(np.arange(256)), dataset.modality.preprocess)))
    facts = {
        "schema_version": 2,
        "recipe": recipe,
        "epoch": 0,
        "step": 1,
        "finished": True,
        "samples": len(dataset.train),
        "task": dataset.task.record,
        "outputs": dataset.outputs,
        "data_fingerprint": dataset.fingerprint,
    }
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    resumable = Resumable(net, nn.Module(), optimizer, None, None, {})
    return save(tmp_path_factory.mktemp("train"), resumable, dataset.modality, **facts)
