"""Write classes, exits and preprocessing into the metadata of an ONNX file, for readers that have only this file."""

from __future__ import annotations

import json
from collections.abc import Sequence

import onnx
from onnx import helper

from sdcompress.schema.manifest import Preprocess

__all__ = ["CLASSES", "EXITS", "PREPROCESS", "describe"]

CLASSES, EXITS, PREPROCESS = "sdcompress.classes", "sdcompress.exits", "sdcompress.preprocess"


def describe(model: onnx.ModelProto, *, classes: Sequence[str], exits: Sequence[str], preprocess: Preprocess) -> None:
    """Set the metadata of a model, in place: JSON texts under ``CLASSES``, ``EXITS`` and ``PREPROCESS``.

    Args:
        model: a graph of an artifact.
        classes: names of the K classes, in the order of the logits.
        exits: names of the exits whose logits the graph computes, shallow to deep.
        preprocess: how an image becomes the network's input.
    """
    helper.set_model_props(
        model,
        {
            CLASSES: json.dumps(list(classes), ensure_ascii=False),
            EXITS: json.dumps(list(exits), ensure_ascii=False),
            PREPROCESS: preprocess.model_dump_json(),
        },
    )
