"""Turn the messages of an infer call into a request, and its response into a message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdcompress.errors import InputError, brief
from sdcompress.serving.grpc.open_inference_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
)
from sdcompress.serving.infer import InferResponse
from sdcompress.serving.protocol.datatypes import BYTES
from sdcompress.serving.protocol.request import InferRequest, Parameter, TensorHead, checked_request
from sdcompress.serving.protocol.response import ResponseTensor
from sdcompress.serving.protocol.tensors import Tensor, binary_of, tensor_of_binary, tensor_of_values

__all__ = ["infer_request_of", "infer_response_bytes"]

_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}


def infer_request_of(message: ModelInferRequest, raw: Sequence[memoryview]) -> InferRequest:
    """Return the request of a message. Its outputs come back raw if its inputs are raw and it does not say otherwise.

    Args:
        message: without raw contents.
        raw: its raw contents.

    Raises:
        InputError: says what is wrong.
    """
    if raw and len(raw) != len(message.inputs):
        raise InputError(
            f"There are {len(raw)} raw_input_contents for {len(message.inputs)} inputs.",
            allowed="one for each input, in the same order, or none",
            next_step="send all tensors in the same way",
        )
    fields = {
        "id": message.id,
        "parameters": {"binary_data_output": bool(raw), **_parameters(message.parameters)},
        "inputs": [
            {
                "name": one.name,
                "shape": list(one.shape),
                "datatype": one.datatype,
                "parameters": _parameters(one.parameters),
                "data": (one.contents, raw[at] if raw else None),
            }
            for at, one in enumerate(message.inputs)
        ],
        "outputs": [{"name": one.name, "parameters": _parameters(one.parameters)} for one in message.outputs],
    }
    return checked_request(fields, _tensor)


def _tensor(head: TensorHead) -> Tensor:
    contents, raw = head.data
    size = head.parameters.get("binary_data_size")
    as_raw = size is None or (raw is not None and size == len(raw))  # kserve's client says it here too
    if not as_raw or head.parameters.get("content_type") == "base64":
        raise InputError(
            f"The input '{brief(head.name)}' says how JSON encodes it.",
            allowed="typed contents or raw_input_contents, in which nothing is encoded",
            next_step="leave binary_data_size and content_type out, and send bytes as they are",
        )
    given_fields = [field.name for field, _ in contents.ListFields()]
    if raw is not None:
        if given_fields:
            raise _contents_error(head, given_fields, "no contents beside raw_input_contents")
        return tensor_of_binary(head.name, head.datatype, head.shape, raw)
    field = _CONTENTS.get(head.datatype)
    if field is None:
        raise _contents_error(head, given_fields, f"{head.datatype} as raw_input_contents")
    if given_fields not in ([], [field]):
        raise _contents_error(head, given_fields, f"{head.datatype} as {field}, or as raw_input_contents")
    return tensor_of_values(head.name, head.datatype, head.shape, list(getattr(contents, field)))


def _contents_error(head: TensorHead, given: Sequence[str], allowed: str) -> InputError:
    return InputError(
        f"The input '{brief(head.name)}' has {' and '.join(given) or 'no contents'}.",
        allowed=allowed,
        next_step="send its data in that way",
    )


def _parameters(given: Any) -> dict[str, Parameter | None]:
    return {name: _parameter(one) for name, one in given.items()}


def _parameter(one: InferParameter) -> Parameter | None:
    chosen = one.WhichOneof("parameter_choice")
    value: Parameter | None = None if chosen is None else getattr(one, chosen)
    return value


def infer_response_bytes(response: InferResponse) -> bytes:
    """Return the serialized ``ModelInferResponse``."""
    raw = any(tensor.binary for tensor in response.tensors)
    message = ModelInferResponse(
        model_name=response.model_name,
        model_version=response.model_version,
        id=response.id,
        parameters={name: _infer_parameter(value) for name, value in response.parameters.items()},
        outputs=[_output(tensor, raw) for tensor in response.tensors],
        raw_output_contents=[binary_of(tensor.data) for tensor in response.tensors] if raw else (),
    )
    return message.SerializeToString()


def _output(tensor: ResponseTensor, raw: bool) -> ModelInferResponse.InferOutputTensor:
    output = ModelInferResponse.InferOutputTensor(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    if not raw:
        flat = tensor.data if isinstance(tensor.data, tuple) else tensor.data.reshape(-1).tolist()
        getattr(output.contents, _CONTENTS[tensor.datatype]).extend(flat)
    return output


def _infer_parameter(value: Parameter) -> InferParameter:
    if isinstance(value, bool):
        return InferParameter(bool_param=value)
    if isinstance(value, int):
        return InferParameter(int64_param=value)
    if isinstance(value, float):
        return InferParameter(double_param=value)
    return InferParameter(string_param=value)
