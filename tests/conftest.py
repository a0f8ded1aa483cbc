"""A real artifact in a millisecond: three exits of known arithmetic, as ONNX graphs, in any layout."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from meaning import image_modality, meaning
from onnx import TensorProto, helper, numpy_helper
from signals import TASK

from sdcompress.artifact.golden import Golden
from sdcompress.artifact.write import entry, finish, staged
from sdcompress.calibration import exit_choice
from sdcompress.calibration.calibrate import calibrate
from sdcompress.data.samples import ArraySamples
from sdcompress.exporting.one_graph import Host, export_one_graph
from sdcompress.modalities._image_preprocess import normalise
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.onnx_graph.exit_signals import add_signals
from sdcompress.onnx_graph.partition import tensor_specs
from sdcompress.schema import recipe
from sdcompress.schema.manifest import Exit, ExitSignals, ParityRecord, Policy, Provenance, Segment

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]

# what follows the load of the machine elsewhere: a test is the same on a busy one
os.environ.setdefault("OMP_NUM_THREADS", "1")

CLASSES = ("square", "disc", "star")
EXITS = ("exit1", "exit2", "final")
PREPROCESS = Preprocess(channels=1, resize=(4, 4), mean=(0.5,), std=(0.25,))
IMAGE = ("batch", 1, 4, 4)
BORDERS = {"input": IMAGE, "hidden": ("batch", 6), "deep": ("batch", 8)} | {
    f"{name}_outputs": ("batch", 3) for name in EXITS
}


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Run all tests of a file in one process, so that none of its fixtures is set up in several."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def every_exit_pays() -> Iterator[float]:
    """The networks of tests are so small that deciding takes longer than what it saves. Gives the usual least gain."""
    usual = exit_choice._LEAST_GAIN
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exit_choice, "_LEAST_GAIN", 1.0)
        yield usual


@pytest.fixture(scope="session", autouse=True)
def _state_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a user is remembered to have trained stays out of the home of whoever runs the tests."""
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    yield
    del os.environ["XDG_STATE_HOME"]
    if before is not None:
        os.environ["XDG_STATE_HOME"] = before


@dataclass(frozen=True)
class TinyNetwork:
    """``hidden = tanh(x W0)``, ``deep = tanh(hidden W1 + x V1)``, ``final = deep W2 + x V2``; two linear exits.

    The later a segment, the more it sees of the input, so deeper exits are better; segments 1 and 2 both take the
    network's input again.
    """

    weights: dict[str, npt.NDArray[np.float32]]

    def exits(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits of every exit, [3, B, 3], by numpy."""
        w, x = self.weights, inputs.reshape(len(inputs), 16)
        hidden = np.tanh(x @ w["W0"])
        deep = np.tanh(hidden @ w["W1"] + x @ w["V1"])
        return np.stack([hidden @ w["H1"], deep @ w["H2"], deep @ w["W2"] + x @ w["V2"]])

    def samples(self, count: int, seed: int = 0) -> ArraySamples:
        """Random images; a tenth of the labels are random, the others what the last exit says."""
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (count, 4, 4, 1), np.uint8)
        labels = self.exits(normalise(images, PREPROCESS))[-1].argmax(1)
        return ArraySamples(images, np.where(rng.random(count) < 0.1, rng.integers(0, 3, count), labels))


@pytest.fixture(scope="session")
def tiny_network() -> TinyNetwork:
    rng = np.random.default_rng(7)
    shapes = {"W0": (16, 6), "W1": (6, 8), "V1": (16, 8), "W2": (8, 3), "V2": (16, 3)}
    scales = {"W0": 0.2, "W1": 0.5, "V1": 0.12, "W2": 1.0, "V2": 1.0}
    weights = {name: (scales[name] * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
    # the exits are the best linear guesses at the last one
    x = rng.normal(size=(4000, 16)).astype(np.float32)
    hidden = np.tanh(x @ weights["W0"])
    deep = np.tanh(hidden @ weights["W1"] + x @ weights["V1"])
    final = deep @ weights["W2"] + x @ weights["V2"]
    for name, seen in (("H1", hidden), ("H2", deep)):
        weights[name] = np.linalg.lstsq(seen, final, rcond=None)[0].astype(np.float32)
    return TinyNetwork(weights)


@pytest.fixture
def tiny_artifact(tmp_path: Path, tiny_network: TinyNetwork) -> Callable[..., Path]:
    """Writes an artifact and returns its folder.

    ``tiny_artifact(layout="cascade", policy=(0.9, 0.8), temperatures=(1.0, 1.0, 1.0), name="tiny")``; ``policy`` holds
    the thresholds of the exits before the last, None for no policy. With ``signals`` a cascade's graphs compute them.
    Further fields of the policy go into ``fields``. The same arguments give the same bytes.
    """

    def write(
        layout: str = "cascade",
        policy: Sequence[float] | None = None,
        temperatures: Sequence[float] = (1.0, 1.0, 1.0),
        name: str | None = None,
        *,
        signals: bool = True,
        **fields: Any,
    ) -> Path:
        made = None if policy is None else _policy(policy, **fields)
        computed = signals and layout == "cascade"
        return _write(tmp_path / (name or layout), tiny_network, layout, made, temperatures, signals=computed)

    return write


@pytest.fixture(scope="session")
def certified_once(tmp_path_factory: pytest.TempPathFactory, tiny_network: TinyNetwork) -> Path:
    """A tiny cascade certified for a drop of 5 % and of 2 %, with samples that its weights never saw."""
    folder = tmp_path_factory.mktemp("certified")
    _write(folder / "cascade", tiny_network, "cascade", None, (1.0, 1.0, 1.0), signals=True)
    wish = recipe.Calibrate(max_drop=0.05, confidence=0.9, extra_drops=(0.02,))
    calibrate(folder / "cascade", folder / "certified", samples=tiny_network.samples(4000), settings=wish)
    return folder / "certified"


@pytest.fixture
def certified_artifact(certified_once: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    return Path(shutil.copytree(certified_once, tmp_path / "certified"))


def _write(
    out: Path,
    network: TinyNetwork,
    layout: str,
    policy: Policy | None,
    temperatures: Sequence[float],
    *,
    signals: bool,
    idle: int = 0,
) -> Path:
    names = EXITS[-1:] if layout == "single" else EXITS
    graphs, computed = _graphs(network, layout), dict[str, ExitSignals]()
    for graph in graphs[1:]:
        _idle(graph, idle)
    if signals:
        for at, name in enumerate(names[:-1]):
            graphs[at], computed[name] = add_signals(graphs[at], name, f"{name}_outputs", TASK, batch="batch")
    with staged(out) as folder:
        for index, graph in enumerate(graphs):
            onnx.save(graph, folder / f"segment-{index}.onnx")
        samples = network.samples(16, seed=1)
        images = samples.examples(np.arange(16))
        logits = network.exits(normalise(images, PREPROCESS))[-len(names) :]
        Golden(images, samples.targets, logits).save(folder / "golden.npz", image_modality((1, 4, 4)))
        described = {
            **meaning(CLASSES, PREPROCESS, (1, 4, 4)),
            "layout": layout,
            "segments": tuple(_segment(folder, index, graph) for index, graph in enumerate(graphs)),
            "exits": tuple(
                Exit(
                    name=name,
                    segment=min(at, len(graphs) - 1),
                    outputs=f"{name}_outputs",
                    signals=computed.get(name),
                    temperature=temperature,
                )
                for at, (name, temperature) in enumerate(zip(names, temperatures, strict=False))
            ),
            "parity": tuple(
                ParityRecord(exit=name, samples=16, batches=(1, 16), max_abs_diff=1e-6, tolerance=1e-4, flips=0)
                for name in names
            ),
            "provenance": _provenance(),
            "policy": policy,
        }
        finish(folder, **described, golden=entry(folder, "golden.npz"))
    return out


def _graphs(network: TinyNetwork, layout: str) -> list[onnx.ModelProto]:
    flat = helper.make_node("Flatten", ["input"], ["x"])
    first = [
        flat,
        helper.make_node("MatMul", ["x", "W0"], ["a"]),
        helper.make_node("Tanh", ["a"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "H1"], ["exit1_outputs"]),
    ]
    second = [
        helper.make_node("MatMul", ["hidden", "W1"], ["b"]),
        helper.make_node("MatMul", ["x", "V1"], ["c"]),
        helper.make_node("Add", ["b", "c"], ["d"]),
        helper.make_node("Tanh", ["d"], ["deep"]),
        helper.make_node("MatMul", ["deep", "H2"], ["exit2_outputs"]),
    ]
    third = [
        helper.make_node("MatMul", ["deep", "W2"], ["e"]),
        helper.make_node("MatMul", ["x", "V2"], ["f"]),
        helper.make_node("Add", ["e", "f"], ["final_outputs"]),
    ]
    if layout == "cascade":
        return [
            _model(network, first, ["input"], ["hidden", "exit1_outputs"]),
            _model(network, [flat, *second], ["hidden", "input"], ["exit2_outputs", "deep"]),
            _model(network, [flat, *third], ["input", "deep"], ["final_outputs"]),
        ]
    outputs = [f"{name}_outputs" for name in (EXITS[-1:] if layout == "single" else EXITS)]
    heads = () if layout == "all" else ("exit1_outputs", "exit2_outputs")
    nodes = [node for node in (*first, *second, *third) if node.output[0] not in heads]
    return [_model(network, nodes, ["input"], outputs)]


def _model(network: TinyNetwork, nodes: list[onnx.NodeProto], inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "segment",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, BORDERS[name]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, BORDERS[name]) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in network.weights.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _idle(graph: onnx.ModelProto, products: int) -> None:
    """Add so many products of 65,536 multiply-accumulates for an image to the logits, each of which is zero."""
    nodes = []
    for k in range(products):
        before = "x" if k == 0 else f"idle-{k - 1}"
        nodes.append(helper.make_node("MatMul", [before, "wide" if k == 0 else "square"], [f"idle-{k}"]))
    if products:
        logits = next(node for node in graph.graph.node if node.output[0].endswith("_outputs"))
        logits_name, logits.output[0] = logits.output[0], "busy"
        nodes.append(helper.make_node("MatMul", [f"idle-{products - 1}", "narrow"], ["nothing"]))
        nodes.append(helper.make_node("Add", ["busy", "nothing"], [logits_name]))
        shapes = {"wide": (16, 256), "square": (256, 256), "narrow": (256, 3)}
        weights = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in shapes.items()]
        graph.graph.initializer.extend(weights)
        graph.graph.node.extend(nodes)
        onnx.checker.check_model(graph, full_check=True)


def _segment(folder: Path, index: int, model: onnx.ModelProto) -> Segment:
    weights = [weight for weight in model.graph.initializer if weight.data_type == TensorProto.FLOAT]
    macs = sum(int(np.prod(weight.dims)) for weight in weights)
    inputs, outputs = tensor_specs(model.graph.input), tensor_specs(model.graph.output)
    file = entry(folder, f"segment-{index}.onnx")
    return Segment(**file.model_dump(), inputs=inputs, outputs=outputs, macs=macs, parameters=macs)


def _policy(thresholds: Sequence[float], kind: str = "max_prob", **fields: Any) -> Policy:
    exits = len(thresholds) + 1
    return Policy(
        **fields,
        name=kind,
        thresholds=tuple(thresholds),
        max_drop=0.01,
        samples=100,
        metric=0.9,
        reference_metric=0.9,
        shares=(0.5, 0.3, 0.2) if exits == 3 else (1 / exits,) * exits,
        stage_ms=(1.0,) * exits,
    )


def _provenance() -> Provenance:
    return Provenance(
        created="2026-01-02T03:04:05+00:00",
        recipe={"name": "tiny", "model": {"name": "tiny"}, "method": {"name": "by_hand"}},
        recipe_sha256="1" * 64,
        weights_sha256="2" * 64,
        data_fingerprint="3" * 64,
    )


@pytest.fixture(scope="session")
def one_graph_once(tmp_path_factory: pytest.TempPathFactory, tiny_network: TinyNetwork) -> Callable[[str], Path]:
    """Artifacts with one graph that exits by itself, by its kind; ``cascade`` is what they were made of.

    The segments after the first one work in vain for a while, so that leaving early is faster on any machine.
    """
    folder = tmp_path_factory.mktemp("one-graph")
    cascade = _write(
        folder / "cascade", tiny_network, "cascade", _policy((0.7, 0.6)), (1.0, 1.0, 1.0), signals=True, idle=60
    )

    @cache
    def made(kind: str) -> Path:
        if kind != "cascade":
            export_one_graph(cascade, folder / kind, kind=kind, host=Host("a processor", None))  # type: ignore[arg-type]
        return folder / kind

    return made


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window, for tests with the mark ``browser``."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    assert path, "there is no chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=_QUIET)
        yield opened
        opened.close()
