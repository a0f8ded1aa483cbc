"""Define the tensors that a served model returns, of any task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import orjson

from sdcompress.policies._base import Float
from sdcompress.serving.protocol.datatypes import BYTES, datatype_of
from sdcompress.tasks import Prediction, Task

__all__ = ["ServedOutput", "served_outputs"]

Data = npt.NDArray[Any] | tuple[bytes, ...]


@dataclass(frozen=True)
class ServedOutput:
    """A tensor of the response.

    Attributes:
        name: of the tensor.
        datatype: of the protocol.
        shape: of one row.
        compute: from the prediction and the scores of the rows to the data, [B, ...].
        always: whether requests that name no outputs get it.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    compute: Callable[[Prediction, Float], Data]
    always: bool = True


def served_outputs(task: Task) -> tuple[ServedOutput, ...]:
    """Return what a model of this task returns, in the order of its metadata."""
    return (
        ServedOutput("answer", BYTES, (), lambda prediction, _: _answers(prediction)),
        ServedOutput(
            "decision", datatype_of(task.decision_dtype), task.decision_shape, lambda prediction, _: prediction.decision
        ),
        ServedOutput("outputs", "FP32", task.output_shape, lambda prediction, _: prediction.outputs),
        ServedOutput("exit_index", "INT64", (), lambda prediction, _: prediction.exit_index),
        ServedOutput("score", "FP32", (), lambda _, scores: scores),
        ServedOutput("top", BYTES, (), lambda prediction, _: _tops(prediction), always=False),
    )


def _answers(prediction: Prediction) -> tuple[bytes, ...]:
    """Return what each row says, such as its class with the probability, as a JSON object."""
    return tuple(orjson.dumps(dict(stated)) for stated in prediction.stated())


def _tops(prediction: Prediction) -> tuple[bytes, ...]:
    """Return what matters most of each row's outputs, such as the most probable classes, as a JSON object."""
    return tuple(orjson.dumps(dict(top)) for top in prediction.top())
