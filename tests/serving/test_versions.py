"""Versions: loaded beside the one that serves, exchanged without losing a request, rolled back, given up."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client import generate_latest

from sdcompress.errors import ArtifactError, SetupError, UsageError
from sdcompress.options import EngineOptions
from sdcompress.runtime.open import open_cascade
from sdcompress.serving import source as source_module
from sdcompress.serving.app import create_app
from sdcompress.serving.control import ControlServer, create_control_app
from sdcompress.serving.errors import NoSuchModelError, UnavailableError
from sdcompress.serving.model import ServedModel
from sdcompress.serving.options import ServiceOptions
from sdcompress.serving.service import Service
from sdcompress.serving.source import Source

INFER = "/v2/models/tiny/infer"
VERSION = "/v2/models/tiny/versions"
CONTROL = "/v2/repository/models/tiny"
OLD, NEW = (0.7, 0.6), (0.99, 0.98)  # thresholds, so that rows take other exits

Write = Callable[..., Path]


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 1, 4, 4)).astype(np.float32)


def body(rows: np.ndarray) -> bytes:
    tensor = {"name": "input", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
    return json.dumps({"inputs": [tensor], "outputs": [{"name": "exit_index"}]}).encode()


class Serving:
    """A service whose folder is a link to one of two artifacts, asked in this process."""

    def __init__(self, write: Write, tmp_path: Path, **options: Any) -> None:
        self.write, self.link = write, tmp_path / "served"
        self.folders = {name: write(policy=policy, name=name) for name, policy in (("old", OLD), ("new", NEW))}
        engines = {name: open_cascade(folder) for name, folder in self.folders.items()}
        self.exits = {name: engine(images(20)).exit_index.tolist() for name, engine in engines.items()}
        assert self.exits["old"] != self.exits["new"]
        self.names = {name: engine.manifest.digest[:12] for name, engine in engines.items()}
        self.point_to("old")
        source = Source(self.link, EngineOptions(threads=1))
        self.service = Service({"tiny": source.open()}, ServiceOptions(**options), sources={"tiny": source})
        self.service.start().join()
        self.repository, self.load = self.service.repository, lambda: self.service.repository.load("tiny")

    def point_to(self, name: str) -> None:
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(self.folders[name])

    def connect(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(create_app(self.service)), base_url="http://service")

    def ask(self, path: str = INFER, content: bytes | None = body(images(20))) -> httpx.Response:
        async def asked() -> httpx.Response:
            async with self.connect() as client:
                return await (client.get(path) if content is None else client.post(path, content=content))

        return asyncio.run(asked())

    def control(self, path: str, content: bytes = b"", **headers: str) -> httpx.Response:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(create_control_app(self.repository))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8003") as client:
                return await client.post(path, content=content, headers=headers)

        return asyncio.run(asked())

    def serves(self, name: str) -> bool:
        answer = self.ask().json()
        return answer["model_version"] == self.names[name] and answer["outputs"][0]["data"] == self.exits[name]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.service.metrics.registry.get_sample_value(name, {"model": "tiny", **labels})

    def retired(self, model: ServedModel) -> bool:
        deadline = time.monotonic() + 20
        while model._worker is not None and model._worker.healthy and time.monotonic() < deadline:
            time.sleep(0.01)
        return model._worker is not None and not model._worker.healthy


Begin = Callable[..., Serving]


@pytest.fixture
def begin(tiny_artifact: Write, tmp_path: Path) -> Iterator[Begin]:
    running: list[Serving] = []

    def start(**options: Any) -> Serving:
        running.append(Serving(tiny_artifact, tmp_path, **options))
        return running[-1]

    yield start
    for serving in running:
        serving.service.stop()


def test_a_load_under_traffic_loses_no_request_and_mixes_no_versions(begin: Begin) -> None:
    serving = begin()
    serving.point_to("new")

    async def ask() -> list[dict[str, Any]]:
        answers, loading = [], asyncio.ensure_future(asyncio.to_thread(serving.load))
        async with serving.connect() as client:
            after = 0
            while after < 3:
                responses = await asyncio.gather(*(client.post(INFER, content=body(images(20))) for _ in range(4)))
                after += loading.done()
                assert {response.status_code for response in responses} == {200}
                answers += [response.json() for response in responses]
        await loading
        return answers

    answers = asyncio.run(ask())
    names = {version: name for name, version in serving.names.items()}
    told = [names[answer["model_version"]] for answer in answers]
    assert told[0] == "old"
    assert told[-1] == "new"
    assert all(answer["outputs"][0]["data"] == serving.exits[name] for answer, name in zip(answers, told, strict=True))
    assert serving.metric("sdcompress_loads_total", outcome="loaded") == 1
    assert serving.metric("sdcompress_requests_total", outcome="ok") == len(answers)


def test_the_version_before_stays_addressable_and_a_rollback_brings_it_back(begin: Begin) -> None:
    serving = begin()
    serving.point_to("new")
    assert serving.load().version == serving.names["new"]
    engine = serving.repository.model("tiny", serving.names["old"]).engine
    golden = engine.modality.path(engine.manifest.golden)
    assert golden.parent == serving.folders["old"], "what it reads later, it reads from its own folder"
    old = serving.ask(f"{VERSION}/{serving.names['old']}/infer").json()
    assert (old["model_version"], old["outputs"][0]["data"]) == (serving.names["old"], serving.exits["old"])
    metadata = serving.ask("/v2/models/tiny", None).json()
    assert metadata["versions"] == [serving.names["new"], serving.names["old"]]
    answer = serving.control(f"{CONTROL}/rollback")
    assert (answer.status_code, answer.json()["version"]) == (200, serving.names["old"])
    assert serving.serves("old")
    assert serving.metric("sdcompress_loads_total", outcome="rolled back") == 1
    assert serving.control(f"{CONTROL}/rollback").json()["version"] == serving.names["new"]
    assert serving.serves("new")
    serving.point_to("old")
    worker = serving.repository.model("tiny", serving.names["old"])._worker
    assert serving.load()._worker is worker, "it was in memory"
    assert serving.serves("old")
    assert serving.control(f"{CONTROL}/load").status_code == 200
    assert serving.metric("sdcompress_loads_total", outcome="unchanged") == 1


def test_a_rollback_needs_a_version_before(begin: Begin) -> None:
    serving = begin()
    refused = serving.control(f"{CONTROL}/rollback")
    assert (refused.status_code, "no version of 'tiny' before" in refused.json()["error"]) == (400, True)
    assert serving.serves("old")


def broken(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    with (serving.folders["new"] / "segment-1.onnx").open("ab") as file:
        file.write(b"x")


def no_warm_up(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise ArtifactError("It does not run.")

    monkeypatch.setattr("sdcompress.serving.model.warm_up", failing)


def another_interface(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdcompress.serving.model.served_outputs", lambda _: ())


def a_bug(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdcompress.serving.model.warm_up", lambda *_, **__: 1 / 0)


def no_folder(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(serving.folders["new"])


@pytest.mark.parametrize(
    ("spoil", "code", "why"),
    [
        (broken, 422, "segment-1.onnx"),
        (no_warm_up, 422, "It does not run"),
        (another_interface, 400, "has other outputs"),
        (a_bug, 500, "ZeroDivisionError"),
        (no_folder, 422, "new"),
    ],
)
def test_a_load_that_fails_says_why_and_changes_nothing(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, spoil: Callable[..., None], code: int, why: str
) -> None:
    serving = begin()
    serving.point_to("new")
    with monkeypatch.context() as patch:
        spoil(serving, patch)
        refused = serving.control(f"{CONTROL}/load")
    assert (refused.status_code, why in refused.json()["error"]) == (code, True), refused.text
    assert serving.serves("old")
    assert serving.service.ready
    (listed,) = serving.control("/v2/repository/index").json()
    assert (listed["version"], listed["state"]) == (serving.names["old"], "READY")
    assert listed["reason"].startswith("the last change failed: ")
    assert serving.metric("sdcompress_loads_total", outcome="failed") == 1
    serving.point_to("old")
    assert serving.control(f"{CONTROL}/load").status_code == 200
    assert serving.control("/v2/repository/index").json()[0]["reason"] == ""


def test_a_version_that_no_longer_stays_ends_after_its_last_request(begin: Begin) -> None:
    serving = begin(versions=1)
    old = serving.service.models["tiny"]
    serving.point_to("new")

    async def ask() -> list[httpx.Response]:
        begun, loaded, content = asyncio.Event(), asyncio.Event(), body(images(20))

        async def slowly() -> Any:
            yield content[:10]
            begun.set()
            await loaded.wait()
            yield content[10:]

        async with serving.connect() as client:
            first = asyncio.ensure_future(client.post(INFER, content=slowly()))
            await begun.wait()
            await asyncio.to_thread(serving.load)
            await asyncio.sleep(0.3)  # longer than the grace
            second = await client.post(INFER, content=content)
            loaded.set()
            return [await first, second]

    first, second = asyncio.run(ask())
    assert (first.status_code, first.json()["model_version"]) == (200, serving.names["old"])
    assert first.json()["outputs"][0]["data"] == serving.exits["old"]
    assert second.json()["model_version"] == serving.names["new"]
    assert serving.retired(old)
    assert serving.ask(f"{VERSION}/{serving.names['old']}/infer").status_code == 404


def test_memory_for_a_new_version_is_found_by_giving_up_rollbacks_or_it_is_refused(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = begin()
    free = [0]
    monkeypatch.setattr(source_module, "available_memory", lambda: free[0])
    serving.point_to("new")
    with pytest.raises(SetupError, match="0 MiB are free"):
        serving.load()
    assert serving.serves("old")
    free[0] = 2**40
    serving.load()
    (old,) = [model for model in serving.repository._versions["tiny"].models if model.version == serving.names["old"]]
    third = serving.write(policy=(0.8, 0.8), name="third")
    serving.folders["third"] = third
    serving.point_to("third")
    free[0] = 0
    monkeypatch.setattr(old, "stop", lambda stop=old.stop: (free.__setitem__(0, 2**40), stop()))
    serving.load()
    assert serving.retired(old)
    assert [one["version"] for one in serving.repository.index()] == [
        open_cascade(third).manifest.digest[:12],
        serving.names["new"],
    ]


def test_a_load_that_changes_nothing_needs_no_memory_and_keeps_the_version_before(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = begin()
    serving.point_to("new")
    serving.load()
    monkeypatch.setattr(source_module, "available_memory", lambda: 0)
    serving.service.repository.load_all()  # as at SIGHUP, for another model
    assert serving.serves("new")
    assert serving.metric("sdcompress_loads_total", outcome="unchanged") == 1
    assert serving.metric("sdcompress_loads_total", outcome="failed") is None
    assert serving.control(f"{CONTROL}/rollback").status_code == 200
    assert serving.serves("old")


def test_an_unloaded_model_is_unknown_until_it_is_loaded(begin: Begin) -> None:
    serving = begin()
    model = serving.service.models["tiny"]
    assert serving.control(f"{CONTROL}/unload", b'{"parameters":{"unload_dependents":false}}').status_code == 200
    assert serving.retired(model)
    refused = serving.ask()
    assert (refused.status_code, "is not loaded" in refused.json()["error"]) == (404, True)
    assert serving.control("/v2/repository/index").json() == [
        {"name": "tiny", "state": "UNAVAILABLE", "reason": "unloaded"}
    ]
    assert serving.control("/v2/repository/index", b'{"ready": true}').json() == []
    assert b"sdcompress_model_info{" not in generate_latest(serving.service.metrics.registry)
    assert serving.control(f"{CONTROL}/load").status_code == 200
    assert serving.serves("old")


def test_what_a_load_has_warmed_up_before_the_start_does_gets_no_second_worker(begin: Begin) -> None:
    serving = begin()
    model = serving.service.models["tiny"]
    worker = model._worker
    serving.service.repository.warm_up()
    assert model._worker is worker


def test_versions_before_can_be_given_at_the_start(tiny_artifact: Write) -> None:
    new, old = (open_cascade(tiny_artifact(policy=policy, name=str(policy))) for policy in (NEW, OLD))
    service = Service({"tiny": new}, previous={"tiny": [old]})
    service.start().join()
    assert service.model("tiny").version == new.manifest.digest[:12]
    assert service.repository.roll_back("tiny").version == old.manifest.digest[:12]
    service.stop()
    for previous, options in (([new], ServiceOptions()), ([old], ServiceOptions(versions=1))):
        with pytest.raises(UsageError, match="has the versions"):
            Service({"tiny": new}, options, previous={"tiny": previous})


def test_the_control_takes_names_and_no_folders_and_no_pages(begin: Begin) -> None:
    serving = begin()
    why = "folder that the service was started with"
    for parameters in ({"path": "/tmp"}, {"config": "{}"}, {"file:1/model.onnx": "AA=="}):
        refused = serving.control(f"{CONTROL}/load", json.dumps({"parameters": parameters}).encode())
        assert (refused.status_code, why in refused.json()["error"]) == (400, True)
    assert serving.control(f"{CONTROL}/load", b"[]").status_code == 400
    assert serving.control(f"{CONTROL}/load", b"{").status_code == 400
    assert serving.control(f"{CONTROL}/load", b"{" + b" " * 2**17).status_code == 413
    assert serving.control("/v2/repository/models/..%2fold/load").status_code == 404
    assert serving.control("/v2/repository/models/tinny/load").status_code == 404
    assert serving.control(f"{CONTROL}/load", Origin="http://evil.example").status_code == 403
    assert serving.control(f"{CONTROL}/load", Host="evil.example").status_code == 400
    assert serving.ask("/v2/repository/index").status_code == 404, "not on the port of clients"
    assert serving.metric("sdcompress_loads_total", outcome="loaded") is None


def test_a_real_client_loads_and_unloads(begin: Begin) -> None:
    triton = pytest.importorskip("tritonclient.http")
    serving = begin()
    server = ControlServer(serving.repository, 0)
    server.start()
    try:
        client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
        serving.point_to("new")
        client.load_model("tiny")
        assert serving.serves("new")
        assert [one["version"] for one in client.get_model_repository_index()] == [
            serving.names["new"],
            serving.names["old"],
        ]
        client.unload_model("tiny")
        assert client.get_model_repository_index()[0]["state"] == "UNAVAILABLE"
        with pytest.raises(triton.InferenceServerException, match="There is no model 'other'"):
            client.load_model("other")
        client.close()
    finally:
        server.stop()


def test_a_stop_waits_for_a_load_and_allows_no_other(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    serving = begin()
    serving.point_to("new")
    begun, free, outcome = threading.Event(), threading.Event(), list[UnavailableError]()
    warm_up = ServedModel.warm_up

    def slow(model: ServedModel) -> None:
        begun.set()
        assert free.wait(20)
        warm_up(model)

    def load() -> None:
        try:
            serving.load()
        except UnavailableError as error:
            outcome.append(error)

    monkeypatch.setattr(ServedModel, "warm_up", slow)
    loading = threading.Thread(target=load)
    loading.start()
    assert begun.wait(20)
    stopping = threading.Thread(target=serving.service.stop)
    stopping.start()
    while not serving.service.closed:
        time.sleep(0.001)
    free.set()
    for thread in (loading, stopping):
        thread.join(20)
        assert not thread.is_alive()
    assert "The service stops" in str(outcome[0])
    with pytest.raises(NoSuchModelError):
        serving.repository.load("tinny")
    assert not [thread for thread in threading.enumerate() if thread.name == "sdcompress tiny"]
