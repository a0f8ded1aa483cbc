"""Load packaged artifacts in a real Triton, and compare its answers with those of ``sdcompress.open``.

    python benchmarks/triton/compare.py --tritonserver FOLDER/tritonserver --out record.json NAME=ARTIFACT[:FORM] ...

The golden samples go as one request, or one by one at the same time where a request has one row.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import np_to_triton_dtype

import sdcompress
from sdcompress.artifact.read import open_artifact
from sdcompress.machine import machine
from sdcompress.modalities import Inputs
from sdcompress.options import Options
from sdcompress.schema.manifest import Manifest
from sdcompress.schema.package import Package

PORT = 18640
START_S = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tritonserver", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("artifacts", nargs="+", metavar="NAME=ARTIFACT[:FORM]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        packages = [packaged(text, Path(folder)) for text in given.artifacts]
        server, client = start(given.tritonserver, [repository for _, _, repository, _ in packages], Path(folder))
        try:
            rows = [compared(client, name, path, record) for name, path, _, record in packages]
            about = client.get_server_metadata()
        finally:
            server.terminate()
            server.wait()
    record = {
        "command": "benchmarks/triton/compare.py",
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "machine": machine().cpu,
        "triton": f"{about['version']} of nvidia-pytriton 0.7.0; the backend onnxruntime is a stand-in in Python",
        "versions": {name: version(name) for name in ("sdcompress", "onnxruntime", "numpy", "tritonclient")},
        "comparisons": rows,
    }
    given.out.write_text(json.dumps(record, indent=1) + "\n")


def packaged(text: str, folder: Path) -> tuple[str, Path, Path, Package]:
    """Package an artifact; returns its name, its folder, the repository and the record."""
    name, _, place = text.partition("=")
    path, _, form = place.partition(":")
    settings = {"name": name, "intra_op_threads": 1, **({"form": form} if form else {})}
    options = Options(allow_uncertified=True)  # answers are compared, nothing is promised
    record = sdcompress.package(path, folder / name, "triton", settings, options)
    return name, Path(path), folder / name, record


def start(command: str, repositories: list[Path], folder: Path) -> tuple[Any, triton.InferenceServerClient]:
    """Start Triton with all repositories; models are loaded on request."""
    options = [f"--model-repository={path}" for path in repositories]
    log = (folder / "triton.log").open("w")
    server = subprocess.Popen(
        [command, "--model-control-mode=explicit", *options],
        env={**os.environ, "PORT": str(PORT)},
        stdout=log,
        stderr=log,
    )
    client = triton.InferenceServerClient(
        f"127.0.0.1:{PORT}", concurrency=32, connection_timeout=START_S, network_timeout=START_S
    )
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError):
            if client.is_server_ready():
                return server, client
        time.sleep(1)
    server.kill()
    server.wait()
    sys.exit((folder / "triton.log").read_text()[-3000:])


def compared(client: triton.InferenceServerClient, name: str, path: Path, record: Package) -> dict[str, Any]:
    """Load the models of a package, send the golden samples, and compare the answers."""
    for model in reversed(record.models):  # the segments before the program that calls them
        client.load_model(model)
    config, artifact = client.get_model_config(name), open_artifact(path)
    inputs = artifact.modality.collate(artifact.golden().examples)
    one_by_one = "sequence_batching" in config or not config["max_batch_size"]
    parts = [inputs[row : row + 1] for row in range(len(inputs))] if one_by_one else [inputs]
    waiting = [client.async_infer(name, request(part)) for part in parts]
    answers = [one.get_result() for one in waiting]

    def answer(output: str) -> Any:
        return np.concatenate([one.as_numpy(output) for one in answers])

    engine = sdcompress.open(path, threads=1, allow_uncertified=True)
    manifest = artifact.manifest
    result: dict[str, Any] = {
        "model": name,
        "form": form_of(config, manifest),
        "modality": manifest.modality.name,
        "task": manifest.task.name,
        "policy": record.guarantee and manifest.policy.name,
        "artifact": manifest.digest,
        "rows": len(inputs),
        "requests": len(parts),
    }
    if record.guarantee or manifest.one_graph:
        expected, exit_index = engine(inputs), answer("exit_index").ravel()
        exits = np.bincount(exit_index, minlength=len(manifest.exits)).tolist()
        result |= {"exits": exits, "same_exits": bool((exit_index == expected.exit_index).all())}
        pairs = [(answer("outputs"), expected.outputs)]
    else:
        pairs = [(answer(e.outputs), values) for e, values in zip(manifest.exits, engine.exits(inputs), strict=True)]
    result["max_abs_diff"] = max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)
    result["tolerance"] = min(record.tolerance for record in manifest.parity)
    result["executions"] = {model: executions(client, model) for model in record.models}
    for model in record.models:
        client.unload_model(model)
    print(json.dumps(result), flush=True)
    return result


def form_of(config: dict[str, Any], manifest: Manifest) -> str:
    if config["backend"] == "python":
        return "sequence" if "sequence_batching" in config else "bls"
    return manifest.one_graph.kind if manifest.one_graph else manifest.layout


def request(part: Inputs) -> list[triton.InferInput]:
    inputs = []
    for name, array in part.arrays.items():
        tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(np.ascontiguousarray(array))
        inputs.append(tensor)
    return inputs


def executions(client: triton.InferenceServerClient, model: str) -> list[int]:
    """Rows and batches that a model has run, its warm-up included."""
    stats = client.get_inference_statistics(model)["model_stats"][0]
    return [stats["inference_count"], stats["execution_count"]]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
