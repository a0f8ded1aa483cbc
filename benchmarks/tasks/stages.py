"""All stages of an encoder against its whole network, in float32 and uint8, one text at a time, one thread, in turns.

python benchmarks/tasks/stages.py --encoder FOLDER

Times are CPU time of the thread, which other processes do not lengthen by taking the processor. Weights of the heads
are random: times do not depend on them. Ranges of uint8 come from 64 random texts of 5 to 24 tokens. With
--alternatives also onnxruntime's dynamic int8, whose scales depend on all rows of a batch, and uint8 with outputs and
sums of tokens rounded too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from time import thread_time_ns
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
sys.path.append(str(Path(__file__).resolve().parent.parent / "speed"))

from record import Record
from text_tokens import Tokens

from sdcompress.exporting.graph import export_all_exits
from sdcompress.exporting.layout import LayoutGraphs, cut_layout
from sdcompress.models.build import build
from sdcompress.onnx_graph.cpu_session import cpu_session
from sdcompress.onnx_graph.partition import serialize
from sdcompress.quantizing.insert_qdq import quantize_integers
from sdcompress.quantizing.precisions._base import FloatSegment
from sdcompress.quantizing.precisions.uint8 import uint8
from sdcompress.quantizing.segments import output_layers, with_signals, without_signals
from sdcompress.schema.recipe import Exits, Model
from sdcompress.tasks.classification import Classification
from sdcompress.verification.sessions import SegmentSessions

SEED, TEXTS, TOKENS, WIDTH_CAP = 0, 32, 25, 128
TASK = Classification(("negative", "positive"))
Feed = dict[str, np.ndarray]
Rewrite = Callable[[FloatSegment], onnx.ModelProto]


def exported(folder: str) -> onnx.ModelProto:
    """The encoder with an exit after every layer, as one graph."""
    torch.manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Model(name=f"hf:{folder}", pretrained=True)
        layers = json.loads((Path(folder) / "config.json").read_text())["num_hidden_layers"] - 1
        exits = Exits(modules=tuple(f"encoder.encoder.layer.{i}" for i in range(layers)), head="tanh_mlp",
                      width_cap=WIDTH_CAP)  # fmt: skip
        net = build(model, exits, outputs=TASK.output_shape, inputs=Tokens().tensors).eval()
        return export_all_exits(net.logits_only(), net.exit_names, Tokens())


def texts(rng: np.random.Generator, rows: int, shortest: int, longest: int) -> Feed:
    """Random ids, one row for each text, padded to the longest."""
    lengths = rng.integers(shortest, longest + 1, rows)
    ids = rng.integers(1000, 20000, (rows, lengths.max())) * (np.arange(lengths.max()) < lengths[:, None])
    return dict(Tokens().collate(ids).arrays)


def rewritten(layout: LayoutGraphs, rewrite: Rewrite) -> dict[str, onnx.ModelProto]:
    """The graphs of a layout in another precision."""
    models, graphs = {}, [serialize(model) for model in layout.models.values()]
    for at, (file, model) in enumerate(layout.models.items()):
        there = {value.name for value in model.graph.output}
        signals = [
            (exit_, layout.outputs[exit_], names) for exit_, names in layout.signals.items() if names.values in there
        ]
        bare = without_signals(model, [names for *_, names in signals])
        layers = output_layers(bare, [name for name in layout.outputs.values() if name in there])
        feeds = partial(_feeds, graphs[:at], [value.name for value in model.graph.input])
        low = rewrite(FloatSegment(bare, layers, feeds))
        models[file] = with_signals(low, model, signals, TASK, batch="batch")
    return models


def _feeds(before: list[bytes], names: list[str]) -> Iterator[Feed]:
    from sdcompress.modalities import Inputs

    rng, sessions = np.random.default_rng(SEED), SegmentSessions(before, outputs=(), threads=1)
    for _ in range(2):
        tensors = sessions.run(Inputs(texts(rng, 32, 5, 24)))
        yield {name: tensors[name] for name in names}


def everything_rounded(segment: FloatSegment) -> onnx.ModelProto:
    """uint8 with outputs of products and sums of tokens rounded too, as maps are."""
    return quantize_integers(segment, QuantType.QUInt8, {"ActivationSymmetric": False, "DedicatedQDQPair": False})


def dynamic(model: onnx.ModelProto) -> dict[str, onnx.ModelProto]:
    """Onnxruntime's dynamic int8 of products."""
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "given.onnx", Path(folder) / "out.onnx"
        onnx.save(model, given)
        quantize_dynamic(given, out, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)
        return {"model.onnx": onnx.load(out)}


def chain(models: Mapping[str, onnx.ModelProto]) -> Callable[[Feed], np.ndarray]:
    """A function that runs graphs one after the other and returns the last exit's outputs."""
    sessions = [cpu_session(serialize(model), threads=1) for model in models.values()]
    parts = [
        (session, [value.name for value in session.get_inputs()], [value.name for value in session.get_outputs()])
        for session in sessions
    ]

    def run(feed: Feed) -> np.ndarray:
        tensors = dict(feed)
        for session, inputs, outputs in parts:
            tensors.update(zip(outputs, session.run(outputs, {name: tensors[name] for name in inputs}), strict=True))
        return np.asarray(tensors["final_outputs"])

    return run


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--graph", help="an export of before, made where there is none")
    parser.add_argument("--alternatives", action="store_true")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--name", default="stages", help="of the record")
    given = parser.parse_args()
    record = Record(Path(__file__).resolve().parent, given.name)
    if not (given.graph and Path(given.graph).is_file()):
        model = exported(given.encoder)
        if given.graph:
            onnx.save(model, given.graph)
    else:
        model = onnx.load(given.graph)
    exits = tuple(output.name.removesuffix("_outputs") for output in model.graph.output)
    whole, stages = cut_layout(model, "single", exits[-1:], TASK), cut_layout(model, "cascade", exits, TASK)
    runs = {
        "whole fp32": chain(whole.models),
        "stages fp32": chain(stages.models),
        "whole uint8": chain(rewritten(whole, uint8)),
        "stages uint8": chain(rewritten(stages, uint8)),
    }
    if given.alternatives:
        runs["whole uint8, all rounded"] = chain(rewritten(whole, everything_rounded))
        runs["whole dynamic int8"] = chain(dynamic(whole.models["model.onnx"]))
    rng = np.random.default_rng(SEED + 1)
    feeds = [texts(rng, 1, TOKENS, TOKENS) for _ in range(TEXTS)]
    outputs = {name: np.concatenate([run(feed) for feed in feeds]) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(given.rounds):
        for name in rng.permutation(list(runs)):
            start = thread_time_ns()
            runs[str(name)](feeds[turn % TEXTS])
            times[str(name)].append((thread_time_ns() - start) / 1e6)
    figures: dict[str, Any] = {
        "ms": {name: {"fastest": min(ms), "lower_quartile": float(np.quantile(ms, 0.25)),
                      "median": float(np.median(ms))} for name, ms in times.items()},
        "stages_over_whole": {
            kind: {"fastest": min(times[f"stages {kind}"]) / min(times[f"whole {kind}"]),
                   "median_of_turns": float(np.median(np.array(times[f"stages {kind}"]) / times[f"whole {kind}"]))}
            for kind in ("fp32", "uint8")
        },
        "rms_distance_to_fp32": {
            name: float(np.sqrt(np.square(values - outputs["whole fp32"]).mean())) for name, values in outputs.items()
        },
        "deviation_of_outputs": float(outputs["whole fp32"].std()),
    }  # fmt: skip
    record.write(figures, seed=SEED, tokens=TOKENS, texts=TEXTS, rounds=given.rounds, threads=1, width_cap=WIDTH_CAP)


if __name__ == "__main__":
    main()
