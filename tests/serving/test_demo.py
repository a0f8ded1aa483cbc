"""The page of --demo: what its paths say, and that it is there only when it is asked for."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from sdcompress.runtime.open import open_engine
from sdcompress.serving.app import create_app
from sdcompress.serving.demo import display
from sdcompress.serving.security import ApiKeys

HEADER = "Inference-Header-Content-Length"


@pytest.fixture
def demo(serve: Any, tiny_artifact: Callable[..., Path]) -> Any:
    """The tiny cascade, with the page."""
    return serve({"tiny": tiny_artifact(policy=(0.7, 0.6))}, demo=True)


def test_there_is_no_page_unless_it_is_asked_for(client: Any) -> None:
    for path in ("/", "/demo/models", "/demo/models/tiny/live", "/demo/models/tiny/examples"):
        assert client.get(path).status_code == 404
    assert "server-timing" not in client.get("/v2").headers


def test_the_page_may_run_and_load_nothing_but_what_it_holds(demo: Any) -> None:
    page = demo.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    for kind, tag in (("script-src", "script"), ("style-src", "style")):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", page.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[kind] == f"'sha256-{digest}'"
    assert policy["connect-src"] == "'self'"
    assert not re.search(r"(?:src|href)=\"(?!data:)|style=\"|\son\w+=\"|innerHTML|\beval\(", page.text)


def test_a_model_is_described_by_its_form_and_its_exits(demo: Any) -> None:
    (model,) = demo.get("/demo/models").json()
    assert (model["name"], model["task"], model["kind"], model["unit"]) == (
        "tiny", "classification", "class", "probability",
    )  # fmt: skip
    assert model["form"]["encoding"] == "file"
    assert ".png" in model["form"]["suffixes"]
    assert model["colours"] == []
    assert [(exit_["name"], exit_["threshold"]) for exit_ in model["exits"]] == [
        ("exit1", 0.7), ("exit2", 0.6), ("final", None),
    ]  # fmt: skip
    reach = [exit_["reach"] for exit_ in model["exits"]]
    assert reach == sorted(reach)
    assert reach[-1] == 1


def test_an_example_is_a_request_that_gives_what_the_engine_gives(
    demo: Any, tiny_artifact: Callable[..., Path]
) -> None:
    engine = open_engine(tiny_artifact(policy=(0.7, 0.6), name="again"))
    listed = demo.get("/demo/models/tiny/examples").json()
    assert len(listed) == 12
    for at, example in enumerate(listed[:3]):
        assert example["values"] is None
        url = example["picture"]
        picture = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
        pixels = np.asarray(picture)[None, :, :, :1]
        expected = engine(engine.preprocess(pixels))
        body = demo.get(f"/demo/models/tiny/examples/{at}")
        answered = demo.request(
            "POST", "/v2/models/tiny/infer", content=body.content, headers={HEADER: body.headers[HEADER]}
        ).json()
        outputs = {output["name"]: output["data"] for output in answered["outputs"]}
        np.testing.assert_allclose(outputs["outputs"], expected.outputs[0], rtol=1e-5, atol=1e-6)
        assert outputs["exit_index"] == expected.exit_index.tolist()
    for number in ("-1", "one", "9" * 5000):
        assert demo.get(f"/demo/models/tiny/examples/{number}").status_code == 400
    missing = demo.get("/demo/models/tiny/examples/12")
    assert missing.status_code == 400
    assert "0 to 11" in missing.json()["error"]


def test_a_file_is_shown_as_the_network_sees_it(demo: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    shown = demo.request("POST", "/demo/models/tiny/picture", content=file.getvalue())
    assert shown.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(shown.content)).size == (4, 4)
    refused = demo.request("POST", "/demo/models/tiny/picture", content=b"no image")
    assert refused.status_code == 400
    assert "image file" in refused.json()["error"]


def test_the_page_needs_no_key_but_all_that_it_shows_does(serve: Any, tiny_artifact: Callable[..., Path]) -> None:
    service = serve({"tiny": tiny_artifact()}, demo=True).service
    app = create_app(service, ApiKeys(["a key of the service"]))
    with_key = {"Authorization": "Bearer a key of the service"}

    async def statuses() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            asked = [await client.get("/"), await client.get("/demo/models")]
            return [one.status_code for one in (*asked, await client.get("/demo/models", headers=with_key))]

    assert asyncio.run(statuses()) == [200, 401, 200]


def test_live_figures_count_what_the_policy_decided(demo: Any) -> None:
    body = {"inputs": [{"name": "input", "shape": [2, 1, 4, 4], "datatype": "FP32", "data": [0.1] * 32}]}
    assert "server-timing" in demo.infer(body).headers
    assert demo.infer({**body, "parameters": {"min_exit": "final"}}).status_code == 200
    live = demo.get("/demo/models/tiny/live").json()
    assert live["ready"] is True
    assert sum(live["exits"]["policy"].values()) == 2
    assert live["exits"]["request"]["final"] == 2
    assert live["requests"]["ok"] == 2
    assert live["seconds"][-1] == [None, 2]  # the last bucket has no end
    assert live["queue_rows"] == 0
    assert demo.get("/demo/models/other/live").status_code == 404


def test_live_figures_say_what_is_certified_now(serve: Any, certified_artifact: Path) -> None:
    client = serve({"tiny": certified_artifact}, demo=True)
    model = client.service.models["tiny"]
    policy = model.manifest.policy
    live = client.get("/demo/models/tiny/live").json()
    assert live["max_drop"] == policy.max_drop
    assert live["thresholds"] == list(policy.thresholds)
    assert (live["alarm"], live["fallen_back"]) == (None, False)
    model.watch.scheduler.fallen_back = True
    assert client.get("/demo/models/tiny/live").json()["fallen_back"] is True


@pytest.mark.parametrize(("variable", "opens"), [("DISPLAY", True), ("WAYLAND_DISPLAY", True), (None, False)])
def test_a_browser_is_opened_only_where_there_is_a_display(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, opens: bool
) -> None:
    opened = threading.Event()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(display.webbrowser, "open", lambda url: opened.set())
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, ":0")
    display.open_page("http://127.0.0.1:1/")
    assert opened.wait(5 if opens else 0.2) is opens
