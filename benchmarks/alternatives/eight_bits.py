"""`quantize --precision uint8` against NNCF's default int8, on the same networks, by OpenVINO and by ONNX Runtime.

    python eight_bits.py ROOT KIND ... --nncf-python PYTHON

ROOT is that of ``benchmarks/answers``: ROOT/KIND/whole-base is the float32 artifact, ROOT/KIND/data its data. NNCF has
a Python of its own, with ``pip install nncf openvino``. All graphs run in the same way: one sample at a time, one
thread, no engine around them. What is compared is the processor time of a call, in turns over the same test samples.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time_ns
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "speed"), str(HERE.parent / "answers")]

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
from record import Record  # noqa: E402

import sdcompress  # noqa: E402
from sdcompress.artifact.read import Artifact, open_artifact  # noqa: E402
from sdcompress.benchmarking.stats import ratio_of_means, ratio_of_medians  # noqa: E402
from sdcompress.benchmarking.timed_calls import no_collection  # noqa: E402
from sdcompress.data.samples import Samples  # noqa: E402
from sdcompress.evaluation.paired import paired_difference  # noqa: E402
from sdcompress.evaluation.trained_model import open_trained_model  # noqa: E402
from sdcompress.options import Options  # noqa: E402
from sdcompress.runtime.backends.openvino import ov  # noqa: E402  # without its telemetry

CALIBRATION = 300  # NNCF's default
Feed = dict[str, np.ndarray]
Call = Callable[[Feed], np.ndarray]


def by_onnxruntime(file: Path, output: str) -> Call:
    """Return the call of a graph by ONNX Runtime, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda feed: np.asarray(session.run([output], feed)[0])


def by_openvino(file: Path, output: str) -> Call:
    """Return the call of a graph by OpenVINO, one thread, with the options of sdcompress's backend."""
    options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
    options |= {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
    request = ov.Core().compile_model(ov.Core().read_model(file), "CPU", options).create_infer_request()

    def call(feed: Feed) -> np.ndarray:
        for name, array in feed.items():
            request.set_tensor(name, ov.Tensor(array, shared_memory=True))
        request.infer()
        return request.get_tensor(output).data.copy()

    return call


def feeds(artifact: Artifact, samples: Samples, rows: np.ndarray) -> list[Feed]:
    """Return the inputs of single samples."""
    examples = [samples.examples(np.array([row])) for row in rows]
    return [dict(artifact.modality.collate(example).arrays) for example in examples]


def graphs(root: Path, nncf_python: str, artifact: Artifact, validation: Samples) -> dict[str, tuple[str, Path]]:
    """Return backend and file of every row, quantised where they are missing; the first is the reference."""
    text = artifact.modality.varies
    if not (root / "ours").exists():
        options = Options(threads=1, data_dir=root.parent / "data", trust_modules=True)
        sdcompress.quantize(artifact.path, root / "ours", "uint8", {"max_drop": 0.05}, options)
    samples = root / "samples"
    if not samples.exists():
        samples.mkdir()
        rows = np.random.default_rng(0).choice(len(validation), CALIBRATION, replace=False)
        for number, feed in enumerate(feeds(artifact, validation, rows)):
            np.savez(samples / f"{number:03}.npz", **feed)
    whole, ours = (folder / "model.onnx" for folder in (artifact.path, root / "ours"))
    rows = {
        "fp32, onnxruntime": ("onnxruntime", whole),
        "fp32, openvino": ("openvino", whole),
        "uint8, onnxruntime": ("onnxruntime", ours),
        "uint8, openvino": ("openvino", ours),
    }
    for label, flags in {"NNCF": [], **({"NNCF for transformers": ["--transformer"]} if text else {})}.items():
        out = root / label.replace(" ", "-")
        if not (out / "nncf.json").exists():
            command = [nncf_python, str(HERE / "nncf_int8.py"), str(whole), str(samples), str(out), *flags]
            subprocess.run(command, check=True)
        rows |= {f"{label}, openvino": ("openvino", out / "openvino.xml")}
    return rows


def timed(calls: dict[str, Call], inputs: list[Feed], rounds: int) -> dict[str, list[np.ndarray]]:
    """Return processor times, ms, one array for each round; all calls take the same samples within a round."""
    times: dict[str, list[np.ndarray]] = {name: [] for name in calls}
    names, per_round = list(calls), len(inputs) // rounds
    with no_collection():
        for at in range(rounds):
            chunk = inputs[at * per_round : (at + 1) * per_round]
            for name in np.roll(names, at):
                calls[name](chunk[-1])
                took = []
                for feed in chunk:
                    start = process_time_ns()
                    calls[name](feed)
                    took.append((process_time_ns() - start) / 1e6)
                times[name].append(np.array(took))
    return times


def measure(kind: Path, nncf_python: str, rounds: int, most: int) -> dict[str, Any]:
    """Compare all rows on one network."""
    options = Options(threads=1, data_dir=kind / "data", trust_modules=True)
    artifact = open_artifact(kind / "whole-base")
    dataset = open_trained_model(artifact.path, options).dataset()
    root = kind / "eight-bits"
    root.mkdir(exist_ok=True)
    rows = graphs(root, nncf_python, artifact, dataset.split("validation"))
    test = dataset.split("test")
    inputs = feeds(artifact, test, np.arange(len(test)))
    (exit_,) = artifact.manifest.exits
    make = {"onnxruntime": by_onnxruntime, "openvino": by_openvino}
    calls = {name: make[backend](file, exit_.outputs) for name, (backend, file) in rows.items()}
    outputs = {name: np.concatenate([call(feed) for feed in inputs]) for name, call in calls.items()}
    task = artifact.task
    loss = {name: task.loss(task.decide(given), test.targets) for name, given in outputs.items()}
    drawn = np.random.default_rng(0).permutation(len(inputs))[:most]
    times = timed(calls, [inputs[row] for row in drawn], rounds)
    (first, reference), exact = (name for name in list(rows)[:3:2]), next(iter(outputs.values()))
    figures = {}
    for name, (_, file) in rows.items():
        pooled = np.concatenate(times[name])
        figures[name] = {
            "metric": round(float(1 - loss[name].mean()), 5),
            "lost, against fp32": [round(v, 5) for v in paired_difference(loss[first], loss[name])],
            "more than uint8, onnxruntime": [round(v, 5) for v in paired_difference(loss[name], loss[reference])],
            "root mean square error of the outputs": round(float(np.sqrt(((outputs[name] - exact) ** 2).mean())), 5),
            "mean_ms": round(float(pooled.mean()), 4),
            "p50_ms": round(float(np.median(pooled)), 4),
            "mean / mean of uint8, onnxruntime": vars(ratio_of_means(times[name], times[reference])),
            "p50 / p50 of uint8, onnxruntime": vars(ratio_of_medians(times[name], times[reference])),
            "bytes": sum(part.stat().st_size for part in (file, file.with_suffix(".bin")) if part.exists()),
        }
    nncf = json.loads((root / "NNCF" / "nncf.json").read_text(encoding="utf-8"))
    return {"test_samples": len(test), "metric": task.metric, "nncf": nncf, "rows": figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("kinds", nargs="+")
    parser.add_argument("--nncf-python", required=True)
    parser.add_argument("--name", default="eight-bits", help="of the record")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--samples", type=int, default=600, help="test samples that are timed, at most")
    given = parser.parse_args()
    record = Record(HERE, given.name)
    figures = {}
    for kind in given.kinds:
        figures[kind] = measure(given.root / kind, given.nncf_python, given.rounds, given.samples)
        record.write(figures, rounds=given.rounds, samples=given.samples, threads=1, batch=1)


if __name__ == "__main__":
    main()
