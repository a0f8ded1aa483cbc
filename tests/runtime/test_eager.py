"""The yardstick: torch behind the same calls."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import pictures
from torch import nn

from sdcompress.checkpoint import open_checkpoint
from sdcompress.errors import CheckpointError, InputError, SetupError
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image
from sdcompress.models.cost import costs
from sdcompress.runtime.engine import Engine
from sdcompress.runtime.open import open_engine
from sdcompress.schema.manifest import RegistryEntry
from sdcompress.schema.recipe import Exits, Recipe
from sdcompress.training.save import Resumable, save

IMAGE = (1, 8, 8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained, three exits, four classes."""
    from sdcompress.models.build import build

    recipe = Recipe(exits=Exits(count=2, head="linear"))
    torch.manual_seed(0)
    net = build(recipe.model, recipe.exits, outputs=(4,), inputs=pictures(*IMAGE))
    facts = {
        "schema_version": 2,
        "recipe": recipe,
        "epoch": 1,
        "step": 1,
        "finished": True,
        "samples": 10,
        "task": RegistryEntry(name="classification"),
        "outputs": ("a", "b", "c", "d"),
        "data_fingerprint": "0" * 64,
    }
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    modality = Image.of(Preprocess(channels=1, resize=IMAGE[1:], mean=(0.5,), std=(0.25,)))
    resumable = Resumable(net, nn.Module(), optimizer, None, None, {})
    return save(tmp_path_factory.mktemp("train"), resumable, modality, **facts)


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> Engine:
    return open_engine(checkpoint, backend="eager")


def inputs_of(batch: int) -> np.ndarray:
    return np.random.default_rng(batch).normal(size=(batch, *IMAGE)).astype(np.float32)


def test_every_exit_is_the_networks(checkpoint: Path, engine: Engine) -> None:
    inputs = inputs_of(5)
    with torch.no_grad():
        expected = [logits.numpy() for logits in open_checkpoint(checkpoint).network()(torch.from_numpy(inputs)).logits]
    np.testing.assert_allclose(engine.exits(inputs), expected, atol=1e-6)
    for position in range(3):
        found = engine.forced(inputs, position)
        np.testing.assert_allclose(found.outputs, expected[position], atol=1e-6)
        assert found.exit_index.tolist() == [position] * 5
    np.testing.assert_allclose(engine(inputs).outputs, expected[-1], atol=1e-6)
    assert engine(inputs).exit_index.tolist() == [2] * 5
    assert engine.forced(inputs, -1).exit_index.tolist() == [2] * 5


def test_the_facts(engine: Engine) -> None:
    assert engine.exit_names == ("exit1", "exit2", "final")
    assert engine.task.outputs == ("a", "b", "c", "d")
    assert engine.modality.shape == IMAGE
    assert engine.policy is None
    images = np.full((2, 20, 30, 3), 51, np.uint8)
    np.testing.assert_allclose(engine.preprocess(images), np.full((2, *IMAGE), -1.2), rtol=1e-5)


def test_the_costs_are_those_of_the_truncated_networks(checkpoint: Path, engine: Engine) -> None:
    expected = costs(open_checkpoint(checkpoint).network(), pictures(*IMAGE))
    assert [tuple(cost) for cost in engine.exit_costs] == [(cost.macs, cost.parameters) for cost in expected]


def test_a_batch_of_nothing(engine: Engine) -> None:
    nothing = np.empty((0, *IMAGE), np.float32)
    assert engine(nothing).outputs.shape == (0, 4)
    assert engine.exits(nothing).shape == (3, 0, 4)


def test_a_network_that_cannot_run_on_nothing_is_not_asked(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(images: torch.Tensor) -> None:
        images.reshape(len(images), -1)  # of no images nothing says what -1 is

    monkeypatch.setattr(engine._network, "forward", forward)
    assert engine.exits(inputs_of(0)).shape == (3, 0, 4)
    assert len(engine(inputs_of(0)).decision) == 0


def test_four_threads_at_once(engine: Engine) -> None:
    batches = [inputs_of(1 + position % 7) for position in range(40)]
    expected = [engine.exits(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(pool.map(engine.exits, batches), expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_read_only_inputs(engine: Engine) -> None:
    inputs = inputs_of(2)
    expected = engine(inputs).outputs
    inputs.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of memory that it could write to
        np.testing.assert_array_equal(engine(inputs).outputs, expected)


def test_what_it_refuses(checkpoint: Path, engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\[B, 1, 8, 8\]"):
        engine(np.zeros((2, 3, 8, 8), np.float32))
    with pytest.raises(CheckpointError, match="no checkpoint"):
        open_engine(tmp_path, backend="eager")
    with pytest.raises(SetupError, match="cpu"):
        open_engine(checkpoint, backend="eager", device="tpu")
