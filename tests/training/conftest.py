"""A recipe that trains in seconds on one core."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sdcompress import recipes
from sdcompress.schema.recipe import Recipe

SMALL = {
    "data": {"name": "digits", "image_size": 16, "train_limit": 160, "test_limit": 64},
    "model": {"name": "cifar:resnet8", "options": {}},
    "exits": {"auto": 2, "head": "linear", "width_cap": 32},
    "method": "byot",
    "train": {
        "epochs": 2,
        "batch_size": 32,
        "optimizer": {"lr": 0.05},
        "augment": {"crop": 2},
        "accelerator": "cpu",
    },
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def small() -> Callable[..., Recipe]:
    def make(*settings: str) -> Recipe:
        return recipes.read(SMALL, settings)

    return make
