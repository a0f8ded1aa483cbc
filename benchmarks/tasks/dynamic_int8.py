"""onnxruntime's own dynamic int8 of a whole network, beside float32 and the toolkit's 8 bits. One text, one thread.

    PYTHONPATH=. python benchmarks/tasks/dynamic_int8.py SINGLE SINGLE_8BIT --data-dir DATA

SINGLE and SINGLE_8BIT are artifacts of the layout ``single``. Accuracy is on all test sentences; times are of the
first of them, in turns, as processor time of the thread, which other processes do not lengthen by taking the processor.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from time import thread_time_ns
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

sys.path.append(str(Path(__file__).resolve().parent.parent / "speed"))
from record import Record

import sdcompress
from sdcompress.onnx_graph.cpu_session import cpu_session


def session_of(artifact: Path) -> onnxruntime.InferenceSession:
    """Return a session of one thread for the graph of an artifact."""
    return cpu_session((artifact / "model.onnx").read_bytes(), threads=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("single", type=Path)
    parser.add_argument("single_8bit", type=Path)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=300, help="timed test sentences")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    record = Record(Path(__file__).resolve().parent, "dynamic-int8")
    engine = sdcompress.open(chosen.single)
    _, *lines = (chosen.data_dir / "test.tsv").read_text(encoding="utf-8").splitlines()
    texts, labels = zip(*(line.split("\t") for line in lines), strict=True)
    feeds = [dict(engine.preprocess([text]).arrays) for text in texts]
    targets = [int(label) for label in labels]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        quantize_dynamic(chosen.single / "model.onnx", file, weight_type=QuantType.QInt8, per_channel=True)
        sessions = {
            "fp32": session_of(chosen.single),
            "dynamic int8": cpu_session(file.read_bytes(), threads=1),
            "uint8": session_of(chosen.single_8bit),
        }
    output = sessions["fp32"].get_outputs()[0].name
    figures: dict[str, dict[str, Any]] = {}
    for name, session in sessions.items():
        decisions = [int(session.run([output], feed)[0].argmax()) for feed in feeds]
        figures[name] = {"accuracy": float(np.mean(np.equal(decisions, targets)))}
    times = {name: np.empty((chosen.rounds, chosen.texts)) for name in sessions}
    for turn in range(chosen.rounds):
        for row, feed in enumerate(feeds[: chosen.texts]):
            for name, session in sessions.items():
                start = thread_time_ns()
                session.run([output], feed)
                times[name][turn, row] = (thread_time_ns() - start) / 1e6
    best = {name: ms.min(axis=0) for name, ms in times.items()}
    for name, ms in best.items():
        ratios = [times["fp32"][turn].mean() / times[name][turn].mean() for turn in range(chosen.rounds)]
        figures[name] |= {
            "mean_ms": round(float(ms.mean()), 3),
            "speedup_of_the_mean": round(float(np.median(ratios)), 3),
            "rounds": [round(min(ratios), 3), round(max(ratios), 3)],
        }
    record.write(figures, texts=chosen.texts, rounds=chosen.rounds)


if __name__ == "__main__":
    main()
