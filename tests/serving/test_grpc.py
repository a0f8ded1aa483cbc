"""The protocol over gRPC: NVIDIA's client, both forms of tensors, deadlines, and requests that break it."""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from concurrent_calls import ConcurrentCalls
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_health.v1 import health_pb2, health_pb2_grpc
from traced_infer import traced_infer
from tritonclient.grpc import service_pb2 as public

import sdcompress.serving.grpc as room
from sdcompress.errors import InputError
from sdcompress.runtime.open import open_engine
from sdcompress.serving.errors import TooLargeError
from sdcompress.serving.grpc import open_inference_pb2 as ours
from sdcompress.serving.grpc import servicer
from sdcompress.serving.grpc.server import GrpcServer
from sdcompress.serving.grpc.wire import split_raw
from sdcompress.serving.job import Job
from sdcompress.serving.security import Security

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


@pytest.mark.parametrize(("size", "taken"), [(64, True), (60, False)])
def test_raw_contents_may_say_their_size_as_the_client_of_kserve_does(address: str, size: int, taken: bool) -> None:
    tensor = {"name": "input", "shape": [1, 1, 4, 4], "datatype": "FP32"}
    tensor |= {"parameters": {"binary_data_size": {"int64_param": size}}}
    asked = public.ModelInferRequest(model_name="tiny", inputs=[tensor], raw_input_contents=[bytes(64)])
    if taken:
        assert ask(address, asked).model_name == "tiny"
    else:
        assert "says how JSON encodes it" in refused(address, asked).details()


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


async def started(service: Any) -> tuple[GrpcServer, int]:
    server = GrpcServer(service, Security())
    return server, await server.start("127.0.0.1", 0)


class Gate:
    """Holds the first stage of a model back, and keeps the jobs that its worker gets."""

    def __init__(self, service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free, self.begun, self.jobs = threading.Event(), threading.Event(), list[Job]()
        self._service, model = service, service.models["tiny"]
        run, submit = model._stages.run, model._worker.submit

        def held(*arguments: Any, outputs: bool) -> Any:
            self.begun.set()
            assert self.free.wait(60)
            return run(*arguments, outputs=outputs)

        def submitted(job: Job, **options: Any) -> None:
            self.jobs.append(job)
            submit(job, **options)

        monkeypatch.setattr(model._stages, "run", held)
        monkeypatch.setattr(model._worker, "submit", submitted)

    def outcomes(self, outcome: str) -> float:
        labels = {"model": "tiny", "outcome": outcome}
        return self._service.metrics.registry.get_sample_value("sdcompress_requests_total", labels) or 0.0


@pytest.fixture
def gate(client: Any, address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    held = Gate(client.service, monkeypatch)
    yield held
    held.free.set()


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_deadline_of_a_call_reaches_its_job_and_ends_it(address: str, gate: Gate) -> None:
    start = time.monotonic()
    error = refused(address, request(), timeout=0.4)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: gate.outcomes("cancelled") == 1)
    (job,) = gate.jobs
    assert start < job.until < start + 0.9
    assert job.deadline is None, "the answer would be another one"
    assert job.cancelled


def test_a_call_that_is_cancelled_leaves_the_queue(address: str, gate: Gate, client: Any) -> None:
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(INFER).future(request().SerializeToString())
        assert gate.begun.wait(30)
        call.cancel()
        eventually(lambda: gate.outcomes("cancelled") == 1)
    assert gate.jobs[0].cancelled
    gate.free.set()
    eventually(lambda: client.service.models["tiny"]._worker.rows == 0)
    assert ask(address, request()).model_name == "tiny"


def test_a_stop_answers_what_was_accepted_and_refuses_the_rest(client: Any, loop: Any, monkeypatch: Any) -> None:
    (server, port), gate = loop.run(started(client.service)), Gate(client.service, monkeypatch)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(INFER, response_deserializer=public.ModelInferResponse.FromString)
        accepted = call.future(request().SerializeToString())
        assert gate.begun.wait(30)

        def refused_code() -> grpc.StatusCode:
            with pytest.raises(grpc.RpcError) as caught:
                call(request().SerializeToString(), timeout=20)
            return caught.value.code()

        client.service.closed = True
        by_service = refused_code()
        stopping = asyncio.run_coroutine_threadsafe(server.stop(30, lambda: False), loop.loop)
        time.sleep(1)
        by_grpc = refused_code()
        gate.free.set()
        assert accepted.result(30).model_name == "tiny"
        stopping.result(30)
        assert by_service == by_grpc == grpc.StatusCode.UNAVAILABLE


def test_a_second_signal_ends_a_stop_at_once(client: Any, loop: Any, monkeypatch: Any) -> None:
    (server, port), gate = loop.run(started(client.service)), Gate(client.service, monkeypatch)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        accepted = channel.unary_unary(INFER).future(request().SerializeToString())
        assert gate.begun.wait(30)
        start = time.monotonic()
        loop.run(server.stop(30, lambda: True))
        assert time.monotonic() - start < 10
        assert accepted.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    gate.free.set()


def test_the_standard_health_service_tells_readiness_and_liveness(serve: Any, loop: Any, tiny_artifact: Any) -> None:
    client = serve({"tiny": tiny_artifact()}, warm=False)

    server, port = loop.run(started(client.service))
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)

        def serving(name: str) -> bool:
            loop.run(server.tick())
            return health.Check(health_pb2.HealthCheckRequest(service=name)).status == 1

        names = ("", "inference.GRPCInferenceService")
        assert not any(map(serving, names))
        assert serving("liveness")
        client.service.start().join()
        assert all(map(serving, names))
        client.service.draining = True
        assert not any(map(serving, names))
        assert serving("liveness")
    loop.run(server.stop(1, lambda: False))


def test_as_many_requests_as_may_be_leave_room_for_probes(
    serve: Any, serve_grpc: Any, tiny_artifact: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve({"tiny": tiny_artifact()}, connections=2)
    address, gate = serve_grpc(client.service), Gate(client.service, monkeypatch)
    with grpc.insecure_channel(address) as channel:
        accepted = [channel.unary_unary(INFER).future(request().SerializeToString()) for _ in range(2)]
        eventually(lambda: len(gate.jobs) == 2)
        error = refused(address, request())
        assert (error.code(), "2 calls" in error.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        assert "grpc-retry-pushback-ms" in dict(error.trailing_metadata())
        assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status == 1
        gate.free.set()
        assert all(call.result(30) for call in accepted)
    assert ask(address, request()).model_name == "tiny"


def test_clients_that_watch_the_health_delay_no_stop(client: Any, loop: Any) -> None:
    server, port = loop.run(started(client.service))
    loop.run(server.tick())
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        client.service.draining = client.service.closed = True
        loop.run(server.tick())
        start = time.monotonic()
        loop.run(server.stop(20, lambda: False))
        assert time.monotonic() - start < 10
        assert [answer.status for answer in watch] == [health_pb2.HealthCheckResponse.NOT_SERVING]


def test_clients_that_watch_the_health_leave_room_for_calls(serve: Any, serve_grpc: Any, tiny_artifact: Any) -> None:
    address = serve_grpc(serve({"tiny": tiny_artifact()}, connections=8).service)
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(4)]
        assert [next(watch).status for watch in watches] == [health_pb2.HealthCheckResponse.SERVING] * 4
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=60))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        watches[0].cancel()
        for one in range(8):
            assert ask(address, request()).model_name == "tiny", one
        assert next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=60)).status == 1


def test_raw_contents_are_split_from_a_message_wherever_they_stand() -> None:
    asked = request(id="seven", raw_input_contents=[b"first", b"", bytes(300)])
    head, raw = split_raw(asked.SerializeToString())
    assert [bytes(one) for one in raw] == [b"first", b"", bytes(300)]
    asked.ClearField("raw_input_contents")
    assert public.ModelInferRequest.FromString(head) == asked
    first = public.ModelInferRequest(raw_input_contents=[b"x"]).SerializeToString()
    assert split_raw(first + head) == (head, [b"x"])
    unknown = bytes([0x78, 0x96, 0x01, 0x7D, 1, 2, 3, 4, 0x79, 1, 2, 3, 4, 5, 6, 7, 8])  # fields 15: varint, 4, 8 bytes
    assert split_raw(unknown + first) == (unknown, [b"x"])


@pytest.mark.parametrize("broken", [b"\x3a", b"\x3a\x05abc", b"\x0b", b"\xff" * 11, b"\x79abc", b"\x3a" + b"\xff" * 10])
def test_a_message_that_breaks_off_is_refused(broken: bytes) -> None:
    with pytest.raises(InputError, match="no message of the protocol"):
        split_raw(broken)


def test_a_message_of_endless_fields_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(TooLargeError, match="more than 264"):
        split_raw(b"\x2a\x00" * 10**6)
    with pytest.raises(TooLargeError, match="beside its raw_input_contents"):
        split_raw(public.ModelInferRequest(id="x" * 2**23).SerializeToString())


def fields(messages: Any, prefix: str = "") -> dict[str, tuple[int, int, bool]]:
    """Name of every field -> its number, type, and whether it is repeated."""
    found = {}
    for message in messages:
        name = f"{prefix}{message.name}"
        found |= {f"{name}.{one.name}": (one.number, one.type, one.is_repeated) for one in message.fields}
        found |= fields(message.nested_types, f"{name}.")
    return found


def test_the_messages_are_those_of_the_public_protocol() -> None:
    mine, theirs = (fields(file.DESCRIPTOR.message_types_by_name.values()) for file in (ours, public))
    assert len(mine) > 60
    assert {name: theirs.get(name) for name in mine} == mine
    (service,) = ours.DESCRIPTOR.services_by_name.values()
    published = public.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for method in service.methods:
        assert method.input_type.full_name == published[method.name].input_type.full_name
        assert method.output_type.full_name == published[method.name].output_type.full_name


def test_the_generated_files_are_up_to_date(tmp_path: Path) -> None:
    new = tmp_path / "new.desc"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{FOLDER}", f"--descriptor_set_out={new}"]
    subprocess.run([*command, "open_inference.proto"], check=True)
    files = new, FOLDER / "open_inference.desc"
    written, committed = (FileDescriptorSet.FromString(file.read_bytes()) for file in files)
    assert committed == written, "the top of open_inference.proto has the command that writes it"
    stubs = ast.parse((FOLDER / "open_inference_pb2.pyi").read_text())
    declared = {one.name: one for one in ast.walk(stubs) if isinstance(one, ast.ClassDef)}
    for name, message in ours.DESCRIPTOR.message_types_by_name.items():
        attributes = {one.target.id for one in declared[name].body if isinstance(one, ast.AnnAssign)}
        assert attributes >= set(message.fields_by_name)


@pytest.mark.parametrize(
    "method", [INFER, "/inference.GRPCInferenceService/ServerLive", "/grpc.health.v1.Health/Check"]
)
def test_a_message_that_does_not_arrive_is_not_waited_for(
    serve: Any, serve_grpc: Any, tiny_artifact: Any, method: str
) -> None:
    address = serve_grpc(serve({"tiny": tiny_artifact()}, timeout=0.2, connections=4).service)
    waiting = threading.Event()

    def never() -> Iterator[bytes]:
        waiting.wait(30)
        yield b""

    with grpc.insecure_channel(address) as channel:
        calls = [channel.stream_unary(method).future(never(), timeout=20) for _ in range(4)]
        codes = [call.code() for call in calls]
        waiting.set()
        assert ask(address, request()).model_name == "tiny"
    assert codes == [grpc.StatusCode.DEADLINE_EXCEEDED] * 4
    assert all("all of it within 0.2 s" in call.details() for call in calls)


def test_a_watch_whose_message_does_not_arrive_is_given_up(serve: Any, serve_grpc: Any, tiny_artifact: Any) -> None:
    address, waiting = serve_grpc(serve({"tiny": tiny_artifact()}, timeout=0.2).service), threading.Event()

    def never() -> Iterator[bytes]:
        waiting.wait(30)
        yield b""

    with grpc.insecure_channel(address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            next(channel.stream_stream("/grpc.health.v1.Health/Watch")(never(), timeout=20))
        waiting.set()
    assert "all of it within 0.2 s" in caught.value.details()


def test_raw_examples_are_in_memory_once(client: Any, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 2**22
    tensor, contents = {"name": "raw", "shape": [1], "datatype": "BYTES"}, size.to_bytes(4, "little") + bytes(size)
    data = request(inputs=[tensor], raw_input_contents=[contents]).SerializeToString()
    with traced_infer(client.service.models["tiny"], monkeypatch) as held:
        assert refused(address, data).code() == grpc.StatusCode.INVALID_ARGUMENT
    assert size < held[0] < 1.5 * size, held


def test_long_typed_contents_are_read_two_at_a_time(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = ConcurrentCalls(servicer.infer_request_of)
    monkeypatch.setattr(servicer, "infer_request_of", read)
    contents = {"fp32_contents": [0.1] * 2**18}
    long = request(inputs=[{"name": "input", "shape": [1], "datatype": "FP32", "contents": contents}])
    with grpc.insecure_channel(address) as channel:
        calls = [channel.unary_unary(INFER).future(long.SerializeToString()) for _ in range(4)]
        assert [call.code() for call in calls] == [grpc.StatusCode.INVALID_ARGUMENT] * 4
    assert read.most == 2


def test_the_memory_of_messages_in_flight_is_bounded(
    serve: Any, serve_grpc: Any, tiny_artifact: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve({"tiny": tiny_artifact()}, body_bytes=2**16, memory_for_bodies=2**16, request_rows=600)
    address, gate = serve_grpc(client.service), Gate(client.service, monkeypatch)
    half = request(raw_input_contents=[np.zeros((600, 1, 4, 4), np.float32).tobytes()])
    half.inputs[0].ClearField("contents")
    half.inputs[0].shape[:] = [600, 1, 4, 4]
    with grpc.insecure_channel(address) as channel:
        first = channel.unary_unary(INFER).future(half.SerializeToString())
        assert gate.begun.wait(30)
        error = refused(address, half)
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "The bodies of other requests take" in error.details()
        gate.free.set()
        first.result(30)
    assert client.service.bodies.held == 0
