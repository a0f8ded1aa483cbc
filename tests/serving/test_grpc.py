"""The protocol over gRPC: NVIDIA's client, both forms of tensors, deadlines, and requests that break it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2 as public

import sdcompress.serving.grpc as room
from sdcompress.runtime.open import open_engine

FOLDER = Path(room.__file__).parent
INFER = "/inference.GRPCInferenceService/ModelInfer"


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 1, 4, 4)).astype(np.float32)


def request(**changes: Any) -> Any:
    """A request of one row with typed contents, as the public messages define it."""
    tensor = {"name": "input", "shape": [1, 1, 4, 4], "datatype": "FP32", "contents": {"fp32_contents": [0.1] * 16}}
    return public.ModelInferRequest(**({"model_name": "tiny", "inputs": [tensor]} | changes))


def ask(address: str, message: Any, method: str = INFER, **options: Any) -> Any:
    """Send a message, or bytes that are none, and return the response."""
    data = message if isinstance(message, bytes) else message.SerializeToString()
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(method, response_deserializer=public.ModelInferResponse.FromString)
        return call(data, timeout=options.pop("timeout", 30), **options)


def refused(address: str, message: Any, method: str = INFER, **options: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        ask(address, message, method, **options)
    return caught.value


@pytest.fixture
def address(client: Any, serve_grpc: Callable[..., str]) -> str:
    return serve_grpc(client.service)


def test_all_calls_of_a_real_client(address: str, tiny_artifact: Callable[..., Path]) -> None:
    inputs = images(9)
    expected = open_engine(tiny_artifact(policy=(0.7, 0.6), name="again"))(inputs)
    with triton.InferenceServerClient(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert client.get_server_metadata().name == "sdcompress"
        metadata = client.get_model_metadata("tiny")
        assert [(one.name, one.datatype, list(one.shape)) for one in metadata.inputs] == [
            ("raw", "BYTES", [-1]),
            ("input", "FP32", [-1, 1, 4, 4]),
        ]
        assert client.is_model_ready("tiny", metadata.versions[0])
        tensor = triton.InferInput("input", list(inputs.shape), "FP32").set_data_from_numpy(inputs)
        wanted = [triton.InferRequestedOutput(name) for name in ("outputs", "exit_index", "answer")]
        for compression in (None, "gzip", "deflate"):
            result = client.infer(
                "tiny", [tensor], outputs=wanted, request_id="7", compression_algorithm=compression, client_timeout=30
            )
            np.testing.assert_allclose(result.as_numpy("outputs"), expected.outputs, rtol=1e-5, atol=1e-6)
            assert result.as_numpy("exit_index").tolist() == expected.exit_index.tolist()
            assert result.as_numpy("answer").shape == (9,)
            response = result.get_response()
            assert (response.id, response.model_version) == ("7", metadata.versions[0])
            assert response.parameters["artifact"].string_param.startswith(metadata.versions[0])
        limited = client.infer("tiny", [tensor], parameters={"max_exit": "exit1"})
        assert limited.as_numpy("exit_index").tolist() == [0] * 9
        done: list[Any] = []
        arrived = threading.Event()
        client.async_infer("tiny", [tensor], lambda result, error: (done.append((result, error)), arrived.set()))
        assert arrived.wait(30)
        assert done[0][1] is None
        assert done[0][0].as_numpy("exit_index").tolist() == expected.exit_index.tolist()
        pixels = np.zeros((2, 5, 5, 1), np.uint8)
        raw = triton.InferInput("raw", [2, 5, 5, 1], "UINT8").set_data_from_numpy(pixels)
        assert client.infer("tiny", [raw]).as_numpy("outputs").shape == (2, 3)
        wrong = triton.InferInput("input", [1, 1, 4, 5], "FP32").set_data_from_numpy(np.zeros((1, 1, 4, 5), np.float32))
        with pytest.raises(triton.InferenceServerException, match=r"has the shape \[1, 1, 4, 5\]"):
            client.infer("tiny", [wrong])


def test_the_asynchronous_client(address: str) -> None:
    async def asked() -> Any:
        async with triton_aio.InferenceServerClient(address) as client:
            tensor = triton_aio.InferInput("input", [1, 1, 4, 4], "FP32").set_data_from_numpy(images(1))
            assert await client.is_server_ready()
            return await asyncio.gather(*(client.infer("tiny", [tensor]) for _ in range(8)))

    results = asyncio.run(asked())
    assert len({result.as_numpy("outputs").tobytes() for result in results}) == 1


def test_tensors_come_back_in_the_form_in_which_they_were_sent(address: str) -> None:
    typed = ask(address, request())
    assert not typed.raw_output_contents
    fields = {one.name: one.contents.ListFields()[0][0].name for one in typed.outputs}
    assert fields == {
        "answer": "bytes_contents",
        "decision": "int64_contents",
        "outputs": "fp32_contents",
        "exit_index": "int64_contents",
        "score": "fp32_contents",
    }
    asked = request(raw_input_contents=[np.full(16, 0.1, np.float32).tobytes()])
    asked.inputs[0].ClearField("contents")
    raw = ask(address, asked)
    assert [one.name for one in raw.outputs] == list(fields)
    assert not any(one.HasField("contents") for one in raw.outputs)
    np.testing.assert_array_equal(
        np.frombuffer(raw.raw_output_contents[2], np.float32), typed.outputs[2].contents.fp32_contents
    )
    asked.parameters["binary_data_output"].bool_param = False
    assert not ask(address, asked).raw_output_contents
    assert ask(address, request(parameters={"binary_data_output": {"bool_param": True}})).raw_output_contents


def test_texts_as_typed_contents_are_raw_examples(
    serve: Any, serve_grpc: Any, tiny_artifact: Callable[..., Path]
) -> None:
    address = serve_grpc(serve({"tiny": tiny_artifact()}).service)
    tensor = {"name": "raw", "shape": [1], "datatype": "BYTES", "contents": {"bytes_contents": [b"no image"]}}
    error = refused(address, request(inputs=[tensor]))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "The raw example 0 cannot be used" in error.details()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"inputs": []}, "'inputs' does not fit the protocol"),
        ({"raw_input_contents": [b"", b""]}, "2 raw_input_contents for 1 inputs"),
        ({"raw_input_contents": [bytes(64)]}, "no contents beside raw_input_contents"),
        ({"parameters": {"max_exit": {}}}, "'parameters.max_exit.bool' does not fit"),
        ({"parameters": {"max_exits": {"int64_param": 1}}}, "Did you mean 'max_exit'"),
        ({"parameters": {"deadline_ms": {"double_param": float("nan")}}}, "'parameters.deadline_ms"),
        ({"outputs": [{"name": "nothing"}]}, "There is no output 'nothing'"),
        ({"id": "x" * 1001}, "'id' does not fit"),
    ],
)  # fmt: skip
def test_a_request_that_breaks_the_protocol_is_an_invalid_argument(address: str, changes: Any, says: str) -> None:
    error = refused(address, request(**changes))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert says in error.details()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"datatype": "FP16"}, "FP16 as raw_input_contents"),
        ({"datatype": "FP64"}, "FP64 as fp64_contents"),
        ({"datatype": "BF16"}, "has the datatype 'BF16'"),
        ({"shape": [2, 1, 4, 4]}, "has 16 elements"),
        ({"shape": [-1, 1, 4, 4]}, "has the shape [-1, 1, 4, 4]"),
        ({"shape": [2**62, 1, 4, 4]}, "has the shape"),
        ({"contents": {"fp32_contents": [float("inf")] * 16}}, "not finite"),
        ({"contents": {"fp32_contents": [0.0] * 16, "int_contents": [1]}}, "int_contents and fp32_contents"),
        ({"contents": {}}, "has 0 elements"),
        ({"parameters": {"binary_data_size": {"int64_param": 64}}}, "says how JSON encodes it"),
        ({"name": "other"}, "The inputs are other"),
    ],
)  # fmt: skip
def test_an_input_that_does_not_fit_is_an_invalid_argument(address: str, changes: Any, says: str) -> None:
    asked = request()
    tensor = {"name": "input", "shape": [1, 1, 4, 4], "datatype": "FP32", "contents": {"fp32_contents": [0.1] * 16}}
    asked = public.ModelInferRequest(model_name="tiny", inputs=[tensor | changes])
    error = refused(address, asked)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert says in error.details()


def test_values_out_of_range_of_a_small_integer_are_refused(serve: Any, serve_grpc: Any, address: str) -> None:
    tensor = {"name": "input", "shape": [1], "datatype": "INT8", "contents": {"int_contents": [128]}}
    error = refused(address, public.ModelInferRequest(model_name="tiny", inputs=[tensor]))
    assert "a value is out of range" in error.details()


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "ModelMetadata"])
def test_bytes_that_are_no_message_are_an_invalid_argument(address: str, method: str) -> None:
    error = refused(address, b"\x0a\xff\xff\xff\xff\x0fno", f"/inference.GRPCInferenceService/{method}")
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "no message of the protocol" in error.details()


def test_what_is_not_there_says_so(address: str) -> None:
    error = refused(address, request(model_name="tinny"))
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert "Did you mean 'tiny'?" in error.details()
    assert refused(address, request(model_version="9")).code() == grpc.StatusCode.NOT_FOUND
    elsewhere = refused(address, request(), "/inference.GRPCInferenceService/ModelStreamInfer")
    assert elsewhere.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_fault_of_the_service_shows_no_internals(client: Any, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(client.service.models["tiny"], "prediction", fails)
    error = refused(address, request())
    assert error.code() == grpc.StatusCode.INTERNAL
    assert error.details() == "The service failed. Next: look into its log."


def test_a_large_message_is_refused_before_it_is_read(serve: Any, serve_grpc: Any, tiny_artifact: Any) -> None:
    address = serve_grpc(serve({"tiny": tiny_artifact()}, body_bytes=2**20).service)
    error = refused(address, request(raw_input_contents=[bytes(2**20)]))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    bomb = refused(address, request(raw_input_contents=[bytes(2**24)]), compression=grpc.Compression.Gzip)
    assert bomb.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_time_to_try_again_comes_as_gprcs_pushback(serve: Any, serve_grpc: Any, tiny_artifact: Any) -> None:
    client = serve({"tiny": tiny_artifact()}, warm=False)
    address = serve_grpc(client.service)
    error = refused(address, request())
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"
    client.service.start().join()
    assert ask(address, request()).model_name == "tiny"
    client.service.closed = True
    assert refused(address, request()).code() == grpc.StatusCode.UNAVAILABLE
