"""The report in a real browser: Chromium, which pytest -m browser needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sdcompress.reporting.report.build import build
from sdcompress.reporting.write import write
from sdcompress.schema.report import BenchReport, Evaluation

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


@pytest.fixture
def file(folders: dict[str, Path], evaluations: list[Evaluation], benches: list[BenchReport], tmp_path: Path) -> Path:
    report = build(
        title="title", command="x", artifacts=folders, evaluations=evaluations, benches=benches, recipe={}, training={}
    )
    return write(report, tmp_path / "out")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_report_is_whole_by_itself_on_any_screen(browser: Browser, file: Path, scheme: Any, width: int) -> None:
    page, problems = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme), list[str]()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or problems.append(request.url))
    page.goto(file.as_uri())
    assert page.locator("h1").is_visible()
    assert page.locator("figure svg").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth") == width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 384) == (scheme == "dark")
    page.close()
    assert not problems
