"""torch's AOTInductor against ONNX Runtime and OpenVINO: the whole network, fp32, one sample, one thread, in turns.

A package is compiled from the checkpoint. What its library links to is listed, because that is what must be installed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))
sys.path.insert(0, str(Path(__file__).parents[1] / "alternatives"))  # nets.py, for a checkpoint of it
import torch
from record import Record, against
from runtimes import BACKENDS, samples, turn

from sdcompress.artifact.read import open_artifact
from sdcompress.benchmarking.stats import ratio_of_medians
from sdcompress.checkpoint import open_checkpoint
from sdcompress.modalities import Inputs
from sdcompress.runtime.open import open_engine


class Last(torch.nn.Module):
    """The last exit's outputs; the export drops the other heads."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:  # noqa: D102
        return self.network(*inputs).logits[-1]


def compiled(run: Path, tensors: list[torch.Tensor], folder: Path) -> tuple[Any, dict[str, Any]]:
    """The loaded package, and what it takes to have it."""
    network = Last(open_checkpoint(run).network(trust_modules=True)).eval()
    start = perf_counter()
    with torch.no_grad():
        program = torch.export.export(network, tuple(tensors))  # fixed shapes: the best case
        package = torch._inductor.aoti_compile_and_package(program, package_path=str(folder / "model.pt2"))  # noqa: SLF001
    seconds = perf_counter() - start
    with zipfile.ZipFile(package) as archive:
        (library,) = [name for name in archive.namelist() if name.endswith(".so")]
        archive.extract(library, folder)
    listed = subprocess.run(["ldd", folder / library], capture_output=True, text=True, check=True).stdout
    needs = sorted({line.split()[0] for line in listed.splitlines() if "torch" in line or "c10" in line})
    return torch._inductor.aoti_load_package(package), {"compile_s": round(seconds, 1), "links to": needs}  # noqa: SLF001


def measure(run: Path, folder: Path, rounds: int, milliseconds: float) -> dict[str, Any]:
    artifact = open_artifact(folder)
    inputs = samples(artifact)
    names = [tensor.name for tensor in artifact.manifest.inputs]

    def tensors(of: Inputs) -> list[torch.Tensor]:
        return [torch.from_numpy(of.arrays[name]) for name in names]

    with tempfile.TemporaryDirectory() as place:
        package, facts = compiled(run, tensors(inputs[0]), Path(place))
    engines = {name: open_engine(artifact, backend=name, threads=1, allow_uncertified=True) for name in BACKENDS}
    calls: dict[str, Any] = {name: partial(engine.forced, exit=-1) for name, engine in engines.items()}
    calls["aoti"] = lambda given: package(*tensors(given)).numpy()
    off = max(float(np.abs(calls["aoti"](x) - engines["onnxruntime"].exits(x)[-1]).max()) for x in inputs)
    times: dict[str, list[np.ndarray]] = {name: [] for name in calls}
    with torch.inference_mode():
        for call in calls.values():
            turn(call, inputs, milliseconds)
        for at in range(rounds):
            for name in list(calls) if at % 2 == 0 else list(calls)[::-1]:
                times[name].append(turn(calls[name], inputs, milliseconds))
    return {
        **facts,
        "largest difference": off,
        "median_ms": {name: round(float(np.median(np.concatenate(took))), 4) for name, took in times.items()},
        "aoti / onnxruntime": against(ratio_of_medians(times["aoti"], times["onnxruntime"]), None),
        "aoti / openvino": against(ratio_of_medians(times["aoti"], times["openvino"]), None),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+", help="NAME=CHECKPOINT=ARTIFACT, the artifact in the layout single")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--milliseconds", type=float, default=150.0, help="of one turn")
    given = parser.parse_args()
    torch.set_num_threads(1)
    record, figures = Record(Path(__file__).parent), dict[str, Any]()
    for one in given.networks:
        name, run, folder = one.split("=")
        figures[name] = measure(Path(run), Path(folder), given.rounds, given.milliseconds)
        record.write(figures, rounds=given.rounds, milliseconds=given.milliseconds, threads=1, batch=1)


if __name__ == "__main__":
    main()
