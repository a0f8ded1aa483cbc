"""The dashboard for Grafana asks for what the service measures, and for all of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric

DASHBOARD = Path(__file__).parents[2] / "docs" / "deploy" / "grafana.json"
NAME = re.compile(r"\bsdcompress_\w+")
# of Prometheus itself
KNOWN_LABELS = {"le"}


def dashboard() -> Any:
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


def expressions() -> list[str]:
    board = dashboard()
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    return [*asked, *(variable["definition"] for variable in board["templating"]["list"] if "definition" in variable)]


@pytest.fixture
def families(serve: Any, certified_artifact: Path) -> list[Metric]:
    """The metrics of a service that was asked once, with all that is measured of a certified model."""
    client = serve({"tiny": certified_artifact}, brown_out=True)
    body = {"inputs": [{"name": "input", "shape": [1, 1, 4, 4], "datatype": "FP32", "data": [0.1] * 16}]}
    assert client.infer(body).status_code == 200
    return list(client.service.metrics.registry.collect())


def test_every_metric_and_label_of_the_dashboard_is_measured(families: list[Metric]) -> None:
    samples = {sample.name for family in families for sample in family.samples}
    samples |= {f"{family.name}_total" for family in families if family.type == "counter"}  # none was counted yet
    labels = {label for family in families for sample in family.samples for label in sample.labels}
    labels |= KNOWN_LABELS | {"cause"}
    assert expressions()
    for expression in expressions():
        assert set(NAME.findall(expression)) <= samples, expression
        grouped = re.findall(r"\b(?:by|ignoring|on) \(([^)]*)\)", expression)
        matched = re.findall(r"(\w+)=~?\"", expression)
        assert {name.strip() for group in grouped for name in group.split(",")} <= labels, expression
        assert set(matched) <= labels, expression


def test_every_metric_is_on_the_dashboard(families: list[Metric]) -> None:
    shown = {name for expression in expressions() for name in NAME.findall(expression)}
    for family in families:
        assert any(name == family.name or name.startswith(f"{family.name}_") for name in shown), family.name


def test_panels_have_numbers_of_their_own_and_lie_beside_each_other() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    covered = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not covered & cells, panel["title"]
        covered |= cells
        assert panel["type"] == "row" or panel["description"]


def test_no_panel_names_a_data_source_of_one_installation() -> None:
    text = DASHBOARD.read_text(encoding="utf-8")
    assert set(re.findall(r'"uid": "([^"]+)"', text)) == {"${datasource}", "sdcompress-serve"}
