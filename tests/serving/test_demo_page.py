"""The page of --demo in a real browser: Chromium, which pytest -m browser needs."""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

from sdcompress.runtime.open import open_engine
from sdcompress.serving.app import create_app
from sdcompress.serving.security import ApiKeys

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = pytest.mark.browser

HEADER = "Inference-Header-Content-Length"
DROP = """base64 => {
    const transfer = new DataTransfer(), bytes = Uint8Array.from(atob(base64), letter => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
    return transfer;
}"""


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page on which nothing may go wrong: no error, no warning, no request that leaves the service.

    It closes before the service at the address does.
    """
    opened, problems = browser.new_page(viewport={"width": 1200, "height": 900}), list[str]()
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda message: problems.append(message.text))
    opened.on("request", lambda request: _at_home(request.url) or problems.append(request.url))
    yield opened
    opened.close()
    assert not problems


def _at_home(url: str) -> bool:
    return url.startswith(("http://127.0.0.1", "data:", "blob:"))


@pytest.fixture
def address(serve: Any, tiny_artifact: Callable[..., Path]) -> Iterator[str]:
    """Where a service of two models with the page listens."""
    folder = tiny_artifact(policy=(0.7, 0.6))
    yield from _listening(create_app(serve({"tiny": folder, "other": folder}, demo=True).service))


def _listening(application: Any) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


def test_a_dropped_image_is_answered_as_the_engine_answers_it(
    page: Page, address: str, tiny_artifact: Callable[..., Path]
) -> None:
    from playwright.sync_api import expect

    engine = open_engine(tiny_artifact(policy=(0.7, 0.6), name="again"))
    page.goto(address)
    expect(page.locator("#state")).to_have_text("ready")
    expect(page.locator("#tried button")).to_have_count(12)
    exits = set()
    for seed in range(4):
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 7), np.uint8)).save(file, "PNG")
        expected = engine(engine.preprocess([file.getvalue()]))
        _drop(page, file.getvalue())
        name, index = expected.exit_names[0], int(expected.exit_index[0])
        expect(page.locator("#said")).to_have_text(f"Answer: {expected.labels[0]}. Left at {name}.")
        expect(page.locator(".verdict")).to_contain_text(expected.labels[0])
        expect(page.locator(".drop img.seen")).to_be_visible()
        expect(page.locator("#route li").nth(index)).to_contain_text("left here")
        expect(page.locator("#route .ran")).to_have_count(index + 1)
        exits.add(index)
    assert len(exits) > 1
    expect(page.locator("#how")).to_contain_text("through the whole network", timeout=30_000)
    live = page.request.get(f"{address}demo/models/tiny/live").json()
    assert sum(live["exits"]["policy"].values()) == 5, "the first example and what was dropped, no comparison"
    expect(page.locator("#total")).to_have_text("5 examples since the service started")


def _drop(page: Page, content: bytes) -> None:
    transfer = page.evaluate_handle(DROP, base64.b64encode(content).decode())
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})


def test_exits_can_be_narrowed_and_another_model_chosen(page: Page, address: str) -> None:
    from playwright.sync_api import expect

    page.goto(address)
    expect(page.locator("#times")).to_be_visible(timeout=30_000)
    page.select_option("#min", label="final")
    expect(page.locator("#route li").nth(2)).to_contain_text("left here")
    expect(page.locator("#saved")).to_contain_text("nothing saved", timeout=30_000)
    page.select_option("#max", label="exit1")  # the earliest follows
    expect(page.locator("#route li").nth(0)).to_contain_text("left here")
    page.select_option("#model", "other")
    expect(page).to_have_title("other · sdcompress demo")
    expect(page.locator("#times")).to_be_visible(timeout=30_000)
    expect(page.locator("#total")).to_have_text("1 example since the service started")


def test_what_is_no_image_is_refused_in_words(browser: Browser, address: str) -> None:
    from playwright.sync_api import expect

    page = browser.new_page()
    page.goto(address)
    expect(page.locator("#state")).to_have_text("ready")
    _drop(page, b"no image")
    expect(page.get_by_role("alert")).to_contain_text("It is no image")
    page.close()


def test_the_page_asks_for_the_key_of_the_service(
    browser: Browser, serve: Any, tiny_artifact: Callable[..., Path]
) -> None:
    from playwright.sync_api import expect

    service = serve({"tiny": tiny_artifact(policy=(0.7, 0.6))}, demo=True).service
    for address in _listening(create_app(service, ApiKeys(["a key of the service"]))):
        page = browser.new_page()
        page.goto(address)
        page.get_by_label("API key").fill("a key of the service")
        page.get_by_role("button", name="Use it").click()
        expect(page.locator(".verdict")).to_contain_text("probability", timeout=30_000)
        expect(page.locator("#unlock")).to_be_hidden()
        expect(page.get_by_role("alert")).to_be_hidden()
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_beyond_the_edge_of_a_telephone(page: Page, address: str, scheme: Any) -> None:
    from playwright.sync_api import expect

    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme=scheme)
    page.goto(address)
    expect(page.locator("#times")).to_be_visible(timeout=30_000)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 384) == (scheme == "dark")


class Spoken:
    """A service of other modalities and tasks, as far as the page asks it."""

    def __init__(self, page: Page, **model: Any) -> None:
        self.model = {
            "name": "said", "version": "1", "task": "a task", "kind": "class", "unit": "probability", "policy": None,
            "certificate": None, "colours": [],
            "exits": [{"name": "final", "threshold": None, "share": None, "reach": 1}],
            **model,
        }  # fmt: skip
        self.raw: list[bytes] = []
        self.parameters: dict[str, str] = {}
        self.answers: dict[str, Any] = {"answer": ['{"<b>":0.75}'], "top": ['{"<b>":0.75,"c":0.25}'], "score": [-1.0]}
        live = {
            "version": "1", "ready": True, "exits": {"policy": {}, "request": {}}, "requests": {}, "seconds": [],
            "queue_rows": 0, "max_drop": None, "thresholds": None, "alarm": None, "fallen_back": False,
        }  # fmt: skip
        page.route("**/demo/models", lambda route: route.fulfill(json=[self.model]))
        page.route("**/demo/models/said/live", lambda route: route.fulfill(json=live))
        page.route("**/demo/models/said/examples", lambda route: route.fulfill(json=[]))
        page.route("**/infer", self._infer)

    def _infer(self, route: Route) -> None:
        content = route.request.post_data_buffer
        assert content is not None
        length = int(route.request.headers[HEADER.lower()])
        head, tail = json.loads(content[:length]), content[length:]
        (tensor,) = head["inputs"]
        assert tensor == {
            "name": "raw", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(tail)},
        }  # fmt: skip
        assert struct.unpack("<I", tail[:4]) == (len(tail) - 4,)
        self.raw.append(tail[4:])
        wanted = [output["name"] for output in head["outputs"]]
        outputs, binary = [], b""
        for name in wanted:
            output: dict[str, Any] = {"name": name, "datatype": "BYTES", "shape": [1]}
            if name == "decision":
                binary = bytes(self.answers[name])
                output |= {"datatype": "UINT8", "shape": [1, 1, 3], "parameters": {"binary_data_size": len(binary)}}
            else:
                output["data"] = self.answers.get(name, [0])
            outputs.append(output)
        text = json.dumps({"model_name": "said", "outputs": outputs, "parameters": self.parameters}).encode()
        route.fulfill(body=text + binary, headers={HEADER: str(len(text))})


def _field(name: str, kind: str = "text", choices: tuple[str, ...] = (), optional: bool = False) -> dict[str, Any]:
    return {"name": name, "kind": kind, "choices": choices, "optional": optional}


def test_a_text_is_sent_as_it_is_typed_and_names_are_no_markup(page: Page, address: str) -> None:
    from playwright.sync_api import expect

    said = Spoken(page, form={"encoding": "text", "fields": [_field("sentence")], "suffixes": []})
    page.goto(address)
    page.get_by_label("Text").fill("größer < kleiner")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".verdict")).to_contain_text("<b>")
    assert said.raw[0] == "größer < kleiner".encode()


def test_a_fall_back_is_not_called_the_need_of_an_example(page: Page, address: str) -> None:
    from playwright.sync_api import expect

    exits = [
        {"name": "exit1", "threshold": 0.5, "share": 0.5, "reach": 0.5},
        {"name": "final", "threshold": None, "share": 0.5, "reach": 1},
    ]
    said = Spoken(page, form={"encoding": "text", "fields": [_field("x")], "suffixes": []}, exits=exits, policy="p")
    said.parameters = {"fallback": "drift"}
    said.answers |= {"exit_index": [1], "score": [0.75]}
    page.goto(address)
    page.get_by_label("Text").fill("x")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#saved")).to_contain_text("after an alarm of drift")
    expect(page.locator("#route li").first).to_contain_text("score 0.750 ≥ 0.500, but drift")


def test_fields_become_json(page: Page, address: str) -> None:
    from playwright.sync_api import expect

    fields = [_field("age", "number"), _field("sex", "choice", ("f", "m"), optional=True)]
    said = Spoken(page, form={"encoding": "object", "fields": fields, "suffixes": []})
    said.answers |= {"answer": ["{}"]}
    page.goto(address)
    page.get_by_label("age").fill("31")
    page.get_by_label("sex").select_option("m")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".verdict")).to_have_text("no class")
    assert json.loads(said.raw[0]) == {"age": "31", "sex": "m"}


def test_two_texts_become_a_list_and_numbers_are_shown_large(page: Page, address: str) -> None:
    from playwright.sync_api import expect

    fields = [_field("one"), _field("two")]
    said = Spoken(page, form={"encoding": "list", "fields": fields, "suffixes": []}, unit="value", kind="number")
    said.answers |= {"answer": ['{"likeness":4.25}']}
    page.goto(address)
    page.get_by_label("one").fill("a film")
    page.get_by_label("two", exact=True).fill("a plot")
    page.get_by_label("two", exact=True).press("Control+Enter")
    expect(page.locator(".values")).to_have_text("4.25likeness")
    assert json.loads(said.raw[0]) == ["a film", "a plot"]


def test_a_mask_is_drawn_in_the_colours_of_its_values(page: Page, address: str) -> None:
    from playwright.sync_api import expect

    colours = [{"name": "sky", "rgb": [1, 2, 3]}, {"name": "road", "rgb": [250, 0, 9]}]
    said = Spoken(page, form={"encoding": "text", "fields": [_field("x")], "suffixes": []}, colours=colours)
    said.answers |= {"decision": (1, 0, 1)}
    page.goto(address)
    page.get_by_label("Text").fill("x")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".ranking li").first).to_contain_text("road67 %")
    pixels = page.locator(".overlay canvas").evaluate(
        "canvas => [...canvas.getContext('2d').getImageData(0, 0, 3, 1).data]"
    )
    assert pixels == [250, 0, 9, 255, 1, 2, 3, 255, 250, 0, 9, 255]
