"""The telemetry of onnxruntime is off in the command line, unless its user decides otherwise."""

from __future__ import annotations

import os

import pytest

from sdcompress.cli import app


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
def test_telemetry_is_off_by_default(monkeypatch: pytest.MonkeyPatch, before: str | None, after: str) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", before or "")
    if before is None:
        monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    seen = []
    monkeypatch.setattr(app, "_run", lambda: seen.append(os.environ["ORT_DISABLE_TELEMETRY"]) or 0)
    with pytest.raises(SystemExit):
        app.start()
    assert seen == [after]
