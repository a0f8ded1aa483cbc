"""All calls of the clients of kserve against one server; run by counterparts.py where kserve is installed.

    python kserve_calls.py HOST:PORT HOST:GRPC_PORT MODEL rows.npz

prints one line of JSON: which call did what, and the answers of JSON, binary and gRPC requests.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferOutput,
    InferRequest,
    InferResponse,
    RESTConfig,
)
from kserve.protocol.infer_type import RequestedOutput
from kserve.utils.numpy_codec import from_np_dtype

OUTPUTS = ("outputs", "exit_index")


async def main() -> dict[str, Any]:
    address, grpc_address, model, file = sys.argv[1:]
    url = f"http://{address}"
    rows: dict[int, dict[str, Any]] = {}
    for key, array in np.load(file).items():
        row, name = key.split("/", 1)
        rows.setdefault(int(row), {})[name] = array
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        calls = {
            "is_server_live": await client.is_server_live(url),
            "is_server_ready": await client.is_server_ready(url),
            "is_model_ready": await client.is_model_ready(url, model),
            "is_model_ready of no model": await client.is_model_ready(url, "none"),
        }
        response = await client.infer(url, request(model, rows[0], binary=False), model_name=model)
        calls["parameters of a response"] = sorted(response.parameters)
        calls["id comes back"] = response.id == "7"
        limited = request(model, rows[0], binary=True, parameters={"max_exit": 0})
        calls["max_exit"] = (await client.infer(url, limited, model_name=model)).parameters["exit"]
        try:
            await client.infer(url, request(model, {"wrong": rows[0][next(iter(rows[0]))]}, True), model_name=model)
        except httpx.HTTPStatusError as error:
            calls["infer with a wrong name"] = error.response.status_code
        answers = {
            form: [
                answer(await client.infer(url, request(model, one, binary=form == "binary"), model_name=model))
                for _, one in sorted(rows.items())
            ]
            for form in ("json", "binary")
        }
    async with InferenceGRPCClient(grpc_address) as client:
        calls["gRPC"] = {
            "is_server_live": await client.is_server_live(),
            "is_server_ready": await client.is_server_ready(),
            "is_model_ready": await client.is_model_ready(model),
        }
        limited = await client.infer(request(model, rows[0], binary=True, parameters={"max_exit": 0}))
        calls["gRPC"] |= {"parameters of a response": sorted(limited.parameters), "id comes back": limited.id == "7"}
        try:
            await client.infer(request(model, {"wrong": rows[0][next(iter(rows[0]))]}, binary=True))
        except grpc.RpcError as error:
            calls["gRPC"]["infer with a wrong name"] = error.code().name
        answers["grpc"] = [
            answer(await client.infer(request(model, one, binary=True))) for _, one in sorted(rows.items())
        ]
    return {"calls": calls, **answers}


def request(model: str, arrays: dict[str, Any], binary: bool, parameters: dict[str, Any] | None = None) -> InferRequest:
    inputs = []
    for name, array in arrays.items():
        inputs.append(InferInput(name=name, shape=list(array.shape), datatype=from_np_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array, binary_data=binary)
    outputs = [RequestedOutput(name, parameters={"binary_data": binary}) for name in OUTPUTS]
    return InferRequest(
        request_id="7", model_name=model, infer_inputs=inputs, request_outputs=outputs, parameters=parameters or {}
    )


def answer(response: InferResponse) -> dict[str, Any]:
    named: dict[str, InferOutput] = {one.name: one for one in response.outputs}
    outputs, exit_index = (named[name].as_numpy() for name in OUTPUTS)
    return {"outputs": outputs.ravel().tolist(), "exit_index": int(exit_index[0])}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main())))
