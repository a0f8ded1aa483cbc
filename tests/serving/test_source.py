"""What runs the stages one by one loads no graph that only whole calls need."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pytest
from mlserver_stub import install, settings_of

import sdcompress
from sdcompress.options import EngineOptions, Options
from sdcompress.runtime.headless import joined
from sdcompress.serving.options import ServiceOptions
from sdcompress.serving.setup import ServiceSetup

Write = Callable[..., Path]
ONE, NEVER = EngineOptions(threads=1), 2.0


@pytest.fixture
def joins(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Hold of each graph that was made in memory how many segments it has."""
    segments = list[int]()

    def record(models: Sequence[bytes], kept: Collection[str]) -> bytes | None:
        segments.append(len(models))
        return joined(models, kept)

    monkeypatch.setattr("sdcompress.runtime.open.joined", record)
    return segments


@pytest.fixture
def artifact(tiny_artifact: Write) -> Path:
    """No row takes its first exit, so that a call runs its first two segments as one graph."""
    return tiny_artifact(policy=(NEVER, 0.6))


def test_a_whole_call_needs_a_joined_graph(artifact: Path, joins: list[int]) -> None:
    sdcompress.open(artifact, threads=1)
    assert joins == [2]


def test_a_server(artifact: Path, joins: list[int]) -> None:
    ServiceSetup({"tiny": artifact}, ONE, ServiceOptions()).open()
    assert joins == [1]


def test_capacity(artifact: Path, joins: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdcompress.serving.capacity._MOST_REQUESTS", 20)
    sdcompress.capacity(artifact, ONE)
    assert joins == [1]


def test_the_runtime_of_mlserver(
    artifact: Path, joins: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    from sdcompress.serving.mlserver import SdcompressRuntime

    sdcompress.package(artifact, tmp_path / "package", "mlserver", {"name": "net", "threads": 1}, Options())
    values = json.loads((tmp_path / "package" / "model-settings.json").read_text())
    joins.clear()

    async def load_and_unload() -> None:
        runtime = SdcompressRuntime(settings_of(tmp_path / "package", values))
        await runtime.load()
        await runtime.unload()

    asyncio.run(load_and_unload())
    assert joins == [1]
