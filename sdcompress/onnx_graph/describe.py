"""Write the meaning of a graph's tensors into its metadata, for users who have the ONNX file alone."""

from __future__ import annotations

import json
from collections.abc import Sequence

import onnx
from onnx import helper

from sdcompress.modalities import Modality
from sdcompress.tasks import Task

__all__ = ["describe"]

_PREFIX = "sdcompress."


def describe(model: onnx.ModelProto, *, task: Task, modality: Modality, exits: Sequence[str]) -> None:
    """Set the metadata ``sdcompress.task``, ``outputs``, ``modality`` and ``exits`` of a model, in place, as JSON.

    Args:
        model: a graph of an artifact.
        task: what its outputs mean.
        modality: what it is given.
        exits: names of the exits whose outputs the graph computes, shallow to deep.
    """
    meaning = {
        "task": task.record.model_dump(mode="json"),
        "outputs": list(task.outputs),
        "modality": modality.record.model_dump(mode="json"),
        "exits": list(exits),
    }
    helper.set_model_props(
        model, {_PREFIX + name: json.dumps(value, ensure_ascii=False) for name, value in meaning.items()}
    )
