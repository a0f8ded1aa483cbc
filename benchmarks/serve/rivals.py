"""Compare the server with others: the same network, the same client, the same payload, in turn; about 6 minutes.

    PYTHONPATH=. python benchmarks/serve/rivals.py --environments FOLDER [--triton FOLDER/tritonserver]

FOLDER holds a virtual environment for each of the others, `FOLDER/NAME`, which `--install` makes first:

    python benchmarks/serve/rivals.py --environments FOLDER --install

The network does nothing, so that only the way there and back is measured. The others run it as one ONNX graph in
onnxruntime with one thread, ours as a cascade of three graphs of which every request takes all. wrk is the client.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from network import inputs_of, write_cascade
from process import Server, running
from wrk import Wrk, binary_request, json_request

sys.path.append(str(Path(__file__).parents[1] / "speed"))
from record import Record

HERE = Path(__file__).resolve().parent
APPS = HERE / "rivals"
ROUNDS, CONNECTIONS = 3, (1, 8)
LEAST_REQUESTS, SLOWEST_S = 30, 5
CLEAN = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
PACKAGES = {
    "fastapi": ("fastapi[standard]==0.165.0", "onnxruntime==1.32.0"),
    "litserve": ("litserve==0.2.19", "onnxruntime==1.32.0"),
    "bentoml": ("bentoml==1.4.40", "onnxruntime==1.32.0"),
    "mlserver": ("mlserver==1.7.1", "onnxruntime==1.32.0"),
}
Request = tuple[bytes, Mapping[str, str]]


@dataclass(frozen=True)
class Rival:
    """A server to compare with.

    Attributes:
        environment: name of its virtual environment.
        command: from its folder of executables, an empty folder and the port to its command.
        ready: path that answers 200 once it is ready.
        forms: name of a form -> path and request of a batch.
    """

    environment: str
    command: Callable[[Path, Path, int], list[str]]
    ready: str
    forms: Mapping[str, tuple[str, Callable[[np.ndarray], Request]]]


def plain_json(inputs: np.ndarray) -> Request:
    """The tensor as nested lists."""
    return json.dumps({"data": inputs.tolist()}).encode(), {"Content-Type": "application/json"}


def plain_bytes(inputs: np.ndarray) -> Request:
    """The tensor alone."""
    return inputs.tobytes(), {"Content-Type": "application/octet-stream"}


def protocol_json(inputs: np.ndarray) -> Request:
    """The tensor in the Open Inference Protocol."""
    return json_request("input", inputs, "outputs")


def protocol_binary(inputs: np.ndarray) -> Request:
    """Likewise, as binary data."""
    return binary_request("input", inputs, "outputs")


def _mlserver(executables: Path, folder: Path, port: int) -> list[str]:
    (folder / "mlserver_app.py").write_text((APPS / "mlserver_app.py").read_text(encoding="utf-8"), encoding="utf-8")
    settings = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "host": "127.0.0.1"}
    (folder / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0}), encoding="utf-8")
    model = {"name": "net", "implementation": "mlserver_app.Network"}
    (folder / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    return [str(executables / "mlserver"), "start", str(folder)]


RIVALS = {
    "FastAPI": Rival(
        "fastapi",
        lambda executables, _, port: [
            *(str(executables / "uvicorn"), "fastapi_app:app", "--app-dir", str(APPS), "--port", str(port)),
            *("--log-level", "error", "--no-access-log"),
        ],
        "/ready",
        {"JSON": ("/predict", plain_json), "bytes": ("/bytes", plain_bytes)},
    ),
    "LitServe": Rival(
        "litserve",
        lambda executables, _, __: [str(executables / "python"), str(APPS / "litserve_app.py")],
        "/health",
        {"JSON": ("/predict", plain_json)},
    ),
    "BentoML": Rival(
        "bentoml",
        lambda executables, _, port: [
            *(str(executables / "bentoml"), "serve", "bentoml_app:Network", "--working-dir", str(APPS)),
            *("--port", str(port), "--host", "127.0.0.1"),
        ],
        "/readyz",
        {"JSON": ("/predict", plain_json)},
    ),
    "MLServer": Rival("mlserver", _mlserver, "/v2/models/net/ready", {"JSON": ("/v2/models/net/infer", protocol_json)}),
}


def merged(folder: Path, out: Path) -> Path:
    """Write the three graphs of a cascade as one, with the outputs of its last exit."""
    whole = onnx.load(folder / "segment-0.onnx")
    for at in (1, 2):
        after = onnx.compose.add_prefix(
            onnx.load(folder / f"segment-{at}.onnx"), f"s{at}_", rename_inputs=False, rename_outputs=False
        )
        names = [each.name for each in after.graph.input]
        for name in names:  # what later stages need too has to stay an output
            if name not in {each.name for each in whole.graph.output}:
                raise SystemExit(f"the graph before does not give {name}")
        whole = onnx.compose.merge_models(
            whole, after, io_map=[(name, name) for name in names],
            outputs=[each.name for each in after.graph.output] + (["value_in"] if at == 1 else []),
        )  # fmt: skip
    whole.graph.output[0].name, given = "outputs", whole.graph.output[0].name
    for node in whole.graph.node:
        node.output[:] = ["outputs" if name == given else name for name in node.output]
    del whole.graph.output[1:]
    onnx.checker.check_model(whole, full_check=True)
    onnx.save(whole, out)
    return out


def triton_repository(network: Path, side: int, folder: Path) -> Path:
    """Write the network as a repository of Triton, without batching, as fits one request at a time."""
    place = folder / "net" / "1"
    place.mkdir(parents=True)
    (place / "model.onnx").write_bytes(network.read_bytes())
    (folder / "net" / "config.pbtxt").write_text(
        'name: "net"\nbackend: "onnxruntime"\nmax_batch_size: 32\ndynamic_batching {}\n'
        f'default_model_filename: "model.onnx"\n'
        f'input [{{ name: "input" data_type: TYPE_FP32 dims: [3, {side}, {side}] }}]\n'
        'output [{ name: "outputs" data_type: TYPE_FP32 dims: [2] }]\n'
        "instance_group [{ kind: KIND_CPU count: 1 }]\n"
        'parameters { key: "intra_op_thread_count" value: { string_value: "1" } }\n',
        encoding="utf-8",
    )
    return folder


def clients(
    given: argparse.Namespace, folder: Path, side: int, stack: ExitStack, reasons: dict[str, str]
) -> dict[str, Wrk]:
    """Start all servers, and return a client for each of their forms."""
    artifact, inputs = write_cascade(folder / "net", side=side), inputs_of([2], side)
    network, port = merged(artifact, folder / "network.onnx"), 18700
    ours = Server(artifact)
    stack.callback(ours.stop)
    found = {
        "sdcompress, binary": Wrk(ours.url, *protocol_binary(inputs)),
        "sdcompress, JSON": Wrk(ours.url, *protocol_json(inputs)),
    }
    for name, rival in RIVALS.items():
        port += 10
        executables = given.environments / rival.environment / "bin"
        if not executables.is_dir():
            reasons[name] = "not installed"
            continue
        environment = {**CLEAN, "NETWORK": str(network), "PORT": str(port), "OMP_NUM_THREADS": "1"}
        environment |= {"PATH": f"{executables}:{os.environ['PATH']}", "BENTOML_DO_NOT_TRACK": "True"}
        address = f"http://127.0.0.1:{port}"
        rival_folder = folder / rival.environment
        rival_folder.mkdir()
        command = rival.command(executables, rival_folder, port)
        try:
            stack.enter_context(
                running(command, environment, address + rival.ready, folder / f"{name}.log", within=folder)
            )
        except RuntimeError as error:
            reasons[name] = str(error)[-800:]
            continue
        for form, (path, request) in rival.forms.items():
            found[f"{name}, {form}"] = Wrk(address + path, *request(inputs))
    if given.triton:
        repository = triton_repository(network, side, folder / "triton")
        address = f"http://127.0.0.1:{port + 10}"
        command = [str(given.triton), f"--model-repository={repository}"]
        try:
            ready = f"{address}/v2/models/net/ready"
            stack.enter_context(
                running(command, {**CLEAN, "PORT": str(port + 10)}, ready, folder / "Triton.log", within=folder)
            )
        except RuntimeError as error:
            reasons["Triton"] = str(error)[-800:]
            return found
        found["Triton, binary"] = Wrk(f"{address}/v2/models/net/infer", *protocol_binary(inputs))
        found["Triton, JSON"] = Wrk(f"{address}/v2/models/net/infer", *protocol_json(inputs))
    else:
        reasons["Triton"] = "no --triton"
    return found


def measured(
    all_clients: Mapping[str, Wrk], connections: int, seconds: Mapping[str, int], reasons: dict[str, str]
) -> dict[str, dict[str, float]]:
    """Medians of the rounds, of so many seconds each."""
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in all_clients}
    for _ in range(ROUNDS):
        for name, client in all_clients.items():
            try:
                rounds[name].append(client.run(connections, seconds[name]))
            except (RuntimeError, subprocess.SubprocessError) as error:  # noqa: PERF203 - one that fails stops no other
                reasons[f"{name}, {connections} connections"] = str(error)[:300]
    return {
        name: {key: round(float(np.median([one[key] for one in each])), 3) for key in each[0]}
        for name, each in rounds.items()
        if each
    }


def versions(environments: Path) -> dict[str, str]:
    """What is installed for each of the others."""
    named = {}
    for name in PACKAGES:
        python = environments / name / "bin" / "python"
        if python.exists():
            listed = subprocess.run([str(python), "-m", "pip", "freeze"], capture_output=True, text=True, check=True)
            wanted = re.findall(rf"(?im)^(?:{name}|onnxruntime|uvicorn|numpy)==.*$", listed.stdout)
            named[name] = ", ".join(wanted)
    return named


def install(environments: Path) -> None:
    """Make the virtual environments."""
    for name, packages in PACKAGES.items():
        folder = environments / name
        if not folder.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "python"), "-m", "pip", "install", "-q", *packages], check=False)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--triton", type=Path, help="see benchmarks/triton/install.sh")
    given = parser.parse_args()
    given.environments = given.environments.resolve()
    if given.install:
        install(given.environments)
        return
    record, figures, reasons = Record(HERE), dict[str, Any](), dict[str, str]()
    for payload, side in (("tiny (0.8 KB)", 8), ("image (602 KB)", 224)):
        with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
            all_clients = clients(given, Path(name), side, stack, reasons)
            # warms them up, and says how slow they are
            rates = measured(all_clients, 1, dict.fromkeys(all_clients, 2), reasons)
            seconds = {
                name: min(SLOWEST_S, math.ceil(LEAST_REQUESTS / rates[name]["requests_per_s"])) if name in rates else 1
                for name in all_clients
            }
            for connections in CONNECTIONS:
                figures[f"{payload}, {connections} connections"] = measured(all_clients, connections, seconds, reasons)
    record.write(
        figures, versions=versions(given.environments), install=PACKAGES, not_measured=reasons, rounds=ROUNDS,
        triton="2.51.0 of nvidia-pytriton 0.7.0 with a backend for onnxruntime in Python" if given.triton else None,
    )  # fmt: skip


if __name__ == "__main__":
    main()
