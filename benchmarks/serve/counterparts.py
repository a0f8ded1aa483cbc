"""Ask our runtime in a real MLServer, and our own server, by `mlserver infer`, kserve's client, REST and gRPC.

    python benchmarks/serve/counterparts.py --mlserver VENV --kserve VENV NAME=ARTIFACT ...

Each VENV is a virtual environment of its own: that of MLServer holds this package too, that of kserve only kserve.
All answers are compared with those of ``sdcompress.open``. Everything is on loopback.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tritonclient.grpc as triton
from process import COMMAND, ONE_THREAD, free_ports, running
from tritonclient.utils import np_to_triton_dtype

sys.path.append(str(Path(__file__).parents[1] / "speed"))
from record import Record

import sdcompress
from sdcompress.artifact.read import open_artifact
from sdcompress.options import Options

HERE = Path(__file__).resolve().parent
ELSEWHERE = {name: value for name, value in ONE_THREAD.items() if name != "PYTHONPATH"}  # another environment
READY = "http://127.0.0.1:{port}/v2/health/ready"
Answer = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mlserver", type=Path, required=True)
    parser.add_argument("--kserve", type=Path, required=True)
    parser.add_argument("artifacts", nargs="+", metavar="NAME=ARTIFACT")
    given = parser.parse_args()
    record, artifacts = Record(HERE, "counterparts"), dict(text.split("=", 1) for text in given.artifacts)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wanted = {name: Golden(name, Path(path)) for name, path in artifacts.items()}
        figures: dict[str, Any] = {}
        with mlserver(given.mlserver, artifacts, folder) as (http, grpc):
            figures["runtime in MLServer"] = {
                "REST": each(wanted, lambda golden: rest(http, golden)),
                "gRPC": each(wanted, lambda golden: by_grpc(grpc, golden)),
                "mlserver infer": each(wanted, lambda golden: infer(given.mlserver, http, golden, folder)),
                "refusals": refusals(http, wanted),
            }
        with ours(artifacts) as (http, grpc):
            figures["sdcompress serve"] = {
                "REST": each(wanted, lambda golden: rest(http, golden)),
                "gRPC": each(wanted, lambda golden: by_grpc(grpc, golden)),
                "mlserver infer": each(wanted, lambda golden: infer(given.mlserver, http, golden, folder)),
                "mlserver infer, binary": each(
                    wanted, lambda golden: infer(given.mlserver, http, golden, folder, "--binary-data")
                ),
                "refusals": refusals(http, wanted),
                "kserve": each(wanted, lambda golden: kserve(given.kserve, http, grpc, golden, folder)),
            }
    versions = {**versions_of(given.mlserver, "mlserver"), **versions_of(given.kserve, "kserve")}
    record.write(figures, versions=versions)


class Golden:
    """The golden samples of an artifact as requests of one row, and the engine's answers to them."""

    def __init__(self, name: str, path: Path) -> None:
        artifact = open_artifact(path)
        inputs = artifact.modality.collate(artifact.golden().examples)
        self.name, self.manifest = name, artifact.manifest
        self.rows = [inputs[row : row + 1].arrays for row in range(len(inputs))]
        engine = sdcompress.open(path, threads=1, allow_uncertified=True)
        expected = [engine(inputs[row : row + 1]) for row in range(len(inputs))]
        self.exit_index = [int(one.exit_index[0]) for one in expected]
        self.outputs = [one.outputs[0] for one in expected]

    def request(self, row: int, **more: Any) -> dict[str, Any]:
        """Return a request in JSON."""
        inputs = [
            {
                "name": name,
                "datatype": np_to_triton_dtype(array.dtype),
                "shape": list(array.shape),
                "data": array.ravel().tolist(),
            }
            for name, array in self.rows[row].items()
        ]
        return {"id": str(row), "inputs": inputs, "outputs": [{"name": "outputs"}, {"name": "exit_index"}], **more}

    def compared(self, answers: list[Answer]) -> dict[str, Any]:
        """Compare answers, in the order of the rows."""
        assert len(answers) == len(self.rows), (len(answers), answers[:1])
        outputs = [np.asarray(one["outputs"], np.float32).ravel() for one in answers]
        pairs = list(zip(outputs, (one.ravel() for one in self.outputs), strict=True))
        exits = [int(one["exit_index"]) for one in answers]
        return {
            "requests": len(answers),
            "exits": np.bincount(exits, minlength=len(self.manifest.exits)).tolist(),
            "same_exits": exits == self.exit_index,
            "max_abs_diff": max(float(np.abs(a - b).max()) for a, b in pairs),
            "equal_to_the_bit": all((a.view(np.int32) == b.view(np.int32)).all() for a, b in pairs),
        }


def each(wanted: dict[str, Golden], ask: Callable[[Golden], dict[str, Any]]) -> dict[str, Any]:
    return {name: ask(golden) for name, golden in wanted.items()}


def rest(port: int, golden: Golden) -> dict[str, Any]:
    """Ask in JSON; the parameters of the responses have to fit their outputs."""
    answers, fits = [], True
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for row in range(len(golden.rows)):
            response = client.post(f"/v2/models/{golden.name}/infer", json=golden.request(row)).raise_for_status()
            body = response.json()
            answers.append({one["name"]: one["data"] for one in body["outputs"]})
            answers[-1]["exit_index"] = answers[-1]["exit_index"][0]
            parameters, last = body["parameters"], answers[-1]["exit_index"] == len(golden.manifest.exits) - 1
            fits &= parameters["exit"] == golden.manifest.exits[answers[-1]["exit_index"]].name
            fits &= parameters["artifact"] == golden.manifest.digest and (("score" in parameters) != last)
            fits &= ("certificate_id" in parameters) == (golden.manifest.policy.guarantee == "certified")
    return {**golden.compared(answers), "exit_score_and_certificate_fit": fits}


def by_grpc(port: int, golden: Golden) -> dict[str, Any]:
    """Ask with tritonclient."""
    answers = []
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        for arrays in golden.rows:
            inputs = []
            for name, array in arrays.items():
                inputs.append(triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
                inputs[-1].set_data_from_numpy(np.ascontiguousarray(array))
            result = client.infer(golden.name, inputs)
            answers.append({"outputs": _array(result, "outputs"), "exit_index": _array(result, "exit_index")[0]})
    return golden.compared(answers)


def _array(result: triton.InferResult, name: str) -> Any:
    if (raw := result.as_numpy(name)) is not None and raw.size:
        return raw
    contents = result.get_output(name).contents  # MLServer answers so, unless asked for raw contents
    return list(contents.fp32_contents or contents.int64_contents)


def infer(venv: Path, port: int, golden: Golden, folder: Path, *options: str) -> dict[str, Any]:
    """Send all requests by the command `mlserver infer`, one at a time."""
    source, target = folder / "requests.jsonl", folder / "responses.jsonl"
    source.write_text("".join(json.dumps(golden.request(row)) + "\n" for row in range(len(golden.rows))))
    command = [venv / "bin" / "mlserver", "infer", "-u", f"127.0.0.1:{port}", "-m", golden.name, *options]
    done = subprocess.run(
        [*command, "-i", source, "-o", target, "-w", "1"], capture_output=True, text=True, check=False, env=ELSEWHERE
    )
    responses = sorted((json.loads(line) for line in target.read_text().splitlines()), key=_batch_index)
    if done.returncode or any("error" in one for one in responses):
        return {"failed": next((str(one["error"]) for one in responses if "error" in one), done.stderr[-500:])}
    answers = []
    for response in responses:
        data = {one["name"]: one["data"] for one in response["outputs"]}
        answers.append({"outputs": data["outputs"], "exit_index": np.ravel(data["exit_index"])[0]})
    return golden.compared(answers)


def _batch_index(response: dict[str, Any]) -> int:
    return int(response["parameters"]["batch_index"])


def kserve(venv: Path, port: int, grpc: int, golden: Golden, folder: Path) -> dict[str, Any]:
    """Make all calls of kserve's clients in their own environment."""
    given = folder / "rows.npz"
    np.savez(given, **{f"{row}/{name}": array for row, one in enumerate(golden.rows) for name, array in one.items()})
    script = HERE / "kserve_calls.py"
    done = subprocess.run(
        [venv / "bin" / "python", "-W", "ignore", script, f"127.0.0.1:{port}", f"127.0.0.1:{grpc}", golden.name, given],
        capture_output=True, text=True, check=False, env=ELSEWHERE,
    )  # fmt: skip
    if done.returncode:
        return {"failed": done.stderr.splitlines()[-1]}
    figures = json.loads(done.stdout.splitlines()[-1])
    return {"calls": figures["calls"], **{form: golden.compared(figures[form]) for form in ("json", "binary", "grpc")}}


def refusals(port: int, wanted: dict[str, Golden]) -> dict[str, Any]:
    """Return status and message of requests that break something."""
    golden = next(iter(wanted.values()))
    good = golden.request(0)
    short = {**good["inputs"][0], "data": [0]}
    cases = {
        "too few elements": {**good, "inputs": [short, *good["inputs"][1:]]},
        "an unknown parameter": {**good, "parameters": {"max_exits": 1}},
        "min_exit behind max_exit": {**good, "parameters": {"min_exit": 1, "max_exit": 0}},
        "an unknown output": {**good, "outputs": [{"name": "logits"}]},
        "another datatype": {**good, "inputs": [{**one, "datatype": "INT32", "data": [0]} for one in good["inputs"]]},
    }
    figures = {}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for name, body in cases.items():
            response = client.post(f"/v2/models/{golden.name}/infer", json=body)
            figures[name] = {"status": response.status_code, "error": response.json().get("error", response.text)}
        limited = client.post(
            f"/v2/models/{golden.name}/infer", json=golden.request(0, parameters={"min_exit": 1, "max_exit": 1})
        ).json()
    assert limited["parameters"]["exit"] == golden.manifest.exits[1].name
    assert "certificate_id" not in limited["parameters"]
    return figures


@contextlib.contextmanager
def mlserver(venv: Path, artifacts: dict[str, str], folder: Path) -> Iterator[tuple[int, int]]:
    """Package the artifacts, and start MLServer with all of them; yield the ports of REST and gRPC."""
    root, (http, grpc, metrics) = folder / "models", free_ports(3)
    for name, path in artifacts.items():
        settings = {"name": name, "threads": 1}
        sdcompress.package(path, root / name, "mlserver", settings, Options(allow_uncertified=True))
    server = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    (root / "settings.json").write_text(json.dumps({**server, "parallel_workers": 0}))
    command = [venv / "bin" / "mlserver", "start", root]
    with running(command, ELSEWHERE, READY.format(port=http), folder / "mlserver.log"):
        yield http, grpc


@contextlib.contextmanager
def ours(artifacts: dict[str, str]) -> Iterator[tuple[int, int]]:
    """Start our server; yield the ports of REST and gRPC."""
    port, grpc = free_ports(2)
    command = [*COMMAND, *(f"{name}={path}" for name, path in artifacts.items())]
    command += ["--port", str(port), "--grpc-port", str(grpc), "--no-metrics", "--threads", "1"]
    ready = READY.format(port=port)
    with tempfile.TemporaryDirectory() as folder, running(command, ONE_THREAD, ready, Path(folder) / "log"):
        yield port, grpc


def versions_of(venv: Path, package: str) -> dict[str, str]:
    """Return the versions of a package, its Python and its onnxruntime, if it has one."""
    code = (
        "import importlib.metadata as m, json, platform, sys\n"
        "names = {d.name.lower() for d in m.distributions()} & {sys.argv[1], 'onnxruntime', 'numpy', 'starlette'}\n"
        "print(json.dumps({'python': platform.python_version(), **{name: m.version(name) for name in names}}))"
    )
    done = subprocess.run([venv / "bin" / "python", "-c", code, package], capture_output=True, text=True, check=True)
    return {f"{package}: {name}": version for name, version in sorted(json.loads(done.stdout).items())}


if __name__ == "__main__":
    main()
