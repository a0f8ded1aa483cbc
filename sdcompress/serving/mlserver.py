"""A custom runtime of MLServer, and so of KServe and Seldon, on the scheduler of ``serve``; docs/mlserver.md.

MLServer does HTTP, gRPC and Kafka. What a row is, where it exits and what shares a batch is decided as in ``serve``.
"""

from __future__ import annotations

import asyncio
import base64
from time import monotonic
from typing import Any

from mlserver import MLModel
from mlserver.errors import MLServerError
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor, Parameters, ResponseOutput
from mlserver.utils import get_model_uri

from sdcompress.errors import UsageError, nearest
from sdcompress.machine import default_threads
from sdcompress.options import EngineOptions
from sdcompress.runtime.open import open_cascade
from sdcompress.serving.call import Call
from sdcompress.serving.infer import InferResponse, infer
from sdcompress.serving.options import ServiceOptions
from sdcompress.serving.protocol.datatypes import BYTES
from sdcompress.serving.protocol.request import InferRequest, request_of
from sdcompress.serving.protocol.tensors import json_of
from sdcompress.serving.refusals import refusal_of
from sdcompress.serving.service import Service

__all__ = ["SdcompressRuntime"]

_OF_ENGINE = ("backend", "threads", "device", "allow_uncertified")
_OF_SERVICE = ("latency_bound", "timeout", "queue_rows", "request_rows", "batch_rows", "decoded_bytes")
_CODECS = {"np", "str"}  # of MLServer's clients: the values as they are


class SdcompressRuntime(MLModel):
    """Runs the artifact at ``parameters.uri``; ``parameters.extra`` holds options of the engine and of the service."""

    async def load(self) -> bool:
        """Open the artifact, run it once, and tell MLServer of its inputs and outputs.

        Raises:
            SdcompressError: if it cannot be opened or computed; see ``serve``.
        """
        engine_options, service_options = _options(self.settings.parameters.extra or {})
        engine = open_cascade(await get_model_uri(self.settings), engine_options, by_stages=True)
        self._service = Service({self.name: engine}, service_options)
        await asyncio.to_thread(self._service.start().join)
        if self._service.failure is not None:
            raise self._service.failure
        metadata = self._service.model(self.name).metadata()
        self.settings.platform = metadata["platform"]
        self.settings.versions = metadata["versions"]
        self.inputs = [MetadataTensor(**tensor) for tensor in metadata["inputs"]]
        self.outputs = [MetadataTensor(**tensor) for tensor in metadata["outputs"]]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer a request; rows of several requests share batches.

        Raises:
            MLServerError: as ``serve`` would refuse it, with the status code.
        """
        call = Call(monotonic(), asyncio.get_running_loop().create_future())  # MLServer does not tell of disconnects
        try:
            request = _request(payload)
            response, _ = await infer(self._service.model(self.name), request, call, _response)
        except Exception as error:
            refusal = refusal_of(error)
            raise MLServerError(refusal.message, refusal.http) from error
        return response

    async def unload(self) -> bool:
        """Answer what was accepted, and stop."""
        await asyncio.to_thread(self._service.stop)
        return True


def _options(extra: dict[str, Any]) -> tuple[EngineOptions, ServiceOptions]:
    known = (*_OF_ENGINE, *_OF_SERVICE)
    if unknown := next((name for name in extra if name not in known), None):
        guess = nearest(unknown, known)
        raise UsageError(
            f"parameters.extra has no '{unknown}'." + (f" Did you mean '{guess}'?" if guess else ""),
            allowed=", ".join(known),
            next_step="correct model-settings.json",
        )
    engine = {"threads": default_threads().threads, **{name: extra[name] for name in _OF_ENGINE if name in extra}}
    return EngineOptions(**engine), ServiceOptions(**{name: extra[name] for name in _OF_SERVICE if name in extra})


def _request(payload: InferenceRequest) -> InferRequest:
    """Return the request in our form, by the same checks as over HTTP."""
    given: dict[str, Any] = {
        "id": payload.id or "",
        "parameters": _parameters(payload),
        "inputs": [_input(one) for one in payload.inputs],
        "outputs": [{"name": one.name, "parameters": _parameters(one)} for one in payload.outputs or ()],
    }
    return request_of(given)


def _input(tensor: Any) -> dict[str, Any]:
    datatype = getattr(tensor.datatype, "value", tensor.datatype)  # gRPC gives the text alone
    parameters, shape, data = _parameters(tensor), list(tensor.shape), tensor.data.root
    content_type = getattr(tensor.parameters, "content_type", None)
    if content_type not in (None, *_CODECS):
        parameters["content_type"] = content_type
    if datatype == BYTES:
        if len(shape) == 2 and shape[1] == 1:  # as MLServer's codec for texts
            shape = shape[:1]
        if isinstance(data, list) and any(isinstance(one, bytes) for one in data):  # by gRPC
            encoded = bytes if content_type == "base64" else base64.b64encode
            data = [encoded(one).decode() if isinstance(one, bytes) else one for one in data]
            parameters["content_type"] = "base64"
    return {"name": tensor.name, "datatype": datatype, "shape": shape, "parameters": parameters, "data": data}


def _parameters(holder: Any) -> dict[str, Any]:
    """Return the parameters of a request or a tensor without those that are MLServer's own."""
    if holder.parameters is None:
        return {}
    given = holder.parameters.model_dump(exclude={"content_type", "headers"}, exclude_none=True)
    return {name: value for name, value in given.items() if not name.startswith("_")}


def _response(response: InferResponse) -> InferenceResponse:
    outputs = [
        ResponseOutput(
            name=tensor.name,
            datatype=tensor.datatype,
            shape=list(tensor.shape),
            data=data.tolist() if hasattr(data := json_of(tensor.data), "tolist") else data,
        )
        for tensor in response.tensors
    ]
    return InferenceResponse(
        model_name=response.model_name,
        model_version=response.model_version,
        id=response.id or None,
        parameters=Parameters(**response.parameters),
        outputs=outputs,
    )
