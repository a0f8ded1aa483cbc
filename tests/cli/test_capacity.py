"""The capacity of a machine, as the command line shows it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_it_says_what_one_machine_takes_and_how_many_are_needed(
    tiny_artifact: Callable[..., Path], cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdcompress.serving.capacity._MOST_REQUESTS", 200)
    artifact = tiny_artifact(policy=(0.7, 0.6))
    shown = cli("capacity", artifact, "--threads", "1", "--rate", "100000").out
    (limit,) = re.findall(r"one machine takes (\d+) requests/s", shown)
    (machines,) = re.findall(r"100000 requests/s need (\d+) machines", shown)
    assert 100000 / int(machines) < int(limit) + 1
    record = json.loads(cli("capacity", artifact, "--threads", "1", "--rate", "100000", "--json").out)
    assert record["rate_per_s"] == 100000
    assert (record["machines"] - 1) * record["limit_per_s"] < 100000 <= record["machines"] * record["limit_per_s"]
    assert "machines" not in json.loads(cli("capacity", artifact, "--threads", "1", "--json").out)
