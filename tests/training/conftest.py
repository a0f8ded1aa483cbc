"""A recipe that trains in seconds on one core."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sdcompress import recipes
from sdcompress.schema.recipe import Recipe

SMALL = {
    "modality": {"image_size": 16},
    "data": {"name": "digits", "train_limit": 160, "test_limit": 64},
    "model": {"name": "cifar:resnet8", "options": {}},
    "exits": {"count": 2, "head": "linear", "width_cap": 32},
    "method": "byot",
    "train": {
        "epochs": 2,
        "batch_size": 32,
        "optimizer": {"lr": 0.05},
        "augment": {"crop": 2},
        "device": "cpu",
    },
}

# without batch norms, whose statistics are of each process's own images
NETS = """
import torch
from torch import nn

def plain(outputs, inputs):
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(inputs[0].shape[1], 8, 3, stride=2, padding=1), nn.GroupNorm(2, 8), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.GroupNorm(2, 16), nn.ReLU()),
        nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.GroupNorm(2, 16), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, outputs[0]),
    )

class Odd(nn.Module):
    # blocks that share a weight or whose outputs are views that are changed in place, or a layer that nothing uses,
    # or more memory for a step on more than 16 images than there is
    def __init__(self, outputs, inputs, tied=False, views=False, unused=False, large=False):
        super().__init__()
        self.views, self.large = views, large
        self.stem = nn.Conv2d(inputs[0].shape[1], 8, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Flatten(2)) for _ in range(2)
        )
        if tied:
            self.blocks[1][0].weight = self.blocks[0][0].weight
        self.fc = nn.Linear(8, outputs[0])
        if unused:
            self.projection = nn.Linear(8, 4)

    def forward(self, images):
        x = self.stem(images)
        for block in self.blocks:
            y = block(x)
            if self.views:
                y += 0.1
            if self.large and self.training and len(images) > 16:
                y += torch.zeros(2**50)
            x = y.relu().view(x.shape)
        return self.fc(x.mean((2, 3)))
"""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small() -> Callable[..., Recipe]:
    def make(*settings: str) -> Recipe:
        return recipes.read(SMALL, settings)

    return make


@pytest.fixture(scope="session")
def torchrun(nets_folder: Path) -> Callable[..., str]:
    """Runs a program in two processes and returns what they print: ``torchrun(program, *arguments)``."""

    def run(program: Path, *arguments: Path) -> str:
        beside = [str(program.parent), str(nets_folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        done = subprocess.run(
            [*launch, str(program), *map(str, arguments)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(beside)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    return run


@pytest.fixture(scope="session")
def nets_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ``nets.py``, which programs of ``torchrun`` can import."""
    folder = tmp_path_factory.mktemp("nets")
    (folder / "nets.py").write_text(NETS)
    return folder


@pytest.fixture
def nets(nets_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backbones ``nets:plain`` and ``nets:Odd`` for recipes."""
    monkeypatch.syspath_prepend(nets_folder)
