"""Start servers in processes of their own: `sdcompress serve`, or any other."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

START_S = 120.0
COMMAND = (sys.executable, "-c", "from sdcompress.cli import main; main()", "serve")
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


class Server:
    """The command with one thread for the network, on a free port unless the options name one.

    Args:
        folder: of the artifact, which is called ``net``.
        options: further ones of the command.
        variables: of its environment, beside those of this process.
    """

    def __init__(self, folder: Path, *options: str, variables: Mapping[str, str] = MappingProxyType({})) -> None:
        usual = ("--port", "0", "--no-metrics", "--threads", "1", "--latency-bound", "60s")
        self._log = tempfile.NamedTemporaryFile(suffix=".log")  # noqa: SIM115 - as long as the server
        begin = time.monotonic()
        self.process = subprocess.Popen(
            [*COMMAND, f"net={folder}", *usual, *options], stderr=self._log, env={**ONE_THREAD, **variables}
        )
        while not self.lines("all workers ready" if "--workers" in options else "model ready"):
            if self.process.poll() is not None:
                raise RuntimeError(Path(self._log.name).read_text())
            time.sleep(0.02)
        self.seconds_to_ready = time.monotonic() - begin
        self.port = int(self.lines("listening")[0]["url"].rpartition(":")[2].partition("/")[0])
        by_grpc = self.lines("listening for gRPC")
        self.grpc_port = int(by_grpc[0]["address"].rpartition(":")[2]) if by_grpc else 0
        self.url = f"http://127.0.0.1:{self.port}/v2/models/net/infer"

    def lines(self, message: str) -> list[dict[str, Any]]:
        """The whole lines of the log with this message."""
        text = Path(self._log.name).read_text()
        whole = [line for line in text.splitlines(keepends=True) if line.startswith("{") and line.endswith("\n")]
        return [line for line in map(json.loads, whole) if line["message"] == message]

    def processor_s(self) -> float:
        """Seconds of the processor so far."""
        user, system = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> dict[str, int]:
        """Resident memory in KiB, threads and open files."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        files = sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())
        return {"rss_kib": int(fields["VmRSS"].split()[0]), "threads": int(fields["Threads"]), "files": files}

    def stop(self) -> int:
        """Finish what waits, and return the exit code."""
        self.process.terminate()
        return self.process.wait()


@contextmanager
def running(
    command: list[Any], environment: Mapping[str, str], ready: str, log: Path, *, within: Path | None = None
) -> Iterator[None]:
    """Run any server while the block runs.

    Args:
        command: with its arguments.
        environment: all its variables.
        ready: URL that answers 200 once it is ready.
        log: what it writes.
        within: the folder that it runs in; default: that of this process.

    Raises:
        RuntimeError: if it does not get ready; with the end of its log.
    """
    with log.open("w") as file:
        process = subprocess.Popen(
            command, env=environment, stdout=file, stderr=file, cwd=within, start_new_session=True
        )
    try:
        end = time.monotonic() + START_S
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{command[0]} does not get ready: {log.read_text()[-3000:]}")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):  # some leave children behind, which would keep the port
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody listens to."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
