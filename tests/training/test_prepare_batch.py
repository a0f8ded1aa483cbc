"""Inputs of two views that are one batch to the network have one length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from texts import tokenizer_in

from sdcompress.modalities.text import Text
from sdcompress.objectives.batch import Minibatch, View
from sdcompress.schema.recipe import Augmentation
from sdcompress.training.batches import MicroBatch
from sdcompress.training.prepare_batch import BatchPreparer

GOOD, BAD, FILM, A = 4, 5, 6, 8


def fetched(text: Text, raw: list[str], first: int) -> Minibatch:
    positions = torch.arange(first, first + len(raw))
    return Minibatch((torch.from_numpy(text.examples(raw)[np.arange(len(raw))]),), positions % 2, positions)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("gradient", [False, True])
def test_the_shorter_texts_are_padded_where_both_are_one_batch(tmp_path: Path, swapped: bool, gradient: bool) -> None:
    text = Text.of(tokenizer_in(tmp_path), max_length=8)
    view = View(samples="previous", gradient=gradient)
    prepare = BatchPreparer(
        text.augment(Augmentation()), view, torch.device("cpu"), torch.contiguous_format, modality=text
    )
    parts = fetched(text, ["a good film", "good"], 0), fetched(text, ["bad", "film"], 2)
    primary, second = prepare(MicroBatch(*(parts[::-1] if swapped else parts)), torch.Generator())
    assert second is not None
    longer, shorter = (second, primary) if swapped else (primary, second)
    padding = [0, 0] if gradient else []
    assert longer.inputs[0].tolist() == [[2, A, GOOD, FILM, 3], [2, GOOD, 3, 0, 0]]
    assert shorter.inputs[0].tolist() == [[2, BAD, 3, *padding], [2, FILM, 3, *padding]]
    assert shorter.inputs[1].tolist() == [[1, 1, 1, *padding], [1, 1, 1, *padding]]
    assert shorter.positions.tolist() == [2, 3]
