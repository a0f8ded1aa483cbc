"""A batch of texts in parts of like lengths gets what the whole network gives the padded batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from signals import TASK
from texts import tokenizer_in

from sdcompress.artifact.execution_target import ExecutionTarget
from sdcompress.modalities import Inputs
from sdcompress.modalities.text import Text
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.segments import ArrayExecutor
from sdcompress.schema.graphs import Segment, Tensor
from sdcompress.schema.manifest import Exit, Manifest, Policy, StageTimes

HIDDEN = Tensor(name="hidden", dtype="float32", shape=("batch", "sequence"))
OUTPUTS = [Tensor(name=name, dtype="float32", shape=("batch", 2)) for name in ("early", "late")]
TIMES = StageTimes(rows=(1, 8), sizes=(4.0, 8.0), ms=((1.0, 16.0), (1.0, 16.0)), move_ms=(0.01,))  # a call: 4 tokens


class Network:
    """Two segments whose outputs are means over tokens; it notes the shapes that it runs."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def first(self, tensors: dict[str, np.ndarray]) -> list[np.ndarray]:
        ids, mask = tensors["input_ids"], tensors["attention_mask"]
        self.shapes.append(ids.shape)
        mean = (ids * mask).sum(axis=1) / mask.sum(axis=1)
        return [_logits(mean - 7), np.asarray(ids * 0.1, np.float32)]

    def second(self, tensors: dict[str, np.ndarray]) -> list[np.ndarray]:
        hidden, mask = tensors["hidden"], tensors["attention_mask"]
        return [_logits((hidden**2 * mask).sum(axis=1) / mask.sum(axis=1))]


def _logits(values: np.ndarray) -> np.ndarray:
    return np.stack([values, -values], axis=1).astype(np.float32)


def engine_of(network: Network, folder: Path, times: StageTimes | None) -> CascadeEngine:
    text = Text.of(tokenizer_in(folder), max_length=64)
    entry = {"sha256": "0" * 64, "bytes": 1, "precision": "fp32", "macs": 1, "parameters": 1}
    segments = (
        Segment(file="a.onnx", inputs=text.tensors, outputs=(OUTPUTS[0], HIDDEN), **entry),
        Segment(file="b.onnx", inputs=(HIDDEN, text.tensors[1]), outputs=(OUTPUTS[1],), **entry),
    )
    exits = tuple(Exit(name=name, segment=at, outputs=name) for at, name in enumerate(("early", "late")))
    policy = Policy(
        thresholds=(0.99,),
        max_drop=0.01,
        samples=1,
        metric=1.0,
        reference_metric=1.0,
        shares=(0.5, 0.5),
        stage_ms=(1.0, 1.0),
        stage_times=times,
    )
    manifest = Manifest.model_construct(
        task=TASK.record,
        outputs=TASK.outputs,
        modality=text.record,
        inputs=text.tensors,
        segments=segments,
        exits=exits,
        policy=policy,
    )
    executor = ArrayExecutor(manifest, [network.first, network.second], ExecutionTarget())
    return CascadeEngine(manifest, executor, text)


def batch(lengths: list[int]) -> Inputs:
    """Return random ids, also where the mask says padding."""
    ids = np.random.default_rng(0).integers(4, 14, (len(lengths), max(lengths)))
    mask = (np.arange(ids.shape[1]) < np.array(lengths)[:, None]).astype(np.int64)
    return Inputs({"input_ids": ids, "attention_mask": mask}, "attention_mask")


@pytest.mark.parametrize(
    ("lengths", "shapes"),
    [
        ([20, 3, 18, 2, 3, 20], [(3, 20), (3, 3)]),
        ([5, 20, 11], [(1, 20), (1, 11), (1, 5)]),
        ([4, 5, 4], [(3, 5)]),
        ([9], [(1, 9)]),
    ],
)
def test_parts_of_like_lengths_give_what_the_whole_network_gives_the_padded_batch(
    tmp_path: Path, lengths: list[int], shapes: list[tuple[int, int]]
) -> None:
    network, inputs = Network(), batch(lengths)
    early, hidden = Network().first(inputs.arrays)
    (late,) = Network().second({"hidden": hidden, **inputs.arrays})
    confidence = 1 / (1 + np.exp(-2 * np.abs(early[:, 0])))  # the softmax of (a, -a)
    exits = np.where(confidence >= 0.99, 0, 1)
    prediction = engine_of(network, tmp_path, TIMES)(inputs)
    assert prediction.exit_index.tolist() == exits.tolist()
    np.testing.assert_allclose(prediction.outputs, np.where(exits[:, None] == 0, early, late), rtol=1e-6)
    assert sorted(network.shapes, reverse=True) == sorted(shapes, reverse=True)


def test_arrays_without_a_name_for_their_mask_are_parted_too(tmp_path: Path) -> None:
    network, inputs = Network(), batch([30, 2, 30, 2])
    engine = engine_of(network, tmp_path, TIMES)
    engine(inputs.arrays)
    assert sorted(network.shapes) == [(2, 2), (2, 30)]


def test_without_measured_times_and_with_a_deadline_a_batch_stays_whole(tmp_path: Path) -> None:
    network, inputs = Network(), batch([30, 2, 30, 2])
    engine_of(network, tmp_path, None)(inputs)
    engine_of(network, tmp_path, TIMES)(inputs, deadline_ms=60_000)
    assert network.shapes == [(4, 30), (4, 30)]


def test_both_exits_are_taken_above() -> None:
    early, _ = Network().first(batch([20, 3, 18, 2, 3, 20]).arrays)
    confident = 1 / (1 + np.exp(-2 * np.abs(early[:, 0]))) >= 0.99
    assert 0 < confident.sum() < 6
