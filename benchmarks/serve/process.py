"""Start `sdcompress serve` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType


class Server:
    """The command on a free port, with one thread for the network.

    Args:
        folder: of the artifact, which is called ``net``.
        options: further ones of the command.
        variables: of its environment, beside those of this process.
    """

    def __init__(self, folder: Path, *options: str, variables: Mapping[str, str] = MappingProxyType({})) -> None:
        command = [sys.executable, "-c", "from sdcompress.cli import main; main()", "serve", f"net={folder}"]
        usual = ["--port", "0", "--no-metrics", "--threads", "1", "--latency-bound", "60s"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        self.process = subprocess.Popen(
            [*command, *usual, *options], stderr=subprocess.PIPE, text=True, env=environment
        )
        self.port, self.grpc_port, lines = 0, 0, list[str]()
        assert self.process.stderr is not None
        for line in self.process.stderr:
            lines.append(line)
            entry = json.loads(line) if line.startswith("{") else {"message": ""}
            if entry["message"] == "listening":
                self.port = int(entry["url"].rpartition(":")[2].partition("/")[0])
            if entry["message"] == "listening for gRPC":
                self.grpc_port = int(entry["address"].rpartition(":")[2])
            if entry["message"] == ("all workers ready" if "--workers" in options else "model ready"):
                break
        else:
            raise RuntimeError("".join(lines))
        self.url = f"http://127.0.0.1:{self.port}/v2/models/net/infer"
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def processor_s(self) -> float:
        """Seconds of the processor so far."""
        user, system = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Finish what waits, and end."""
        self.process.terminate()
        self.process.wait()
