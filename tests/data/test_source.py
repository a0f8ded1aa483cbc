from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sdcompress.data import source as module
from sdcompress.data.source import array_source, data_folder
from sdcompress.schema.manifest import Preprocess
from sdcompress.schema.recipe import Data

CORNERS = np.array([[0, 200], [40, 80]], np.uint8).reshape(1, 2, 2, 1)


def test_images_are_brought_to_the_geometry() -> None:
    preprocess = Preprocess(channels=1, resize=(4, 4), interpolation="nearest", mean=(0.5,), std=(0.5,))
    source = array_source(("a", "b"), preprocess, (CORNERS, np.zeros(1, np.int64)))
    expected = np.repeat(np.repeat(CORNERS, 2, axis=1), 2, axis=2)
    assert np.array_equal(source.train.images(np.array([0])), expected)


def test_a_set_that_is_large_when_resized_gives_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 256, (6, 5, 5, 3), np.uint8), np.arange(6)
    preprocess = Preprocess(channels=3, resize=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    in_memory = array_source(("a", "b"), preprocess, arrays)
    monkeypatch.setattr(module, "_IN_MEMORY", 6 * 8 * 8 * 3 - 1)
    when_asked = array_source(("a", "b"), preprocess, arrays)
    assert type(in_memory.train) is not type(when_asked.train)
    which = np.array([4, 0, 5])
    assert np.array_equal(in_memory.train.images(which), when_asked.train.images(which))
    assert np.array_equal(in_memory.train.labels, when_asked.train.labels)
    assert len(when_asked.train) == 6


def test_the_folder_is_the_recipes_then_the_environments_then_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDCOMPRESS_DATA", "/from/environment")
    assert data_folder(Data(dir="/from/recipe")) == Path("/from/recipe")
    assert data_folder(Data()) == Path("/from/environment")
    monkeypatch.delenv("SDCOMPRESS_DATA")
    assert data_folder(Data()) == Path("data")
