"""Which training images ranges are taken from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from text_tokens import Tokens

from sdcompress.artifact.read import open_artifact
from sdcompress.data.samples import ArraySamples, Subset
from sdcompress.modalities._image_preprocess import normalise
from sdcompress.modalities.image import Image
from sdcompress.quantizing import calibration_data
from sdcompress.quantizing.calibration_data import BATCH, CalibrationData, calibration_samples
from sdcompress.tasks.classification import Classification

TASK = Classification(("a", "b", "c", "d"))


def samples(labels: np.ndarray) -> ArraySamples:
    return ArraySamples(
        np.broadcast_to(np.arange(len(labels), dtype=np.uint8)[:, None, None, None], (len(labels), 1, 1, 1)), labels
    )


def test_no_batch_holds_one_class_because_a_folder_does() -> None:
    """A folder of four classes, one after the other: 8 of each in every batch of 32, give or take one."""
    training = samples(np.repeat(np.arange(4), 250))
    for count in (512, 1000):
        chosen = calibration_samples(training, TASK, count)
        assert len(chosen) == count
        for at in range(0, count - BATCH + 1, BATCH):
            assert (np.bincount(chosen.targets[at : at + BATCH], minlength=4) >= BATCH // 4 - 2).all()


def test_a_rare_class_has_its_share() -> None:
    labels = np.zeros(1000, np.int64)
    labels[:50] = 1
    assert calibration_samples(samples(labels), TASK, 500).targets.sum() == 25


def test_every_image_once_and_the_same_ones_each_time() -> None:
    training = samples(np.arange(200) % 3)
    first, second = (calibration_samples(training, TASK, 200).examples(np.arange(200)).ravel() for _ in range(2))
    assert sorted(first.tolist()) == list(range(200))
    np.testing.assert_array_equal(first, second)
    assert first.tolist() != sorted(first.tolist())


def feeds_of(manifest: Any, graphs: Sequence[bytes], training: Any, position: int, **given: Any) -> list[Any]:
    usual = {"count": None, "threads": 1, "progress": None}
    return list(CalibrationData(manifest, graphs, training, **{**usual, **given}).feeds(position))


def test_a_later_segment_gets_what_those_before_it_give(tiny_artifact: Callable[..., Path], tiny_network: Any) -> None:
    opened = open_artifact(tiny_artifact())
    manifest, training = opened.manifest, tiny_network.samples(100)
    graphs = [opened.file(segment).read_bytes() for segment in manifest.segments]
    done: list[tuple[int, int]] = []
    found = feeds_of(manifest, graphs, training, 1, count=80, progress=lambda *now: done.append(now))
    assert [{name: len(array) for name, array in feed.items()} for feed in found] == [
        {"hidden": rows, "input": rows} for rows in (32, 32, 16)
    ]
    assert done == [(112, 240), (144, 240), (160, 240)]  # of three segments the second
    assert isinstance(opened.modality, Image)
    chosen = calibration_samples(training, opened.task, 80)
    inputs = normalise(chosen.examples(np.arange(80)), opened.modality.preprocess)
    np.testing.assert_allclose(np.concatenate([feed["input"] for feed in found]), inputs, rtol=1e-6)
    hidden = np.tanh(inputs.reshape(80, 16) @ tiny_network.weights["W0"])
    np.testing.assert_allclose(np.concatenate([feed["hidden"] for feed in found]), hidden, atol=1e-5)


@pytest.mark.parametrize(("short", "padded"), [(None, [(2, 0, 5)]), (3, [(0, 0, 5)])])
def test_of_texts_at_least_one_is_padded(
    monkeypatch: pytest.MonkeyPatch,
    tiny_artifact: Callable[..., Path],
    short: int | None,
    padded: list[tuple[int, int, int]],
) -> None:
    """70 texts of six tokens in batches of 32: without a shorter one the first of the last batch lacks its last."""
    manifest = open_artifact(tiny_artifact()).manifest
    segment = manifest.segments[0].model_copy(update={"inputs": Tokens().tensors})
    texts = np.full((70, 6), 5)
    if short is not None:
        texts[0, 5] = 0
    training = ArraySamples(texts, np.zeros(70, np.int64))
    # in the order of the samples, so that the first is the short one
    monkeypatch.setattr(calibration_data, "modality_of", lambda _: Tokens())
    monkeypatch.setattr(calibration_data, "calibration_samples", lambda *_: Subset(training, np.arange(70)))
    found = feeds_of(manifest.model_copy(update={"segments": (segment,)}), [b""], training, 0)
    masks = [feed["attention_mask"] for feed in found]
    assert [len(mask) for mask in masks] == [32, 32, 6]
    assert [(at, *map(int, place)) for at, mask in enumerate(masks) for place in np.argwhere(mask == 0)] == padded
    assert (np.concatenate([feed["input_ids"] for feed in found]) == texts).all()  # the token itself stays
