"""Backends that only tests have: a executor on a device of the host's memory, under a name of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from host_device import HostDevice, HostProgram

from sdcompress.artifact.execution_target import ExecutionTarget
from sdcompress.artifact.read import Artifact
from sdcompress.runtime.backends._base import ExecutorBackend
from sdcompress.runtime.backends.onnxruntime import load
from sdcompress.runtime.on_device.buckets import buckets
from sdcompress.runtime.on_device.executor import DeviceExecutor
from sdcompress.schema.engines import BatchProfile


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """``hosted(plans)``: from now on the backend 'hosted' runs artifacts in host memory, as engines of that digest."""
    from sdcompress import registry

    names, loads = registry.names, registry.load

    def install(plans: str | None) -> None:
        def open_(artifact: Artifact, *, threads: int | None, device: str) -> DeviceExecutor:
            memory = HostDevice()
            programs = [
                HostProgram(memory, s, load(artifact.file(s), s, threads=threads, device="cpu"))
                for s in artifact.manifest.segments
            ]
            sizes = buckets([BatchProfile(min=1, opt=8, max=64)])
            return DeviceExecutor(memory, artifact.manifest, programs, sizes, ExecutionTarget("hosted", device, plans))

        def load_(room: str, name: str, *, extra: str) -> object:
            return ExecutorBackend(open_) if name == "hosted" else loads(room, name, extra=extra)

        monkeypatch.setattr(registry, "names", lambda room: sorted([*names(room), "hosted"]))
        monkeypatch.setattr(registry, "load", load_)

    return install
