"""A served model with a certificate: audits of real rows, the whole network after drift, levels in the response."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import sdcompress
from sdcompress.serving.control import create_control_app
from sdcompress.serving.options import ServiceOptions
from sdcompress.serving.watch import Watch
from sdcompress.storage import digest_of


def images(rows: int) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(rows, 1, 4, 4)).astype(np.float32)


def body(inputs: np.ndarray, **parameters: Any) -> dict[str, Any]:
    tensor = {"name": "input", "shape": list(inputs.shape), "datatype": "FP32", "data": inputs.ravel().tolist()}
    return {"inputs": [tensor], "outputs": [{"name": "exit_index"}], "parameters": parameters}


def value(client: Any, name: str, **labels: str) -> float | None:
    found: float | None = client.service.metrics.registry.get_sample_value(
        f"sdcompress_{name}", {"model": "tiny"} | labels
    )
    return found


def control(client: Any, name: str) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(create_control_app(client.service.repository))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8003") as connected:
            return await connected.post(f"/v2/repository/models/{name}/reset_drift")

    return asyncio.run(asked())


def with_a_ladder(folder: Path) -> Path:
    """Give the artifact the policy of the smaller of its two certified drops."""
    path = folder / "manifest.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    small = fields["certificate"]["levels"][0]
    fields["policy"] |= {name: small[name] for name in ("max_drop", "shares", "disagreement")}
    fields["policy"]["thresholds"] = fields["certificate"]["path"][small["certified"]]
    fields["digest"] = digest_of({name: field for name, field in fields.items() if name != "digest"})
    path.write_text(json.dumps(fields), encoding="utf-8")
    return folder


def test_audits_measure_the_disagreement_of_what_was_served(serve: Any, certified_artifact: Path) -> None:
    client, inputs = serve({"tiny": certified_artifact}, audit_share=1.0), images(60)
    said = client.infer(body(inputs)).json()
    assert said["parameters"]["max_drop"] == 0.05
    exits = np.array(said["outputs"][0]["data"])
    assert len(np.unique(exits)) > 1
    watch: Watch = client.service.models["tiny"].watch
    assert watch.monitor is not None
    until = time.monotonic() + 20
    while watch.monitor.audits.audits < len(inputs) and time.monotonic() < until:
        time.sleep(0.01)
    engine = sdcompress.open(certified_artifact)
    outputs = engine.exits(inputs)
    different = outputs[exits, np.arange(60)].argmax(axis=1) != outputs[-1].argmax(axis=1)
    assert value(client, "audits_total") == 60
    assert value(client, "audit_loss_total") == different.sum()
    assert value(client, "level_rows_total", max_drop="0.05") == 60
    assert value(client, "drift_alarm", test="disagreement") == 0


def test_after_drift_the_whole_network_answers_and_says_so_until_a_reset(
    serve: Any, certified_artifact: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client, inputs = serve({"tiny": certified_artifact}), images(8)
    model = client.service.models["tiny"]
    before = client.infer(body(inputs)).json()
    until = time.monotonic() + 20
    while model.watch.audits.pending and time.monotonic() < until:  # the end of an audit raises the alarm too
        time.sleep(0.01)
    model.watch.monitor.audited(np.ones(10))
    with caplog.at_level(logging.INFO, "sdcompress"):
        assert "certificate_id" not in client.infer(body(inputs)).json()["parameters"]
        fallen = client.infer(body(inputs)).json()
    assert fallen["outputs"][0]["data"] == [2] * 8
    assert fallen["parameters"]["fallback"] == "drift"
    assert fallen["parameters"]["drift"] == "disagreement"
    assert [record.test for record in caplog.records if record.levelname == "ERROR"] == ["disagreement"]  # type: ignore[attr-defined]
    assert value(client, "drift_fallback") == 1
    assert value(client, "drift_alarm", test="disagreement") == 1
    # the worker may have seen the alarm before the first request or after it
    decided = value(client, "exits_total", exit="final", decided_by="drift")
    client.infer(body(inputs))
    assert value(client, "exits_total", exit="final", decided_by="drift") == decided + 8
    assert control(client, "tiny").json() == {"name": "tiny", "version": model.version}
    after = client.infer(body(inputs)).json()
    assert (after["outputs"], after["parameters"]) == (before["outputs"], before["parameters"])
    assert value(client, "drift_fallback") == 0


def test_a_drift_that_is_only_reported_takes_the_certificate_away(serve: Any, certified_artifact: Path) -> None:
    client, inputs = serve({"tiny": certified_artifact}, on_drift="report"), images(8)
    before = client.infer(body(inputs)).json()
    client.service.models["tiny"].watch.monitor.audited(np.ones(10))
    after = client.infer(body(inputs)).json()
    assert after["outputs"] == before["outputs"]
    assert after["parameters"] == {"artifact": before["parameters"]["artifact"], "drift": "disagreement"}


def test_what_is_not_certified_or_not_asked_for_is_not_watched(
    serve: Any, tiny_artifact: Any, certified_artifact: Path
) -> None:
    plain = serve({"tiny": tiny_artifact(policy=(0.7, 0.6))}, brown_out=True)
    assert plain.service.models["tiny"].watch.scheduler is None
    refused = control(plain, "tiny")
    assert refused.status_code == 400
    assert "Nobody looks for drift" in refused.json()["error"]
    ignored = serve({"tiny": certified_artifact}, on_drift="ignore")
    assert ignored.service.models["tiny"].watch.scheduler is None
    assert "certificate_id" in ignored.infer(body(images(1))).json()["parameters"]


def test_a_response_says_at_which_level_its_rows_were_accepted(serve: Any, certified_artifact: Path) -> None:
    client, inputs = serve({"tiny": with_a_ladder(certified_artifact)}, brown_out=True), images(200)
    watch: Watch = client.service.models["tiny"].watch
    strict = client.infer(body(inputs)).json()
    assert strict["parameters"]["max_drop"] == 0.02
    assert watch.scheduler is not None
    brown_out = watch.scheduler._brown_out
    assert brown_out is not None
    brown_out.update(0.9, time.monotonic())  # as a long queue would
    loose = client.infer(body(inputs)).json()
    assert loose["parameters"] == strict["parameters"] | {"max_drop": 0.05}
    exits = [np.array(said["outputs"][0]["data"]) for said in (strict, loose)]
    assert (exits[1] <= exits[0]).all()
    assert (exits[1] < exits[0]).any()
    assert value(client, "policy_level") == 1
    assert value(client, "level_rows_total", max_drop="0.02") == 200
    assert value(client, "level_rows_total", max_drop="0.05") == 200


def test_counters_of_a_version_that_comes_back_begin_anew(serve: Any, certified_artifact: Path) -> None:
    first, second = (serve({"tiny": certified_artifact}, audit_share=0.0) for _ in range(2))
    first.infer(body(images(60)))
    metrics, watch = first.service.metrics.watches, first.service.models["tiny"].watch
    other = second.service.models["tiny"].watch
    watch.monitor.audits.audits = 7
    first.service.models["tiny"].describe()  # as a load that changes nothing does

    def counters() -> tuple[float | None, float | None]:
        return value(first, "level_rows_total", max_drop="0.05"), value(first, "audits_total")

    assert counters() == (60, 7)
    metrics.add("tiny", other)
    assert counters() == (0, 0)
    metrics.add("tiny", watch)
    assert counters() == (0, 0)
    first.infer(body(images(5)))
    watch.monitor.audits.audits += 2
    assert counters() == (5, 2)
    watch.reset()
    assert counters() == (5, 0)
    watch.monitor.audits.audits = 8
    assert counters() == (5, 8)
    cold = serve({"tiny": certified_artifact}, warm=False)
    cold.service.models["tiny"].describe()  # as a load of what is not warm yet does
    cold.service.start().join()
    assert (value(cold, "level_rows_total", max_drop="0.05"), value(cold, "audits_total")) == (0, 0)


def test_options_of_drift_are_checked() -> None:
    with pytest.raises(sdcompress.errors.UsageError, match="audit_share is 2"):
        ServiceOptions(audit_share=2.0)
    with pytest.raises(sdcompress.errors.UsageError, match="on_drift is 'pray'"):
        ServiceOptions(on_drift="pray")  # type: ignore[arg-type]
