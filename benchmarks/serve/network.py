"""A cascade of known cost whose inputs say where they exit: a real artifact, written without training.

An input of value v (0, 1, 2) in all pixels exits at exit v. Each stage multiplies a vector of 512 with as many matrices
as asked for. They do not fit into a core's cache together, so that a batch costs less for a row than a row alone. Or it
convolves it, as a map of 8 x 8: on a core a row of a batch costs as much as a row alone, as in networks for images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdcompress.artifact.golden import Golden
from sdcompress.artifact.write import entry, finish, staged
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image
from sdcompress.onnx_graph.exit_signals import add_signals
from sdcompress.onnx_graph.partition import tensor_specs
from sdcompress.schema.manifest import Exit, ExitSignals, ParityRecord, Policy, Provenance, Segment
from sdcompress.tasks.classification import Classification

EXITS = ("exit1", "exit2", "final")
WIDTH, CHANNELS = 512, 256
TASK = Classification(("yes", "no"))


def inputs_of(exits: Sequence[int] | npt.NDArray[np.int64], side: int) -> npt.NDArray[np.float32]:
    """Inputs [B, 3, side, side] that exit at these exits."""
    values = np.asarray(exits, np.float32)[:, None, None, None]
    return np.ascontiguousarray(np.broadcast_to(values, (len(values), 3, side, side)))


def write_cascade(out: Path, *, side: int, products: int = 0, convolutions: int = 0) -> Path:
    """Write the artifact.

    Args:
        out: its folder.
        side: of the images, in pixels.
        products: matrices in each stage.
        convolutions: in each stage, of 38 million multiplications each.
    """
    graphs = [_stage(stage, side, products, convolutions) for stage in range(len(EXITS))]
    computed = dict[str, ExitSignals]()
    for at, name in enumerate(EXITS[:-1]):
        graphs[at], computed[name] = add_signals(graphs[at], name, f"{name}_outputs", TASK, batch="batch")
    preprocess = Preprocess(channels=3, resize=(side, side), mean=(0.0,) * 3, std=(1 / 255,) * 3)
    modality = Image(preprocess, (3, side, side))
    images = np.repeat(np.arange(3, dtype=np.uint8), 6)[:, None, None, None] * np.ones((1, side, side, 3), np.uint8)
    logits = np.stack([_logits(stage, images[:, 0, 0, 0].astype(np.float32)) for stage in range(3)])
    with staged(out) as folder:
        for at, graph in enumerate(graphs):
            onnx.save(graph, folder / f"segment-{at}.onnx")
        Golden(images, logits[-1].argmax(1), logits).save(folder / "golden.npz", modality)
        finish(
            folder,
            task=TASK.record,
            outputs=TASK.outputs,
            modality=modality.record,
            inputs=modality.tensors,
            layout="cascade",
            segments=tuple(_segment(folder, at, graph) for at, graph in enumerate(graphs)),
            exits=tuple(
                Exit(name=name, segment=at, outputs=f"{name}_outputs", signals=computed.get(name))
                for at, name in enumerate(EXITS)
            ),
            policy=Policy(
                thresholds=(0.9, 0.9), max_drop=0.01, samples=100, metric=1.0, reference_metric=1.0,
                shares=(0.5, 0.3, 0.2), stage_ms=(1.0,) * 3,
            ),
            parity=tuple(
                ParityRecord(exit=name, samples=18, batches=(1,), max_abs_diff=0.0, tolerance=1e-4, flips=0)
                for name in EXITS
            ),
            provenance=Provenance(
                created="2026-01-01T00:00:00+00:00", recipe={}, recipe_sha256="1" * 64, weights_sha256="2" * 64,
                data_fingerprint="3" * 64,
            ),
            golden=entry(folder, "golden.npz"),
        )  # fmt: skip
    return out


def _logits(stage: int, value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What an exit says: sure of inputs that exit there, undecided of others; the last one is always sure."""
    sure = np.maximum(10 * (stage - value) + 5, 0)
    return np.stack([sure, np.zeros_like(sure)], axis=1).astype(np.float32)


def _stage(stage: int, side: int, products: int, convolutions: int) -> onnx.ModelProto:
    rng = np.random.default_rng(stage)
    first, name = stage == 0, f"{EXITS[stage]}_outputs"
    weights: dict[str, Any] = {
        "axes": np.array([1, 2, 3]), "ten": np.float32(-10), "five": np.float32(10 * stage + 5),
        "zero": np.float32(0), "tiny": np.float32(1e-30), "wide": np.ones((1, WIDTH), np.float32), "one": np.array([1]),
    }  # fmt: skip
    nodes = []
    if first:
        nodes += [
            helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
            helper.make_node("Unsqueeze", ["mean", "one"], ["value"]),
            helper.make_node("MatMul", ["value", "wide"], ["hidden"]),
        ]
    at = "hidden" if first else f"hidden-{stage}"
    source = at
    for product in range(products):
        weights[f"w{product}"] = (rng.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32)
        nodes.append(helper.make_node("MatMul", [source, f"w{product}"], [f"product-{product}"]))
        source = f"product-{product}"
    convolved = source
    if convolutions:
        weights |= {
            "map": np.array([0, 8, 8, 8]), "flat": np.array([0, -1]),
            "widen": rng.normal(size=(CHANNELS, 8, 1, 1)).astype(np.float32) / 8,
        }  # fmt: skip
        nodes.append(helper.make_node("Reshape", [source, "map"], ["mapped"]))
        nodes.append(helper.make_node("Conv", ["mapped", "widen"], ["wide-0"]))
        for each in range(convolutions):
            weights[f"c{each}"] = (rng.normal(size=(CHANNELS, CHANNELS, 3, 3)) / (3 * np.sqrt(CHANNELS))).astype(
                np.float32
            )
            nodes.append(helper.make_node("Conv", [f"wide-{each}", f"c{each}"], [f"wide-{each + 1}"], pads=[1] * 4))
        nodes.append(helper.make_node("Reshape", [f"wide-{convolutions}", "flat"], ["convolved"]))
        convolved = "convolved"
    nodes += [
        helper.make_node("ReduceMax", [convolved, "one"], ["work"], keepdims=1),
        helper.make_node("Mul", ["work", "tiny"], ["nothing"]),
        helper.make_node("Mul", ["value" if first else "value_in", "ten"], ["scaled"]),
        helper.make_node("Add", ["scaled", "five"], ["shifted"]),
        helper.make_node("Add", ["shifted", "nothing"], ["worked"]),
        helper.make_node("Relu", ["worked"], ["sure"]),
        helper.make_node("Mul", ["sure", "zero"], ["undecided"]),
        helper.make_node("Concat", ["sure", "undecided"], [name], axis=1),
    ]
    given = [("input", ["batch", 3, side, side])] if first else [(at, ["batch", WIDTH]), ("value_in", ["batch", 1])]
    results = [(name, ["batch", 2])]
    if stage < len(EXITS) - 1:
        nodes.append(helper.make_node("Identity", [source], [f"hidden-{stage + 1}"]))
        results.append((f"hidden-{stage + 1}", ["batch", WIDTH]))
    if first:
        nodes.append(helper.make_node("Identity", ["value"], ["value_in"]))
        results.append(("value_in", ["batch", 1]))
    graph = helper.make_graph(
        nodes, "stage",
        [helper.make_tensor_value_info(one, TensorProto.FLOAT, shape) for one, shape in given],
        [helper.make_tensor_value_info(one, TensorProto.FLOAT, shape) for one, shape in results],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _segment(folder: Path, at: int, model: onnx.ModelProto) -> Segment:
    file = entry(folder, f"segment-{at}.onnx")
    macs = sum(int(np.prod(one.dims)) for one in model.graph.initializer)
    inputs, outputs = tensor_specs(model.graph.input), tensor_specs(model.graph.output)
    return Segment(**file.model_dump(), inputs=inputs, outputs=outputs, macs=macs, parameters=macs)
