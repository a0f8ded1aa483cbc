"""Write config.pbtxt of one Triton model: every field that Triton would otherwise guess is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdcompress.packaging._pbtxt import Enum, pbtxt
from sdcompress.schema.graphs import Tensor

__all__ = ["LABELS", "Batching", "Serving", "config_pbtxt", "port"]

LABELS = "labels.txt"

_TYPES = {
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bfloat16": "BF16",
    "bool": "BOOL",
    "int8": "INT8",
    "uint8": "UINT8",
    "int32": "INT32",
    "int64": "INT64",
}
_WARM_UP_AXIS = 8  # size of an axis that varies, in the warm-up


@dataclass(frozen=True)
class Batching:
    """How Triton joins requests into batches.

    Attributes:
        max_batch_size: most rows of a batch.
        preferred_batch_size: sizes that do not wait for more requests; empty: only the delay counts.
        max_queue_delay_microseconds: how long a request waits for others.
        max_queue_size: requests that may wait; more are refused; 0: any number.
    """

    max_batch_size: int
    preferred_batch_size: tuple[int, ...] = ()
    max_queue_delay_microseconds: int = 0
    max_queue_size: int = 0

    def fields(self) -> dict[str, Any]:
        """Return the message ``dynamic_batching``."""
        preferred = {"preferred_batch_size": self.preferred_batch_size} if self.preferred_batch_size else {}
        return {
            **preferred,
            "max_queue_delay_microseconds": self.max_queue_delay_microseconds,
            "default_queue_policy": {"timeout_action": Enum("REJECT"), "max_queue_size": self.max_queue_size},
        }


@dataclass(frozen=True)
class Serving:
    """What runs a model.

    Attributes:
        backend: of Triton: onnxruntime, tensorrt or python.
        file: name of the file in the folder of a version.
        device: "cpu" or "cuda".
        instances: how many run at once.
        parameters: of the backend.
        profiles: names of the optimisation profiles of a TensorRT engine.
    """

    backend: str
    file: str
    device: str
    instances: int
    parameters: Mapping[str, str]
    profiles: tuple[str, ...] = ()

    def fields(self) -> dict[str, Any]:
        """Return instance group, version policy and parameters."""
        group: dict[str, Any] = {
            "count": self.instances,
            "kind": Enum("KIND_GPU" if self.device == "cuda" else "KIND_CPU"),
        }
        if self.profiles:
            group["profile"] = self.profiles
        parameters = [{"key": key, "value": {"string_value": value}} for key, value in self.parameters.items()]
        return {
            "instance_group": [group],
            "version_policy": {"latest": {"num_versions": 1}},
            "parameters": parameters,
        }


def port(tensor: Tensor, *, batched: bool = True, labels: bool = False) -> dict[str, Any]:
    """Return an input or output of a model.

    A row without axes has the dims ``[ 1 ]``, because Triton takes none without: clients see [batch, 1].

    Args:
        tensor: with the batch as its first axis.
        batched: whether Triton adds the batch axis.
        labels: whether the names of an output's elements are in ``LABELS``.
    """
    axes = tensor.shape[1:] if batched else tensor.shape
    shape = tuple(size if isinstance(size, int) else -1 for size in axes)
    scalar: dict[str, Any] = {} if shape else {"reshape": {}}
    return {
        "name": tensor.name,
        "data_type": Enum(f"TYPE_{_TYPES[tensor.dtype]}"),
        "dims": shape or (1,),
        **scalar,
        **({"label_filename": LABELS} if labels else {}),
    }


def config_pbtxt(
    name: str,
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
    serving: Serving,
    *,
    max_batch_size: int,
    scheduler: Mapping[str, Any],
    warm_up: bool,
) -> str:
    """Return the configuration of a model.

    Args:
        name: of the model, as of its folder.
        inputs: see ``port``.
        outputs: likewise.
        serving: what runs it.
        max_batch_size: 0 where the first axis of ``dims`` is the batch.
        scheduler: ``dynamic_batching`` or ``sequence_batching``; empty where Triton may not batch.
        warm_up: run zeros once before the model is ready.
    """
    return pbtxt(
        {
            "name": name,
            "backend": serving.backend,
            "default_model_filename": serving.file,
            "max_batch_size": max_batch_size,
            "input": inputs,
            "output": outputs,
            **scheduler,
            **serving.fields(),
            **({"model_warmup": [_warm_up(inputs)]} if warm_up else {}),
        }
    )


def _warm_up(inputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values = [
        {
            "key": one["name"],
            "value": {
                "data_type": one["data_type"],
                "dims": [_WARM_UP_AXIS if size < 0 else size for size in one["dims"]],
                "zero_data": True,
            },
        }
        for one in inputs
    ]
    return {"name": "zeros", "batch_size": 1, "inputs": values}  # 1 without batches too; Triton skips a sample of 0
