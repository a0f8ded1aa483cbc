"""The runtime of MLServer answers as the engine does, and refuses as the server does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlserver_stub import InferenceRequest, MLServerError, install, settings_of

import sdcompress
from sdcompress.artifact.read import open_artifact
from sdcompress.errors import UsageError
from sdcompress.options import Options

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def artifact(tiny_artifact: Callable[..., Path]) -> Path:
    return tiny_artifact(policy=(0.85, 0.75))


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def runtime(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop
) -> Iterator[Any]:
    """The runtime, loaded from what ``package --to mlserver`` wrote."""
    install(monkeypatch)
    sdcompress.package(artifact, tmp_path / "package", "mlserver", {"name": "net", "threads": 1}, Options())
    runtime = created(tmp_path / "package")
    assert loop.run_until_complete(runtime.load())
    yield runtime
    assert loop.run_until_complete(runtime.unload())


def created(folder: Path, **extra: Any) -> Any:
    from importlib import import_module

    values = json.loads((folder / "model-settings.json").read_text())
    values["parameters"]["extra"] |= extra
    module, _, name = values["implementation"].rpartition(".")
    return getattr(import_module(module), name)(settings_of(folder, values))


def request(inputs: Any, **more: Any) -> InferenceRequest:
    tensor = {"name": "input", "datatype": "FP32", "shape": list(inputs.shape), "data": inputs.ravel().tolist()}
    return InferenceRequest.model_validate({"inputs": [tensor], **more})


def golden(artifact: Path) -> Any:
    opened = open_artifact(artifact)
    return opened.modality.collate(opened.golden().examples).arrays["input"]


def test_rows_exit_as_in_the_engine_and_the_parameters_say_where(
    runtime: Any, artifact: Path, loop: asyncio.AbstractEventLoop
) -> None:
    inputs = golden(artifact)
    expected = sdcompress.open(artifact)({"input": inputs})
    assert set(expected.exit_index.tolist()) == {0, 1, 2}
    for row in range(len(inputs)):
        response = loop.run_until_complete(runtime.predict(request(inputs[row : row + 1], id="7")))
        data = {one.name: one.data.root for one in response.outputs}
        exit_index = int(expected.exit_index[row])
        assert (response.model_name, response.id, data["exit_index"]) == ("net", "7", [exit_index])
        np.testing.assert_allclose(data["outputs"], expected.outputs[row], rtol=0, atol=1e-6)
        parameters = response.parameters.model_dump(exclude_none=True)
        assert parameters["exit"] == open_artifact(artifact).manifest.exits[exit_index].name
        assert ("score" in parameters) == (exit_index < 2)
        assert json.loads(data["answer"][0])


def test_metadata_is_that_of_the_server(runtime: Any, artifact: Path) -> None:
    assert [(one.name, one.datatype.value, one.shape) for one in runtime.inputs] == [
        ("raw", "BYTES", [-1]),
        ("input", "FP32", [-1, 1, 4, 4]),
    ]
    assert [one.name for one in runtime.outputs] == ["answer", "decision", "outputs", "exit_index", "score", "top"]
    assert runtime.settings.versions == [open_artifact(artifact).manifest.digest[:12]]


def test_requests_at_the_same_time_share_batches(runtime: Any, artifact: Path, loop: asyncio.AbstractEventLoop) -> None:
    inputs = golden(artifact)

    async def together() -> Any:
        return await asyncio.gather(*(runtime.predict(request(row[None])) for row in inputs))

    responses = loop.run_until_complete(together())
    expected = sdcompress.open(artifact)({"input": inputs}).exit_index.tolist()
    assert [one.outputs[3].data.root[0] for one in responses] == expected


def test_parameters_of_a_request_limit_the_exits(runtime: Any, artifact: Path, loop: asyncio.AbstractEventLoop) -> None:
    payload = request(golden(artifact)[:1], parameters={"min_exit": 1, "max_exit": 1, "headers": {"a": "b"}})
    response = loop.run_until_complete(runtime.predict(payload))
    assert response.outputs[3].data.root == [1]


@pytest.mark.parametrize("content_type", [None, "str", "base64"])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_texts_arrive_as_they_were_sent(content_type: str | None, as_bytes: bool, monkeypatch: Any) -> None:
    install(monkeypatch)
    from sdcompress.serving.mlserver import _request

    sent: Any = "aGk=" if content_type == "base64" else "hi"
    tensor = {"name": "raw", "datatype": "BYTES", "shape": [1, 1], "data": [sent.encode() if as_bytes else sent]}
    payload = InferenceRequest.model_validate({"inputs": [{**tensor, "parameters": {"content_type": content_type}}]})
    (read,) = _request(payload).inputs.values()
    assert (read.shape, read.data) == ((1,), (b"hi",))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"parameters": {"max_exits": 1}}, "Did you mean 'max_exit'"),
        ({"outputs": [{"name": "logits"}]}, "There is no output 'logits'"),
        ({"inputs": []}, "'inputs' does not fit the protocol"),
    ],
)
def test_refusals_are_those_of_the_server(
    runtime: Any, artifact: Path, loop: asyncio.AbstractEventLoop, change: dict[str, Any], problem: str
) -> None:
    payload = InferenceRequest.model_validate({**request(golden(artifact)[:1]).model_dump(), **change})
    with pytest.raises(MLServerError, match=problem) as refused:
        loop.run_until_complete(runtime.predict(payload))
    assert refused.value.status_code == 400


def test_unknown_options_are_refused(runtime: Any, tmp_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    with pytest.raises(UsageError, match="Did you mean 'latency_bound'"):
        loop.run_until_complete(created(tmp_path / "package", latency_bond=1).load())


def test_the_package_holds_the_artifact_as_it_is(artifact: Path, tmp_path: Path) -> None:
    sdcompress.package(artifact, tmp_path / "out", "mlserver", {"latency_bound": 0.2, "batch_rows": 8})
    settings = json.loads((tmp_path / "out" / "model-settings.json").read_text())
    assert settings["parameters"]["uri"] == "./artifact"
    assert settings["parameters"]["extra"] == {"device": "cpu", "latency_bound": 0.2, "batch_rows": 8}
    digest = open_artifact(artifact).manifest.digest
    assert open_artifact(tmp_path / "out" / "artifact").manifest.digest == digest
    assert settings["parameters"]["version"] == digest[:12]
    assert "artifact/manifest.json" in (tmp_path / "out" / "SHA256SUMS").read_text()


def test_what_was_packaged_without_its_certificate_is_allowed_to_load(certified_artifact: Path, tmp_path: Path) -> None:
    extra = {}
    for device in ("cpu", "cuda"):  # the certificate is for cpu
        out, settings = tmp_path / device, {"device": device}
        sdcompress.package(certified_artifact, out, "mlserver", settings, Options(allow_uncertified=True))
        extra[device] = json.loads((out / "model-settings.json").read_text())["parameters"]["extra"]
    assert extra == {"cpu": {"device": "cpu"}, "cuda": {"device": "cuda", "allow_uncertified": True}}
