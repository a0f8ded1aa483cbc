"""The reference is held-out data only: validation first, then test."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sdcompress.data.samples import ArraySamples, Dataset
from sdcompress.errors import DataError
from sdcompress.exporting.checkpoint_outputs import reference
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image
from sdcompress.tasks.classification import Classification


class Brightness(nn.Module):
    """Class 1 if the image is bright; the second exit says the opposite."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        bright = images.mean((1, 2, 3))
        logits = torch.stack([0.5 - bright, bright - 0.5], 1)
        return logits, -logits


def samples(first: int, count: int) -> ArraySamples:
    """Images of one grey level each, first, first + 1, ...; label 1 from level 128 on."""
    levels = np.arange(first, first + count)
    images = np.broadcast_to(levels[:, None, None, None], (count, 2, 2, 1)).astype(np.uint8)
    return ArraySamples(images, (levels >= 128).astype(np.int64))


def dataset(val: ArraySamples, test: ArraySamples) -> Dataset:
    modality = Image.of(Preprocess(channels=1, mean=(0.0,), std=(1.0,)), (2, 2))
    return Dataset("grey", samples(0, 1), val, test, Classification(("dark", "bright")), modality, "0" * 64)


def test_images_are_spread_over_validation_and_scored_there() -> None:
    ticks: list[int] = []
    truth = reference(Brightness(), dataset(samples(0, 256), samples(0, 9)), samples=86, advance=ticks.append)
    assert truth.examples[:, 0, 0, 0].tolist() == list(range(0, 256, 3))
    np.testing.assert_array_equal(truth.targets, (np.arange(0, 256, 3) >= 128).astype(np.int64))
    np.testing.assert_allclose(truth.outputs[0][:, 1], np.arange(0, 256, 3) / 255 - 0.5, atol=1e-6)
    np.testing.assert_array_equal(truth.outputs[1], -truth.outputs[0])
    assert [scores["accuracy"] for scores in truth.metrics] == [1.0, 0.0]
    # every image is right with confidence 1 / (1 + exp(-|2 b - 1|)): the gaps of all bins have the same sign
    confidence = 1 / (1 + np.exp(-np.abs(2 * np.arange(256) / 255 - 1)))
    assert truth.metrics[0]["ece"] == pytest.approx(1 - confidence.mean(), abs=1e-6)
    assert sum(ticks) == 256


def test_test_images_fill_up_a_small_validation_split() -> None:
    truth = reference(Brightness(), dataset(samples(0, 4), samples(100, 11)), samples=10, advance=lambda _: None)
    assert truth.examples[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 100, 102, 104, 106, 108, 110]
    assert truth.outputs.shape == (2, 10, 2)
    assert [scores["accuracy"] for scores in truth.metrics] == [1.0, 0.0]


def test_without_validation_there_are_no_scores() -> None:
    truth = reference(Brightness(), dataset(samples(0, 0), samples(100, 10)), samples=10, advance=lambda _: None)
    assert truth.examples[:, 0, 0, 0].tolist() == list(range(100, 110))
    assert truth.metrics == ({}, {})


def test_all_held_out_images_are_taken_where_there_are_fewer_and_never_training_images() -> None:
    truth = reference(Brightness(), dataset(samples(0, 4), samples(100, 5)), samples=256, advance=lambda _: None)
    assert truth.examples[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 100, 101, 102, 103, 104]
    with pytest.raises(DataError, match="holds out no sample") as caught:
        reference(Brightness(), dataset(samples(0, 0), samples(0, 0)), samples=256, advance=lambda _: None)
    assert "data.validation" in caught.value.next_step
