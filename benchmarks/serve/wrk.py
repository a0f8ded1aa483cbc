"""Send one prepared request again and again with wrk (Debian: apt install wrk), whose own cost is small."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_SCRIPT = """
local file = io.open("{body}", "rb")
wrk.method, wrk.body = "POST", file:read("*a")
file:close()
{headers}
function done(summary, latency)
  local e = summary.errors
  io.write(string.format('{{"p50_ms": %.4f, "p99_ms": %.4f, "requests": %d, "us": %d, "errors": %d}}\\n',
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


class Wrk:
    """One request to one address.

    Args:
        url: where it goes.
        body: of the request.
        headers: likewise.
    """

    def __init__(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        if shutil.which("wrk") is None:
            raise SystemExit("wrk is not installed: apt install wrk")
        self._url, self._folder = url, tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        (folder / "body").write_bytes(body)
        lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
        self._script = folder / "request.lua"
        self._script.write_text(_SCRIPT.format(body=folder / "body", headers=lines), encoding="utf-8")

    def run(self, connections: int, seconds: int) -> dict[str, float]:
        """Keep so many requests under way.

        Returns:
            Milliseconds (p50, p99) and requests per second.
        """
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(self._script)]
        answer = subprocess.run([*command, self._url], capture_output=True, text=True, check=True, timeout=120)
        figures: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
        if figures["errors"] or not figures["requests"]:
            raise RuntimeError(f"{self._url} answered with errors: {answer.stdout}")
        return {
            "p50_ms": figures["p50_ms"],
            "p99_ms": figures["p99_ms"],
            "requests_per_s": 1e6 * figures["requests"] / figures["us"],
        }


def binary_request(name: str, inputs: np.ndarray, output: str) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of an infer request of the Open Inference Protocol with a binary tensor."""
    tensor = {"name": name, "shape": list(inputs.shape), "datatype": "FP32"}
    wanted = [{"name": output, "parameters": {"binary_data": True}}]
    head = {"inputs": [{**tensor, "parameters": {"binary_data_size": inputs.nbytes}}], "outputs": wanted}
    written = json.dumps(head).encode()
    return written + inputs.tobytes(), {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(written)),
    }


def json_request(name: str, inputs: np.ndarray, output: str) -> tuple[bytes, dict[str, str]]:
    """Return the same with the tensor as JSON."""
    tensor = {"name": name, "shape": list(inputs.shape), "datatype": "FP32", "data": inputs.ravel().tolist()}
    body = {"inputs": [tensor], "outputs": [{"name": output}]}
    return json.dumps(body).encode(), {"Content-Type": "application/json"}
