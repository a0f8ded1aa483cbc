"""The protocol over HTTP: what it promises, and what becomes of requests that break it."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from concurrent_calls import ConcurrentCalls
from PIL import Image
from traced_infer import traced_infer

from sdcompress.errors import ArtifactError, DeviceError
from sdcompress.runtime.open import open_engine
from sdcompress.runtime.stepwise import Carried
from sdcompress.serving import http_infer
from sdcompress.serving.job import NO_SCORE, Job
from sdcompress.storage import digest_of

INFER = "/v2/models/tiny/infer"
ROW = [0.1] * 16
BASE64 = {"content_type": "base64"}


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 1, 4, 4)).astype(np.float32)


def png(seed: int = 0, size: tuple[int, int] = (4, 4)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "input", "shape": [1, 1, 4, 4], "datatype": "FP32", "data": ROW} | changes


def body(**changes: Any) -> dict[str, Any]:
    return {"inputs": [tensor()]} | changes


def outputs_of(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return {output["name"]: output["data"] for output in response.json()["outputs"]}


def test_metadata_of_server_and_model(client: Any) -> None:
    server = client.get("/v2").json()
    assert server["name"] == "sdcompress"
    assert server["extensions"] == ["binary_tensor_data"]
    model = client.get("/v2/models/tiny").json()
    assert model["name"] == "tiny"
    assert [(one["name"], one["datatype"], one["shape"]) for one in model["inputs"]] == [
        ("raw", "BYTES", [-1]),
        ("input", "FP32", [-1, 1, 4, 4]),
    ]
    assert [(one["name"], one["datatype"], one["shape"]) for one in model["outputs"]] == [
        ("answer", "BYTES", [-1]),
        ("decision", "INT64", [-1]),
        ("outputs", "FP32", [-1, 3]),
        ("exit_index", "INT64", [-1]),
        ("score", "FP32", [-1]),
        ("top", "BYTES", [-1]),
    ]
    assert client.get(f"/v2/models/tiny/versions/{model['versions'][0]}").json() == model


def test_health_says_ready_only_when_every_model_is_warm(serve: Any, tiny_artifact: Callable[..., Path]) -> None:
    client = serve({"tiny": tiny_artifact()}, warm=False)
    assert client.get("/v2/health/live").status_code == 200
    assert client.get("/v2/health/ready").status_code == 503
    assert client.get("/v2/models/tiny/ready").status_code == 503
    refused = client.infer(body())
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    client.service.start().join()
    assert client.get("/v2/health/ready").status_code == 200
    assert client.get("/v2/models/tiny/ready").status_code == 200
    assert client.infer(body()).status_code == 200


def test_a_service_that_drains_is_not_ready_but_answers_until_it_is_closed(client: Any) -> None:
    client.service.draining = True
    assert client.get("/v2/health/ready").status_code == 503
    assert client.infer(body()).status_code == 200
    client.service.closed = True
    refused = client.infer(body())
    assert refused.status_code == 503
    assert "retry-after" in refused.headers


def test_tensors_give_what_the_engine_gives(client: Any, tiny_artifact: Callable[..., Path]) -> None:
    engine, inputs = open_engine(tiny_artifact(policy=(0.7, 0.6), name="again")), images(20)
    expected = engine(inputs)
    shape = list(inputs.shape)
    answered = outputs_of(client.infer({"inputs": [tensor(shape=shape, data=inputs.ravel().tolist())]}))
    np.testing.assert_allclose(np.reshape(answered["outputs"], (20, 3)), expected.outputs, rtol=1e-6, atol=1e-6)
    assert answered["exit_index"] == expected.exit_index.tolist()
    assert answered["decision"] == expected.decision.tolist()
    assert len(set(answered["exit_index"])) > 1, "the policy has something to decide"
    for index, score, said, label in zip(
        answered["exit_index"], answered["score"], answered["answer"], expected.labels, strict=True
    ):
        ((name, probability),) = json.loads(said).items()
        assert name == label
        if index == 2:
            assert score == NO_SCORE
        else:
            assert score >= (0.7, 0.6)[index]
            assert score == pytest.approx(probability)


def test_nested_data_is_the_same_as_flat(client: Any) -> None:
    inputs = images(2)
    flat = client.infer({"inputs": [tensor(shape=[2, 1, 4, 4], data=inputs.ravel().tolist())]})
    nested = client.infer({"inputs": [tensor(shape=[2, 1, 4, 4], data=inputs.tolist())]})
    assert outputs_of(flat) == outputs_of(nested)


def test_id_and_version_come_back_and_only_wanted_outputs(client: Any) -> None:
    said = client.infer(body(id="seven", outputs=[{"name": "decision"}])).json()
    assert said["id"] == "seven"
    assert said["model_name"] == "tiny"
    assert said["model_version"] == client.get("/v2/models/tiny").json()["versions"][0]
    assert [output["name"] for output in said["outputs"]] == ["decision"]


def test_one_row_says_its_exit_and_score_in_the_parameters(client: Any) -> None:
    said = [client.infer(body(inputs=[tensor(data=images(1, seed).ravel().tolist())])).json() for seed in range(8)]
    by_exit = {one["parameters"]["exit"]: one["parameters"] for one in said}
    assert len(by_exit) > 1
    assert all(("score" in parameters) == (name != "final") for name, parameters in by_exit.items())
    assert not any("certificate_id" in one["parameters"] for one in said)
    assert all(len(one["parameters"]["artifact"]) == 64 for one in said)


def test_a_certificate_is_named_only_where_the_policy_alone_decided(serve: Any, certified_artifact: Path) -> None:
    client = serve({"tiny": certified_artifact})
    manifest = open_engine(certified_artifact).manifest  # type: ignore[attr-defined]
    parameters = client.infer(body()).json()["parameters"]
    assert parameters["certificate_id"] == digest_of(manifest.certificate.model_dump(mode="json"))
    for wish in ({"min_exit": "exit2"}, {"max_exit": 1}, {"deadline_ms": 1000}):
        assert "certificate_id" not in client.infer(body(parameters=wish)).json()["parameters"]


def test_binary_data_in_and_out(client: Any) -> None:
    inputs = images(3)
    head = {
        "inputs": [
            {
                "name": "input",
                "shape": [3, 1, 4, 4],
                "datatype": "FP32",
                "parameters": {"binary_data_size": inputs.nbytes},
            }
        ],
        "outputs": [
            {"name": "outputs"},
            {"name": "answer"},
            {"name": "decision", "parameters": {"binary_data": False}},
        ],
        "parameters": {"binary_data_output": True},
    }
    for blanks in range(4):  # the data lies at any address
        text = json.dumps(head).encode() + b" " * blanks
        response = client.request(
            "POST", INFER, content=text + inputs.tobytes(), headers={"Inference-Header-Content-Length": str(len(text))}
        )
        assert response.status_code == 200, response.text
        length = int(response.headers["Inference-Header-Content-Length"])
        said, tail = json.loads(response.content[:length]), response.content[length:]
        outputs, answers, decision = said["outputs"]
        expected = outputs_of(client.infer({"inputs": [tensor(shape=[3, 1, 4, 4], data=inputs.tolist())]}))
        assert decision["data"] == expected["decision"]
        size = outputs["parameters"]["binary_data_size"]
        assert (np.frombuffer(tail[:size], "<f4") == np.array(expected["outputs"], np.float32)).all()
        assert len(tail) == size + answers["parameters"]["binary_data_size"]
        (first,) = struct.unpack("<I", tail[size : size + 4])
        assert tail[size + 4 : size + 4 + first].decode() == expected["answer"][0]


def test_encoded_images_are_prepared_as_the_artifact_says(client: Any, tiny_artifact: Callable[..., Path]) -> None:
    engine = open_engine(tiny_artifact(policy=(0.7, 0.6), name="again"))
    files = [png(0), png(1, (9, 7))]
    expected = engine(engine.preprocess(files))
    raw = {"name": "raw", "shape": [2], "datatype": "BYTES"}
    in_json = raw | {
        "data": [base64.b64encode(one).decode() for one in files],
        "parameters": {"content_type": "base64"},
    }
    answered = outputs_of(client.infer({"inputs": [in_json]}))
    np.testing.assert_allclose(np.reshape(answered["outputs"], (2, 3)), expected.outputs, rtol=1e-6, atol=1e-6)
    content = b"".join(struct.pack("<I", len(one)) + one for one in files)
    text = json.dumps({"inputs": [raw | {"parameters": {"binary_data_size": len(content)}}]}).encode()
    binary = client.request(
        "POST", INFER, content=text + content, headers={"Inference-Header-Content-Length": str(len(text))}
    )
    assert outputs_of(binary) == answered


def test_pixels_are_prepared_too(client: Any, tiny_artifact: Callable[..., Path]) -> None:
    engine = open_engine(tiny_artifact(policy=(0.7, 0.6), name="again"))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 1), np.uint8)
    raw = {"name": "raw", "shape": [2, 6, 6, 1], "datatype": "UINT8", "data": pixels.ravel().tolist()}
    expected = engine(engine.preprocess(list(pixels)))
    answered = outputs_of(client.infer({"inputs": [raw]}))
    np.testing.assert_allclose(np.reshape(answered["outputs"], (2, 3)), expected.outputs, rtol=1e-6, atol=1e-6)


def test_an_exit_that_no_row_takes_has_a_head_only_for_requests_that_ask_for_it(
    serve: Any, tiny_artifact: Callable[..., Path], tiny_network: Any
) -> None:
    folder = tiny_artifact(policy=(2.0, 0.6))
    client, batch = serve({"tiny": folder}), images(20)
    expected = tiny_network.exits(batch)
    inputs = [tensor(shape=[20, 1, 4, 4], data=batch.ravel().tolist())]

    def answered(**parameters: Any) -> Any:
        return client.infer({"inputs": inputs, "parameters": parameters})

    (folder / "segment-0.onnx").rename(folder / "elsewhere")
    free = outputs_of(answered())
    assert set(free["exit_index"]) == {1, 2}
    outputs = np.reshape(free["outputs"], (20, 3))
    np.testing.assert_allclose(outputs, expected[free["exit_index"], np.arange(20)], rtol=1e-5, atol=1e-6)
    assert answered(max_exit=0).status_code == 500
    assert failures(client) == {"retried": 1, "bug": 1}
    assert answered().status_code == 200
    (folder / "elsewhere").rename(folder / "segment-0.onnx")
    shallow = np.reshape(outputs_of(answered(max_exit=0))["outputs"], (20, 3))
    np.testing.assert_allclose(shallow, expected[0], rtol=1e-5, atol=1e-6)
    assert outputs_of(answered(deadline_ms=1e-6))["exit_index"] == [0] * 20


def test_min_exit_max_exit_and_deadline(client: Any) -> None:
    inputs = [tensor(shape=[20, 1, 4, 4], data=images(20).ravel().tolist())]

    def exits(**parameters: Any) -> list[int]:
        return outputs_of(client.infer({"inputs": inputs, "parameters": parameters}))["exit_index"]

    free = exits()
    assert exits(min_exit="exit2") == [max(1, one) for one in exits(min_exit=1)]
    assert exits(max_exit="exit2") == [min(1, one) for one in free]
    assert exits(min_exit=2, max_exit="final") == [2] * 20
    assert exits(deadline_ms=1e-6) == [0] * 20
    assert exits(deadline_ms=60000) == free
    late = client.infer({"inputs": inputs, "parameters": {"deadline_ms": 1e-6}}).json()
    assert late["parameters"]["deadline_reached"] is True


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_bodies(client: Any, encoding: str) -> None:
    compress = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding]
    for content in (json.dumps(body()), json.dumps(body()) + " " * 200_000):
        sent = compress(content.encode())
        response = client.request("POST", INFER, content=sent, headers={"Content-Encoding": encoding})
        assert response.status_code == 200
    broken = client.request("POST", INFER, content=sent[:-3], headers={"Content-Encoding": encoding})
    assert broken.status_code == 400
    assert "broken" in broken.json()["error"]


MALFORMED: dict[str, tuple[Any, str]] = {
    "a list": ([], "'the body' does not fit the protocol"),
    "no inputs": ({}, "'inputs' does not fit the protocol"),
    "no input": (body(inputs=[]), "'inputs' does not fit the protocol"),
    "an unknown name": (body(inputs=[tensor(name="imput")]), "The inputs are imput"),
    "two of one name": (body(inputs=[tensor(), tensor()]), "Two inputs are called 'input'"),
    "raw and tensors": (body(inputs=[tensor(), tensor(name="raw")]), "The inputs are input, raw"),
    "an unknown datatype": (body(inputs=[tensor(datatype="FLOAT")]), "datatype 'FLOAT'"),
    "another datatype": (body(inputs=[tensor(datatype="INT64", data=[1] * 16)]), "The input 'input' is INT64"),
    "another shape": (body(inputs=[tensor(shape=[1, 1, 2, 8])]), "has the shape [1, 1, 2, 8]"),
    "another rank": (body(inputs=[tensor(shape=[16])]), "The request has 16 rows|has the shape"),
    "a negative size": (body(inputs=[tensor(shape=[-1, 1, 4, 4])]), "has the shape [-1, 1, 4, 4]"),
    "no shape": (body(inputs=[tensor(shape=[])]), "does not fit the protocol"),
    "many axes": (body(inputs=[tensor(shape=[1] * 9)]), "does not fit the protocol"),
    "a size that is no whole number": (body(inputs=[tensor(shape=[1.5, 1, 4, 4])]), "does not fit the protocol"),
    "a huge shape": (body(inputs=[tensor(shape=[2**40, 1, 4, 4])]), "has the shape"),
    "no row of a huge shape": (body(inputs=[tensor(shape=[0, *[2**30] * 3], data=[])]), "has the shape"),
    "no row": (body(inputs=[tensor(shape=[0, 1, 4, 4], data=[])]), "has 0 rows"),
    "too few numbers": (body(inputs=[tensor(data=ROW[:-1])]), "has 15 elements"),
    "no data": (body(inputs=[tensor(data=None)]), "has no data"),
    "a text as data": (body(inputs=[tensor(data="abc")]), "has no data"),
    "texts among numbers": (body(inputs=[tensor(data=["a", *ROW[1:]])]), "it holds other values"),
    "truth values among numbers": (body(inputs=[tensor(data=[True, *ROW[1:]])]), "it holds other values"),
    "null among numbers": (body(inputs=[tensor(data=[None, *ROW[1:]])]), "it holds other values"),
    "ragged": (body(inputs=[tensor(data=[[[ROW[:4], ROW[:4], ROW[:4], ROW[:3]]]])]), "nested in another way"),
    "a number out of range": (body(inputs=[tensor(data=[1e39, *ROW[1:]])]), "not finite"),
    "an unknown output": (body(outputs=[{"name": "logits"}]), "There is no output 'logits'"),
    "an output twice": (body(outputs=[{"name": "score"}] * 2), "An output is asked for twice"),
    "an unknown parameter": (body(parameters={"max_exti": 1}), "Did you mean 'max_exit'"),
    "too many parameters": (body(parameters={str(at): [] for at in range(65)}), "at most 64 parameters"),
    "a parameter of another type": (body(parameters={"min_exit": [1]}), "does not fit the protocol"),
    "an unknown exit": (body(parameters={"min_exit": "exit9"}), "min_exit is exit9"),
    "an exit that does not exist": (body(parameters={"max_exit": 3}), "max_exit is 3"),
    "exits in the wrong order": (body(parameters={"min_exit": 2, "max_exit": 1}), "behind max_exit"),
    "no deadline": (body(parameters={"deadline_ms": 0}), "deadline_ms is 0"),
    "a deadline that is a text": (body(parameters={"deadline_ms": "5"}), "deadline_ms is 5"),
    "classification of Triton": (
        body(outputs=[{"name": "outputs", "parameters": {"classification": 3}}]), "no parameter 'classification'"
    ),
    "shared memory of Triton": (
        body(inputs=[tensor(parameters={"shared_memory_region": "x"})]), "no parameter 'shared_memory_region'"
    ),
    "binary data without its header": (
        body(inputs=[tensor(data=None, parameters={"binary_data_size": 64})]), "binary_data_size of 64, and 0 bytes"
    ),
    "raw of another rank": (body(inputs=[tensor(name="raw", datatype="BYTES", shape=[1, 1], data=["a"])]), "raw"),
    "raw that is no image": (
        body(inputs=[tensor(name="raw", datatype="BYTES", shape=[1], data=["hello"])]), "raw example 0"
    ),
    "raw that names a file": (
        body(inputs=[tensor(name="raw", datatype="BYTES", shape=[1], data=[__file__])]), "It is no image"
    ),
    "raw that is no base64": (
        body(inputs=[tensor(name="raw", datatype="BYTES", shape=[1], data=["é"], parameters=BASE64)]), "no base64",
    ),
    "raw numbers": (body(inputs=[tensor(name="raw", datatype="FP32", shape=[1], data=[1.0])]), "'raw' is FP32"),
}  # fmt: skip


def test_every_malformed_request_is_refused_with_a_reason(client: Any) -> None:
    for what, (request, reason) in MALFORMED.items():
        response = client.infer(request)
        assert response.status_code == 400, (what, response.text)
        error = response.json()["error"]
        assert any(one in error for one in reason.split("|")), (what, error)
        assert "Allowed: " in error or "Next: " in error


def test_what_is_no_request_at_all(client: Any) -> None:
    def post(content: bytes, **headers: str) -> tuple[int, str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = client.request("POST", INFER, content=content, headers=named)
        return response.status_code, response.json()["error"]

    good = json.dumps(body()).encode()
    for content in (b"", b"{", b'{"inputs": NaN}', b"\xff", b"[" * 5000, b'{"inputs":' + b"[" * 5000):
        code, error = post(content)
        assert (code, error.startswith("The body is no JSON")) == (400, True)
    for length in ("x", "-1", "0", "99999", "9" * 30):
        assert post(good, Inference_Header_Content_Length=length)[0] == 400
    assert post(good + b"rest", Inference_Header_Content_Length=str(len(good)))[1].startswith("4 bytes behind the JSON")
    assert post(good, Content_Encoding="br")[0] == 415
    nan = np.array([np.nan] * 16, "<f4").tobytes()
    head = json.dumps(body(inputs=[tensor(data=None, parameters={"binary_data_size": 64})])).encode()
    code, error = post(head + nan, Inference_Header_Content_Length=str(len(head)))
    assert (code, "not finite" in error) == (400, True)
    code, error = post(head + nan[:60], Inference_Header_Content_Length=str(len(head)))
    assert (code, "60 bytes are left" in error) == (400, True)


def test_paths_and_methods(client: Any) -> None:
    for path, method, code in (
        (INFER, "GET", 405),
        ("/v2/models/tiny", "POST", 405),
        ("/v2/models/tinny", "GET", 404),
        ("/v2/models/tinny/infer", "POST", 404),
        ("/v2/models/tiny/versions/7", "GET", 404),
        ("/v2/models/..%2f..%2fetc/ready", "GET", 404),
        ("/", "GET", 404),
        ("/v1/models/tiny:predict", "POST", 404),
    ):
        response = client.request(method, path)
        assert response.status_code == code, path
        assert "Allowed: " in response.json()["error"]
    assert "Did you mean 'tiny'" in client.get("/v2/models/tinny").json()["error"]


def test_limits(serve: Any, tiny_artifact: Callable[..., Path]) -> None:
    client = serve({"tiny": tiny_artifact()}, body_bytes=5000, request_rows=2, decoded_bytes=8 * 20)
    assert client.infer(body()).status_code == 200
    rows = client.infer(body(inputs=[tensor(shape=[3, 1, 4, 4], data=[0] * 48)]))
    assert (rows.status_code, "1 to 2" in rows.json()["error"]) == (413, True)
    long = json.dumps(body()).encode() + b" " * 5000
    assert client.request("POST", INFER, content=long).status_code == 413

    async def chunks() -> Any:
        for at in range(0, len(long), 100):
            yield long[at : at + 100]

    assert client.request("POST", INFER, content=chunks()).status_code == 413
    bomb = gzip.compress(long)
    assert len(bomb) < 1000
    assert client.request("POST", INFER, content=bomb, headers={"Content-Encoding": "gzip"}).status_code == 413
    large = {"name": "raw", "shape": [1], "datatype": "BYTES", "parameters": {"content_type": "base64"}}
    refused = client.infer({"inputs": [large | {"data": [base64.b64encode(png(0, (5, 5))).decode()]}]})
    assert (refused.status_code, "at most 20 pixels" in refused.json()["error"]) == (400, True)
    assert client.infer({"inputs": [large | {"data": [base64.b64encode(png(0, (4, 4))).decode()]}]}).status_code == 200


def test_a_body_that_does_not_arrive_is_given_up(serve: Any, tiny_artifact: Callable[..., Path]) -> None:
    client = serve({"tiny": tiny_artifact()}, timeout=0.05)

    async def slowly() -> Any:
        yield b"{"
        await asyncio.sleep(5)
        yield b"}"

    response = client.request("POST", INFER, content=slowly())
    assert (response.status_code, "within 0.05 s" in response.json()["error"]) == (408, True)


def test_the_bodies_of_all_requests_together_are_bounded(serve: Any, tiny_artifact: Callable[..., Path]) -> None:
    client = serve({"tiny": tiny_artifact()}, body_bytes=6000, memory_for_bodies=10_000)
    content = json.dumps(body()).encode()
    held = client.service.metrics.registry.get_sample_value

    async def ask() -> list[tuple[int, httpx.Headers]]:
        first_is_here, free = asyncio.Event(), asyncio.Event()

        async def slowly() -> Any:
            yield content + b" " * (5000 - len(content))
            first_is_here.set()
            await free.wait()
            yield b" "

        async with client.connect() as connection:
            first = asyncio.ensure_future(connection.post(INFER, content=slowly()))
            await first_is_here.wait()
            assert held("sdcompress_body_bytes") == 5000
            long = content + b" " * (5001 - len(content))
            responses = [await connection.post(INFER, content=long)]  # its length is declared
            responses.append(await connection.post(INFER, content=_in_pieces(long)))
            small = gzip.compress(long)
            responses.append(await connection.post(INFER, content=small, headers={"Content-Encoding": "gzip"}))
            responses.append(await connection.post(INFER, content=content))
            free.set()
            return [(response.status_code, response.headers) for response in (*responses, await first)]

    answers = asyncio.run(ask())
    assert [code for code, _ in answers] == [429, 429, 429, 200, 200]
    assert all("retry-after" in headers for code, headers in answers if code == 429)
    assert held("sdcompress_body_bytes") == 0


def test_raw_examples_are_in_memory_once(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    size, part = 2**22, bytes(2**16)
    raw = {"name": "raw", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 4 + size}}
    head = json.dumps({"inputs": [raw]}).encode()

    async def content() -> Any:
        yield head + struct.pack("<I", size)
        for _ in range(size // len(part)):
            yield part

    with traced_infer(client.service.models["tiny"], monkeypatch) as held:
        response = client.request(
            "POST", INFER, content=content(), headers={"Inference-Header-Content-Length": str(len(head))}
        )
    assert (response.status_code, size < held[0] < 1.5 * size) == (400, True), held


def test_long_json_is_read_two_at_a_time(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parse, content = ConcurrentCalls(http_infer.parse), json.dumps(body()).encode()

    async def ask() -> list[int]:
        async with client.connect() as connection:
            sent = (connection.post(INFER, content=content + b" " * 2**20) for _ in range(4))
            return [response.status_code for response in await asyncio.gather(*sent)]

    monkeypatch.setattr(http_infer, "parse", parse)
    assert asyncio.run(ask()) == [200] * 4
    assert parse.most == 2


async def _in_pieces(content: bytes) -> Any:
    for at in range(0, len(content), 500):
        yield content[at : at + 500]


def test_a_bug_shows_nothing_of_itself(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(client.service.models["tiny"], "prediction", broken)
    response = client.infer(body())
    assert response.status_code == 500
    assert "secret" not in response.text


def stall(client: Any, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let every stage take so long."""
    stages = client.service.models["tiny"]._stages
    run = stages.run

    def slow(*arguments: Any, outputs: bool) -> Any:
        time.sleep(seconds)
        return run(*arguments, outputs=outputs)

    monkeypatch.setattr(stages, "run", slow)


def test_a_full_queue_answers_429_with_the_time_to_wait(
    serve: Any, tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve({"tiny": tiny_artifact(policy=(0.7, 0.6))}, queue_rows=2, latency_bound=1000.0)
    stall(client, monkeypatch, 0.05)

    async def ask() -> list[httpx.Response]:
        async with client.connect() as connection:
            return await asyncio.gather(*(connection.post(INFER, json=body()) for _ in range(6)))

    responses = asyncio.run(ask())
    codes = [response.status_code for response in responses]
    assert sorted(codes) == [200] * 2 + [429] * 4
    assert all(int(response.headers["retry-after"]) >= 1 for response in responses if response.status_code == 429)
    assert all("The queue is full" in response.json()["error"] for response in responses if response.status_code == 429)


def test_a_request_that_takes_too_long_is_given_up(
    serve: Any, tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve({"tiny": tiny_artifact()}, timeout=0.05)
    stall(client, monkeypatch, 0.2)
    response = client.infer(body())
    assert response.status_code == 503
    assert "retry-after" in response.headers
    client.service.stop()
    assert client.service.models["tiny"]._worker.rows == 0


def test_a_client_that_goes_away_cancels_its_request(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stall(client, monkeypatch, 0.1)
    content, sent = json.dumps(body()).encode(), []

    async def ask() -> None:
        messages = [{"type": "http.request", "body": content, "more_body": False}, {"type": "http.disconnect"}]

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0.01)
            return messages.pop(0)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": INFER, "headers": [], "query_string": b"", "root_path": ""}
        await client.application(scope, receive, send)

    asyncio.run(ask())
    assert sent[0]["status"] == 499
    client.service.stop()
    worker = client.service.models["tiny"]._worker
    assert worker.rows == 0


def test_several_models_by_name(serve: Any, tiny_artifact: Callable[..., Path]) -> None:
    client = serve({"one": tiny_artifact(name="a"), "two": tiny_artifact("single", name="b")})
    for name, exits in (("one", 3), ("two", 1)):
        said = client.infer(body(), f"/v2/models/{name}/infer").json()
        assert said["model_name"] == name
        assert outputs_of(client.infer(body(), f"/v2/models/{name}/infer"))["exit_index"] == [exits - 1]


def test_layouts_without_a_gain_work_too(serve: Any, tiny_artifact: Callable[..., Path]) -> None:
    client = serve({"tiny": tiny_artifact("all", policy=(0.7, 0.6))})
    engine, inputs = open_engine(tiny_artifact("all", policy=(0.7, 0.6), name="again")), images(20)
    answered = outputs_of(client.infer({"inputs": [tensor(shape=[20, 1, 4, 4], data=inputs.ravel().tolist())]}))
    assert answered["exit_index"] == engine(inputs).exit_index.tolist()


def test_many_requests_at_once_each_get_their_own_answer(client: Any, tiny_artifact: Callable[..., Path]) -> None:
    engine, inputs = open_engine(tiny_artifact(policy=(0.7, 0.6), name="again")), images(60)
    expected = engine(inputs)

    async def ask() -> list[httpx.Response]:
        async with client.connect() as connection:
            return await asyncio.gather(
                *(connection.post(INFER, json=body(inputs=[tensor(data=one.ravel().tolist())])) for one in inputs)
            )

    answers = [outputs_of(response) for response in asyncio.run(ask())]
    assert [one["exit_index"][0] for one in answers] == expected.exit_index.tolist()
    np.testing.assert_allclose([one["outputs"] for one in answers], expected.outputs, rtol=1e-5, atol=1e-6)


def test_metrics_count_requests_exits_batches_and_the_queue(client: Any) -> None:
    client.infer({"inputs": [tensor(shape=[20, 1, 4, 4], data=images(20).ravel().tolist())]})
    client.infer(body(inputs=[]))
    value = client.service.metrics.registry.get_sample_value
    assert value("sdcompress_requests_total", {"model": "tiny", "outcome": "ok"}) == 1
    assert value("sdcompress_requests_total", {"model": "tiny", "outcome": "invalid"}) == 1
    assert value("sdcompress_request_seconds_count", {"model": "tiny"}) == 1
    names = ("exit1", "exit2", "final")
    exits, narrowed = (
        [value("sdcompress_exits_total", {"model": "tiny", "exit": name, "decided_by": by}) for name in names]
        for by in ("policy", "request")
    )
    assert sum(exits) == 20
    assert narrowed == [0, 0, 0]
    assert value("sdcompress_exit_score_count", {"model": "tiny", "exit": "exit1"}) == exits[0]
    assert value("sdcompress_stage_seconds_count", {"model": "tiny", "exit": "exit1"}) >= 1
    assert value("sdcompress_batch_rows_sum", {"model": "tiny", "exit": "exit1"}) == 20
    assert value("sdcompress_queue_rows", {"model": "tiny"}) == 0


def test_exits_that_the_request_narrowed_are_counted_apart(client: Any) -> None:
    for parameters in ({"min_exit": "final"}, {"deadline_ms": 1000.0}, {}):
        assert client.infer(body(parameters=parameters)).status_code == 200
    exits = client.service.metrics.figures("tiny")["exits"]
    assert sum(exits["policy"].values()) == 1
    assert sum(exits["request"].values()) == 2
    assert exits["request"]["final"] >= 1


def test_the_output_top_comes_only_when_it_is_named(client: Any) -> None:
    assert "top" not in outputs_of(client.infer(body()))
    said = outputs_of(client.infer(body(outputs=[{"name": "top"}, {"name": "answer"}])))
    (top,), (answer,) = (list(map(json.loads, said[name])) for name in ("top", "answer"))
    assert list(top)[:1] == list(answer)
    assert list(top.values()) == sorted(top.values(), reverse=True)
    assert sum(top.values()) == pytest.approx(1)


def test_health_has_the_bodies_of_the_protocol(client: Any) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/tiny/ready").json() == {"name": "tiny", "ready": True}
    client.service.stop()  # ends the worker
    assert client.get("/v2/models/tiny/ready").json() == {"name": "tiny", "ready": False}
    assert not client.service.models["tiny"].ready


def raw_request() -> dict[str, Any]:
    raw = {"name": "raw", "shape": [1], "datatype": "BYTES", "parameters": BASE64}
    return {"inputs": [raw | {"data": [base64.b64encode(png()).decode()]}]}


def test_raw_examples_that_wait_for_their_preparation_are_bounded_and_given_up(
    serve: Any, tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve({"tiny": tiny_artifact()}, queue_rows=2, timeout=0.1)
    model, free = client.service.models["tiny"], threading.Event()

    def blocked(_: Any) -> None:
        free.wait(10)

    monkeypatch.setattr(model.reader, "read", blocked)

    async def ask() -> list[httpx.Response]:
        async with client.connect() as connection:
            responses = await asyncio.gather(*(connection.post(INFER, json=raw_request()) for _ in range(5)))
        free.set()
        return responses

    responses = asyncio.run(ask())
    assert sorted(response.status_code for response in responses) == [429] * 3 + [503] * 2
    assert all("retry-after" in response.headers for response in responses)
    monkeypatch.undo()
    assert client.infer(raw_request()).status_code == 200


def failures(client: Any) -> dict[str, float]:
    """Failed batches by their cause."""
    return {
        sample.labels["cause"]: sample.value
        for metric in client.service.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "sdcompress_failed_batches_total"
    }


BAD_INPUTS = ArtifactError("secret")
NO_MEMORY = DeviceError("secret")


@pytest.mark.parametrize(
    "case",  # an error, whether the probe has it too, code, cause
    [
        (BAD_INPUTS, False, 422, "inputs"),
        (BAD_INPUTS, True, 503, "device"),  # whatever the message says: the network ran these inputs before
        (NO_MEMORY, False, 503, "device"),
        (MemoryError("secret"), False, 503, "device"),
        (IndexError("secret"), False, 500, "bug"),
    ],
)
def test_a_client_is_blamed_only_for_what_its_inputs_cause(
    client: Any, monkeypatch: pytest.MonkeyPatch, case: tuple[Exception, bool, int, str]
) -> None:
    error, probe_fails, code, cause = case
    model = client.service.models["tiny"]
    run = model._stages.run

    def failing(stage: int, carried: Carried, *, outputs: bool) -> Any:
        if probe_fails or carried.tensors["input"].ravel()[0] == np.float32(ROW[0]):
            raise error
        return run(stage, carried, outputs=outputs)

    with monkeypatch.context() as patch:
        patch.setattr(model._stages, "run", failing)
        response = client.infer(body())
        assert (response.status_code, "secret" in response.text) == (code, False)
        assert ("retry-after" in response.headers) == (code == 503)
        assert failures(client) == {"retried": 1, cause: 1}
        assert model.ready != probe_fails
    value = client.service.metrics.registry.get_sample_value
    outcome = "uncomputable" if code == 422 else "failed"
    assert value("sdcompress_requests_total", {"model": "tiny", "outcome": outcome}) == 1
    deadline = time.monotonic() + 10
    while not model.ready and time.monotonic() < deadline:  # no request is needed to find out
        time.sleep(0.01)
    assert model.ready
    assert client.infer(body()).status_code == 200


def test_a_fault_that_passes_costs_no_request(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stages, faults = client.service.models["tiny"]._stages, [NO_MEMORY]
    run = stages.run

    def failing_once(*arguments: Any, outputs: bool) -> Any:
        if faults:
            raise faults.pop()
        return run(*arguments, outputs=outputs)

    monkeypatch.setattr(stages, "run", failing_once)
    assert client.infer(body()).status_code == 200
    assert failures(client) == {"retried": 1}


def test_a_score_that_is_not_a_number_leaves_the_metrics_whole(client: Any) -> None:
    job = Job(Carried({"input": images(1)}), bound=1.0)
    job.record(np.arange(1), np.zeros((1, 3), np.float32), np.full(1, np.nan, np.float32), 0)
    client.service.models["tiny"].metrics.answered(job, "policy")
    value = client.service.metrics.registry.get_sample_value
    assert value("sdcompress_exit_score_sum", {"model": "tiny", "exit": "exit1"}) == 0


def test_the_time_of_preparation_counts_towards_the_latency_bound(
    serve: Any, tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve({"tiny": tiny_artifact()}, latency_bound=1.0)
    read, began = client.service.models["tiny"].reader.read, list[float]()

    def slow(tensors: Any) -> Any:
        began.append(time.monotonic())
        time.sleep(0.2)
        return read(tensors)

    monkeypatch.setattr(client.service.models["tiny"].reader, "read", slow)
    assert client.infer(raw_request()).status_code == 200  # from which the model learns the 0.2 s

    async def ask() -> list[httpx.Response]:
        async with client.connect() as connection:
            return await asyncio.gather(*(connection.post(INFER, json=raw_request()) for _ in range(20)))

    responses = asyncio.run(ask())
    # two threads: the k-th request would be ready after 0.1 k + 0.2 s, and seven tenths of the bound may be filled
    accepted = sum(response.status_code == 200 for response in responses)
    assert 4 <= accepted <= 6
    assert [response.status_code for response in responses].count(429) == 20 - accepted
    assert len(began) == 1 + accepted, "refused before they are prepared"
    assert client.service.preparing.wait_s == pytest.approx(0)


def test_what_was_accepted_is_answered_though_the_service_closes_while_it_is_prepared(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, service = client.service.models["tiny"].reader, client.service
    read = reader.read

    def closing(tensors: Any) -> Any:
        service.draining = service.closed = True
        return read(tensors)

    monkeypatch.setattr(reader, "read", closing)
    assert client.infer(raw_request()).status_code == 200
    assert client.infer(raw_request()).status_code == 503


def test_a_request_to_a_model_that_has_stopped_is_refused_at_once(client: Any) -> None:
    client.service.models["tiny"].stop()
    refused = client.infer(body())
    assert (refused.status_code, "has stopped" in refused.json()["error"]) == (503, True)


def test_a_slow_client_does_not_use_up_the_bound(
    serve: Any, tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, bounds = serve({"tiny": tiny_artifact()}, latency_bound=0.2), []
    worker = client.service.models["tiny"]._worker
    submit = worker.submit

    def watched(job: Any, **options: Any) -> None:
        bounds.append(job.bound - time.monotonic())
        submit(job, **options)

    monkeypatch.setattr(worker, "submit", watched)

    async def slowly() -> Any:
        yield b" "
        await asyncio.sleep(0.3)
        yield json.dumps(body()).encode()

    assert client.request("POST", INFER, content=slowly()).status_code == 200
    assert 0 < bounds[0] <= 0.2
