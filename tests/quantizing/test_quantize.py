"""From an artifact to an artifact: what is kept, what is dropped, what is refused, and that the figures are true."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scores import ece
from signals import signals_of

import sdcompress
from sdcompress import registry
from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.write import entry, seal
from sdcompress.calibration.calibrate import calibrate
from sdcompress.data.samples import ArraySamples
from sdcompress.errors import (
    CheckpointError,
    DataError,
    OutputExistsError,
    ParityError,
    SetupError,
    UnknownNameError,
    UsageError,
    VerificationError,
)
from sdcompress.evaluation.exit_outcomes import exit_outputs
from sdcompress.exporting.one_graph import Host, export_one_graph
from sdcompress.quantizing import quantize as module
from sdcompress.quantizing.precisions._base import FloatSegment
from sdcompress.quantizing.precisions.bf16 import bf16
from sdcompress.quantizing.precisions.fp16 import fp16
from sdcompress.quantizing.precisions.int8 import int8
from sdcompress.quantizing.quantize import ROOM, quantize
from sdcompress.quantizing.segments import without_signals
from sdcompress.runtime.backends.onnxruntime import ORT_ERRORS
from sdcompress.runtime.open import open_engine
from sdcompress.schema.change import Quantized
from sdcompress.schema.graphs import Precision
from sdcompress.schema.recipe import Calibrate
from sdcompress.tasks._probabilities import softmax
from sdcompress.verification.sessions import SegmentSessions
from sdcompress.verification.verify import verify

LAYOUTS = ("single", "cascade", "all")


@pytest.fixture
def run(tiny_network: Any, tmp_path: Path) -> Callable[..., Quantized]:
    """``run(artifact, precision)`` writes ``tmp_path / "out"``; keywords go to ``quantize``."""

    def call(artifact: Path, precision: str = "int8", **given: Any) -> Quantized:
        data = {"training": tiny_network.samples(300, seed=8), "validation": tiny_network.samples(400, seed=9)}
        return quantize(artifact, tmp_path / "out", **{"precision": precision, "max_drop": 0.2, **data, **given})

    return call


def test_every_file_is_a_precision_that_a_manifest_may_name() -> None:
    assert {*registry.names(ROOM), "fp32"} == set(get_args(Precision))


@pytest.mark.parametrize("precision", ["int8", "fp16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_artifact_of_each_layout(
    run: Callable, tiny_artifact: Callable, tiny_network: Any, tmp_path: Path, *, layout: str, precision: str
) -> None:
    source = tiny_artifact(layout)
    result = run(source, precision)
    old, new = (open_artifact(folder).manifest for folder in (source, tmp_path / "out"))
    assert (result.digest, result.precision, result.samples) == (new.digest, precision, 400)
    assert result.calibration_samples == (300 if precision == "int8" else 0)
    assert {segment.precision for segment in new.segments} == {precision}
    assert new.provenance.parent == old.digest
    assert new.provenance.versions["onnxruntime"] == onnxruntime.__version__
    assert new.provenance.versions.items() >= {"onnx": onnx.__version__, "sdcompress": version("sdcompress")}.items()
    for before, after in zip(old.segments, new.segments, strict=True):
        assert (after.inputs, after.outputs, after.file) == (before.inputs, before.outputs, before.file)
        assert (after.macs, after.parameters) == (before.macs, before.parameters)
    assert (new.golden, new.outputs, new.layout) == (old.golden, old.outputs, old.layout)
    assert (result.bytes_before, result.bytes_after) == tuple(sum(s.bytes for s in m.segments) for m in (old, new))
    samples = tiny_network.samples(400, seed=9)
    logits = [exit_outputs(open_engine(folder, threads=1), samples) for folder in (source, tmp_path / "out")]
    assert not np.array_equal(*logits)
    for row, (exit_, change) in enumerate(zip(new.exits, result.exits, strict=True)):
        before, after = logits[0][row], logits[1][row]
        right = [float((at_exit.argmax(axis=1) == samples.targets).mean()) for at_exit in (before, after)]
        assert [change.metric_before, change.metric_after] == right
        assert exit_.metrics["accuracy"] == change.metric_after
        assert exit_.metrics["ece"] == pytest.approx(ece(softmax(after), samples.targets), abs=1e-9)
        assert change.decision_changes == (before.argmax(1) != after.argmax(1)).sum()
        assert change.max_abs_diff == pytest.approx(np.abs(before - after).max(), rel=1e-6)
    assert verify(tmp_path / "out").layout == layout
    assert f"computed in {precision}" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_signals_are_those_of_the_logits_to_the_last_bit_of_float32(
    run: Callable, tiny_artifact: Callable, tiny_network: Any, tmp_path: Path, precision: str
) -> None:
    """The nodes behind the logits are the parent's own, so they compute what the parent's would of these logits."""
    run(tiny_artifact(), precision)
    new, old = (onnx.load(folder / "segment-0.onnx") for folder in (tmp_path / "out", tmp_path / "cascade"))
    tails = []
    for model in (new, old):
        start = next(k for k, node in enumerate(model.graph.node) if node.op_type == "LogSoftmax")
        tails.append(list(model.graph.node)[start:])
    assert tails[0] == tails[1]
    engine = open_engine(tmp_path / "out", threads=1)
    inputs = engine.preprocess(tiny_network.samples(64, seed=3).examples(np.arange(64)))
    for actual, logits in zip(engine.signals(inputs), engine.exits(inputs), strict=True):
        np.testing.assert_allclose(actual.stacked(), signals_of(logits).stacked(), atol=1e-6)


def test_the_graphs_say_what_their_tensors_mean(run: Callable, tiny_artifact: Callable, tmp_path: Path) -> None:
    run(tiny_artifact(), "int8")
    for index, exit_ in enumerate(("exit1", "exit2", "final")):
        metadata = {
            prop.key: prop.value for prop in onnx.load(tmp_path / "out" / f"segment-{index}.onnx").metadata_props
        }
        assert json.loads(metadata["sdcompress.exits"]) == [exit_]
        assert json.loads(metadata["sdcompress.outputs"]) == ["square", "disc", "star"]


def test_the_same_bytes_again(run: Callable, tiny_artifact: Callable, tmp_path: Path) -> None:
    source = tiny_artifact()
    run(source)
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("segment-*")}
    run(source, overwrite=True)
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "out").glob("segment-*")}
    assert len(first) == 3


@pytest.fixture(scope="session")
def int8_cascade(tmp_path_factory: pytest.TempPathFactory, certified_once: Path, tiny_network: Any) -> Path:
    out = tmp_path_factory.mktemp("int8") / "cascade"
    result = quantize(
        certified_once,
        out,
        precision="int8",
        training=tiny_network.samples(300, seed=8),
        validation=tiny_network.samples(400, seed=9),
        max_drop=0.2,
    )
    # a temperature is kept where it saves time, which is the machine's to say
    assert set(result.dropped) - {"temperatures"} == {"policy", "certificate"}
    return out


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, 63), min_size=1, max_size=40))
def test_a_row_never_depends_on_the_rows_beside_it(rows: list[int], int8_cascade: Path, tiny_network: Any) -> None:
    engine = open_engine(int8_cascade, threads=1)
    inputs = engine.preprocess(tiny_network.samples(64, seed=3).examples(np.arange(64)))
    np.testing.assert_allclose(engine.exits(inputs[rows]), engine.exits(inputs)[:, rows], atol=1e-5)


def test_policy_and_certificate_are_dropped_and_can_be_made_anew(
    int8_cascade: Path, tiny_network: Any, tmp_path: Path
) -> None:
    manifest = open_artifact(int8_cascade).manifest
    assert (manifest.policy, manifest.certificate, manifest.one_graph, manifest.engines) == (None, None, None, ())
    assert {exit_.temperature for exit_ in manifest.exits} == {1.0}
    assert "certificate.npz" not in {path.name for path in int8_cascade.iterdir()}
    calibrated = calibrate(
        int8_cascade,
        tmp_path / "again",
        samples=tiny_network.samples(4000),
        settings=Calibrate(max_drop=0.05, confidence=0.9),
    )
    assert calibrated.certificate is not None
    assert calibrated.certificate.precision == ("int8",) * 3
    assert verify(tmp_path / "again").certificate is not None


def test_temperatures_are_dropped_with_what_they_were_fitted_for(
    run: Callable, tiny_artifact: Callable, tmp_path: Path
) -> None:
    result = run(tiny_artifact(temperatures=(1.5, 0.8, 1.0)))
    assert result.dropped == ("temperatures",)
    assert [exit_.temperature for exit_ in open_artifact(tmp_path / "out").manifest.exits] == [1.0, 1.0, 1.0]


def test_a_policy_that_cannot_run_here_is_dropped_and_its_artifact_timed(
    run: Callable, tiny_artifact: Callable
) -> None:
    result = run(tiny_artifact(policy=(0.9, 0.8), kind="elsewhere"), timed=True)
    assert result.dropped == ("policy",)
    assert result.speed is not None
    assert 0.05 < result.speed.speedup < 20


def test_another_files_weights_are_found_in_spite_of_the_wider_tolerance(
    run: Callable, tiny_artifact: Callable, tmp_path: Path
) -> None:
    """One output channel of the last layer with its sign turned, and a manifest that hides it."""
    run(tiny_artifact())
    out = tmp_path / "out"
    manifest = open_artifact(out).manifest
    for record in manifest.parity:
        assert record.max_abs_diff < record.tolerance < 1
    model = onnx.load(out / "segment-2.onnx")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "W2_quantized")
    codes = onnx.numpy_helper.to_array(weight).copy()
    codes[:, 0] *= -1
    weight.CopyFrom(onnx.numpy_helper.from_array(codes, weight.name))
    onnx.save(model, out / "segment-2.onnx")
    last = manifest.segments[-1].model_copy(update=entry(out, "segment-2.onnx").model_dump())
    seal(out, **{**dict(manifest), "segments": (*manifest.segments[:-1], last)})
    with pytest.raises(ParityError, match="The exit 'final'"):
        verify(out)


def test_the_distance_to_the_checkpoint_is_the_measured_one(
    run: Callable, tiny_artifact: Callable, tmp_path: Path
) -> None:
    source = tiny_artifact()
    run(source)
    opened = open_artifact(tmp_path / "out")
    golden, engine = opened.golden(), open_engine(tmp_path / "out", threads=1)
    inputs = engine.preprocess(golden.examples)
    files = [(tmp_path / "out" / segment.file).read_bytes() for segment in opened.manifest.segments]
    names = [exit_.outputs for exit_ in opened.manifest.exits]
    plainly = SegmentSessions(files, outputs=names, optimise=False)(inputs)
    logits = engine.exits(inputs)
    parents = {record.exit: record.tolerance for record in open_artifact(source).manifest.parity}
    for row, record in enumerate(opened.manifest.parity):
        ways = [float(np.abs(way[row] - golden.outputs[row]).max()) for way in (logits, plainly)]
        assert record.max_abs_diff == pytest.approx(max(ways), rel=1e-6)
        assert record.tolerance == pytest.approx(2 * record.max_abs_diff + parents[record.exit])
        assert (record.samples, record.batches) == (16, (16,))
        assert record.flips == (logits[row].argmax(1) != golden.outputs[row].argmax(1)).sum()


def test_a_loss_that_is_too_large_leaves_the_figures_and_no_artifact(
    run: Callable, tiny_artifact: Callable, tiny_network: Any, tmp_path: Path
) -> None:
    """Labels that are what float32 answers: whatever changes is lost."""
    source = tiny_artifact()
    images = tiny_network.samples(4000, seed=9).examples(np.arange(4000))
    truth = open_engine(source, threads=1)
    labels = truth.exits(truth.preprocess(images))[-1].argmax(1)
    validation = ArraySamples(images, labels)
    with pytest.raises(VerificationError, match=r"final: 100\.00% before, 9\d\.\d\d% after") as caught:
        run(source, validation=validation, max_drop=0.0)
    assert not (tmp_path / "out").exists()
    failed = json.loads((tmp_path / "out.failed" / "parity.json").read_text(encoding="utf-8"))
    final = next(each for each in failed if each["exit"] == "final")
    assert final["decision_changes"] > 0
    assert (final["max_drop"], final["metric_before"]) == (0.0, 1.0)
    assert final["metric_after"] == pytest.approx(1 - final["decision_changes"] / 4000)
    assert "lost" in final["problem"]
    assert "parity.json" in caught.value.next_step
    assert "Each try overfits these samples a little more" in caught.value.next_step
    with pytest.raises(sdcompress.errors.ArtifactError):  # type: ignore[attr-defined]
        open_artifact(tmp_path / "out.failed")
    lost = final["decision_changes"] / 4000
    result = run(source, validation=validation, max_drop=lost + 0.1)  # and with more allowed it is written
    assert next(e.decision_changes for e in result.exits if e.name == "final") == final["decision_changes"]


def test_exactly_the_allowed_loss_is_allowed(
    run: Callable, tiny_artifact: Callable, tiny_network: Any, tmp_path: Path
) -> None:
    source = tiny_artifact("single")
    images = tiny_network.samples(1000, seed=9).examples(np.arange(1000))
    engine = open_engine(source, threads=1)
    validation = ArraySamples(images, engine.exits(engine.preprocess(images))[-1].argmax(1))
    (change,) = run(source, validation=validation, max_drop=0.5).exits
    assert change.decision_changes > 0
    run(source, validation=validation, max_drop=change.decision_changes / 1000, overwrite=True)
    with pytest.raises(VerificationError):
        run(source, validation=validation, max_drop=(change.decision_changes - 0.5) / 1000, overwrite=True)


def test_bf16_is_written_where_it_runs_and_refused_where_not(
    run: Callable, tiny_artifact: Callable, tmp_path: Path, segment_of: Callable
) -> None:
    source = tiny_artifact("single")
    graph = bf16(segment_of(without_signals(onnx.load(source / "segment-0.onnx"), []), [], ("final_outputs",)))
    try:
        SegmentSessions([graph.SerializeToString()], outputs=["final_outputs"])
    except ORT_ERRORS:
        with pytest.raises(SetupError, match="cannot run bf16 here") as caught:
            run(source, "bf16")
        assert "--precision fp16" in caught.value.next_step
        assert not (tmp_path / "out").exists()
    else:
        assert run(source, "bf16").precision == "bf16"


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"precision": "int 8"}, UnknownNameError, "Did you mean 'int8'"),
        ({"precision": "fp32"}, UnknownNameError, "bf16, fp16, fp8, int8"),
        ({"max_drop": 1.0}, UsageError, r"max_drop is 1\.0"),
        ({"max_drop": -0.1}, UsageError, r"0 to below 1"),
        ({"max_drop": float("nan")}, UsageError, "max_drop is nan"),
        ({"samples": 63}, UsageError, "at least 64"),
        ({"samples": 301}, DataError, "There are 300 training samples"),
        ({"samples": 64, "precision": "fp16"}, UsageError, "fp16 takes no ranges from samples"),
        ({"precision": "fp8"}, UsageError, "can be computed in fp8: all of its 7 "),
        ({"samples": 64, "precision": "fp8"}, UsageError, "can be computed in fp8"),
    ],
)
def test_nonsense_is_refused_and_nothing_is_written(
    run: Callable, tiny_artifact: Callable, tmp_path: Path, *, given: dict[str, Any], error: type, said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        run(tiny_artifact(), **given)
    assert caught.value.next_step
    assert not (tmp_path / "out").exists()


def test_too_few_training_images_are_refused(run: Callable, tiny_artifact: Callable, tiny_network: Any) -> None:
    few = tiny_network.samples(40)
    with pytest.raises(DataError, match="There are 40 training samples"):
        run(tiny_artifact(), training=few)
    assert run(tiny_artifact(name="again"), "fp16", training=few).calibration_samples == 0  # which needs none


def test_twice_is_once_too_often(run: Callable, tiny_artifact: Callable, tmp_path: Path) -> None:
    source = tiny_artifact()
    run(source)
    with pytest.raises(UsageError, match="is in int8 already") as caught:
        run(tmp_path / "out", "fp16")
    assert open_artifact(source).manifest.digest in caught.value.next_step
    with pytest.raises(OutputExistsError):
        run(source)


@pytest.fixture
def single(tiny_artifact: Callable, graph: Callable) -> Callable[..., Path]:
    """``single(nodes, weights)``: an artifact of this one graph from "input" to "final_outputs"."""

    def make(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray]) -> Path:
        source = tiny_artifact("single")
        manifest = open_artifact(source).manifest
        shapes = {"input": ["batch", 1, 4, 4]}, {"final_outputs": ["batch", 3]}
        onnx.save(graph(nodes, *shapes, weights), source / "segment-0.onnx")
        segment = manifest.segments[0].model_copy(update=entry(source, "segment-0.onnx").model_dump())
        seal(source, **{**dict(manifest), "segments": (segment,)})
        return source

    return make


def test_a_graph_in_which_nothing_can_be_rounded(run: Callable, single: Callable) -> None:
    """The one product there is makes the logits, which fp16 leaves in float32."""
    nodes = [
        onnx.helper.make_node("Flatten", ["input"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "w"], ["final_outputs"]),
    ]
    source = single(nodes, {"w": np.ones((16, 3), np.float32)})
    with pytest.raises(UsageError, match="all of its 1 convolutions and products"):
        run(source, "fp16")


@pytest.mark.parametrize("size", [1e2, 1e5])
def test_what_float16_cannot_hold_is_refused_although_it_runs_here(
    run: Callable, single: Callable, tmp_path: Path, size: float
) -> None:
    """Numbers of that size between two products: onnxruntime takes the casts between them away, a GPU does not."""
    rng = np.random.default_rng(0)
    weights = {
        "up": (size * rng.normal(size=(16, 6))).astype(np.float32).clip(-6e4, 6e4),
        "down": (rng.normal(size=(6, 3)) / size).astype(np.float32),
    }
    nodes = [
        onnx.helper.make_node("Flatten", ["input"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "up"], ["large"]),
        onnx.helper.make_node("MatMul", ["large", "down"], ["final_outputs"]),
    ]
    source = single(nodes, weights)
    if size < 1e3:
        assert run(source, "fp16").low_precision_ops == 1
        return
    with pytest.raises(VerificationError, match=r"'large' reaches \d\S* on 400 validation samples") as caught:
        run(source, "fp16")
    assert "65504" in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert run(source, "int8").low_precision_ops == 2  # whose scales know no largest number


@pytest.mark.parametrize(("size", "fits"), [(32_700, True), (33_000, False)])
def test_the_largest_number_of_float16_is_65504(run: Callable, single: Callable, size: float, fits: bool) -> None:
    """Inputs of -2 to 2 times so much."""
    down = np.random.default_rng(0).normal(size=(6, 3)) / size
    weights = {"up": np.eye(16, 6, dtype=np.float32) * np.float32(size), "down": down.astype(np.float32)}
    nodes = [
        onnx.helper.make_node("Flatten", ["input"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "up"], ["large"]),
        onnx.helper.make_node("MatMul", ["large", "down"], ["final_outputs"]),
    ]
    source = single(nodes, weights)
    if fits:
        assert run(source, "fp16").low_precision_ops == 1
    else:
        with pytest.raises(VerificationError, match=r"'large' reaches 6\.6e\+04 on 400"):
            run(source, "fp16")


@pytest.mark.parametrize("precision", ["int8", "uint8", "fp16"])
@pytest.mark.parametrize("value", [-np.inf, -1e30])
def test_padding_before_a_maximum_costs_no_precision_anything(
    run: Callable, single: Callable, precision: str, value: float
) -> None:
    """Max pooling as timm's "same" networks have it: the padding is never the answer."""
    rng = np.random.default_rng(0)
    nodes = [
        onnx.helper.make_node("Conv", ["input", "w"], ["c"]),
        onnx.helper.make_node("Pad", ["c", "pads", "value"], ["p"]),
        onnx.helper.make_node("MaxPool", ["p"], ["m"], kernel_shape=[3, 3], strides=[2, 2]),
        onnx.helper.make_node("Flatten", ["m"], ["f"]),
        onnx.helper.make_node("MatMul", ["f", "v"], ["final_outputs"]),
    ]
    weights = {
        "w": rng.normal(size=(4, 1, 1, 1)).astype(np.float32),
        "pads": np.array([0, 0, 0, 0, 0, 0, 1, 1]),
        "value": np.array(value, np.float32),
        "v": rng.normal(size=(16, 3)).astype(np.float32),
    }
    result = run(single(nodes, weights), precision)
    (change,) = result.exits
    assert change.decision_changes < 8  # of 400


def test_advice_after_a_refusal_is_another_precision_once(run: Callable, single: Callable, tiny_network: Any) -> None:
    """int8 says fp16 and float32; fp16, which takes no ranges, says float32."""
    source = single(*wide())
    images = tiny_network.samples(4000, seed=9).examples(np.arange(4000))
    engine = open_engine(source, threads=1)
    labels = engine.exits(engine.preprocess(images))[-1].argmax(1)
    for precision, said in (("int8", True), ("fp8", True), ("fp16", False)):
        with pytest.raises(VerificationError, match="loses too much") as caught:
            run(source, precision, validation=ArraySamples(images, labels), max_drop=0.0)
        assert ("--precision fp16" in caught.value.next_step) is said
        assert ("--calibration-samples" in caught.value.next_step) is said
        assert "keep float32" in caught.value.next_step


def ratio(*, epsilon: float) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Images divided by their span and an epsilon."""
    rng = np.random.default_rng(0)
    nodes = [
        onnx.helper.make_node("Flatten", ["input"], ["flat"]),
        onnx.helper.make_node("ReduceMax", ["flat", "axes"], ["high"]),
        onnx.helper.make_node("ReduceMin", ["flat", "axes"], ["low"]),
        onnx.helper.make_node("Sub", ["high", "low"], ["span"]),
        onnx.helper.make_node("Add", ["span", "epsilon"], ["sum"]),
        onnx.helper.make_node("Sub", ["flat", "low"], ["above"]),
        onnx.helper.make_node("Div", ["above", "sum"], ["share"], name="the-ratio"),
        onnx.helper.make_node("MatMul", ["share", "up"], ["hidden"]),
        onnx.helper.make_node("MatMul", ["hidden", "down"], ["final_outputs"]),
    ]
    weights: dict[str, np.ndarray] = {
        "axes": np.array([1]),
        "epsilon": np.array(epsilon, np.float32),
        "up": rng.normal(size=(16, 6)).astype(np.float32),
        "down": rng.normal(size=(6, 3)).astype(np.float32),
    }
    return nodes, weights


@pytest.mark.parametrize("precision", ["int8", "uint8", "fp16"])
def test_a_blank_image_keeps_its_numbers(run: Callable, single: Callable, tmp_path: Path, precision: str) -> None:
    run(single(*ratio(epsilon=1e-8)), precision)
    engine = open_engine(tmp_path / "out", threads=1)
    blank = engine.preprocess(np.full((2, 4, 4, 1), 7, np.uint8))
    np.testing.assert_array_equal(engine.exits(blank), 0)


def test_a_precision_that_loses_an_epsilon_is_refused_and_the_node_is_named(
    run: Callable, single: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loses(segment: Any) -> onnx.ModelProto:
        quantised = fp16(segment)
        for tensor in quantised.graph.initializer:
            if tensor.name == "epsilon":
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.float32(0), tensor.name))
        return quantised

    monkeypatch.setattr(module, "precision_of", lambda _: loses)
    with pytest.raises(VerificationError, match="final are not finite for an example that is black") as caught:
        run(single(*ratio(epsilon=1e-8)), "fp16")
    assert "node 'the-ratio' (Div) of segment-0.onnx" in str(caught.value)
    assert "larger epsilon" in caught.value.next_step
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.failed" / "segment-0.onnx").exists()


def test_what_is_nan_in_float32_may_be_so(run: Callable, single: Callable) -> None:
    assert run(single(*ratio(epsilon=0.0)), "fp16").low_precision_ops == 1


def wide(size: float = 1.0) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Three products, of which only the one of 32 by 32 has a kernel in 8-bit floats; it gives numbers of that size."""
    rng = np.random.default_rng(0)
    shapes = {"up": (16, 32), "square": (32, 32), "down": (32, 3)}
    weights = {name: rng.normal(scale=0.3, size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights["square"] *= size
    weights["down"] /= size
    nodes = [
        onnx.helper.make_node("Flatten", ["input"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "up"], ["a"]),
        onnx.helper.make_node("Tanh", ["a"], ["h"]),
        onnx.helper.make_node("MatMul", ["h", "square"], ["large"]),
        onnx.helper.make_node("MatMul", ["large", "down"], ["final_outputs"]),
    ]
    return nodes, weights


def test_an_artifact_in_fp8_holds_8_bit_floats_beside_float16_and_float32(
    run: Callable, single: Callable, tmp_path: Path
) -> None:
    source = single(*wide())
    result = run(source, "fp8", samples=200)
    assert (result.low_precision_ops, result.high_precision_ops, result.calibration_samples) == (1, 2, 200)
    new, old = open_artifact(tmp_path / "out").manifest, open_artifact(source).manifest
    (segment,) = new.segments
    assert (segment.precision, segment.parameters) == ("fp8", 16 * 32 + 32 * 32 + 32 * 3)
    assert (segment.inputs, segment.outputs) == (old.segments[0].inputs, old.segments[0].outputs)
    assert new.provenance.parent == old.digest
    (change,) = result.exits
    assert change.decision_changes > 0
    assert change.metric_after == new.exits[0].metrics["accuracy"]
    stored = {t.name: t.data_type for t in onnx.load(tmp_path / "out" / "segment-0.onnx").graph.initializer}
    types = onnx.TensorProto
    assert [stored[name] for name in ("up/fp16", "square/fp8", "down")] == [
        types.FLOAT16,
        types.FLOAT8E4M3FN,
        types.FLOAT,
    ]
    assert verify(tmp_path / "out").layout == "single"
    with pytest.raises(UsageError, match="is in fp8 already"):
        run(tmp_path / "out", "fp16")


def test_what_float16_cannot_hold_is_refused_in_fp8_too(run: Callable, single: Callable, tmp_path: Path) -> None:
    """The numbers between its products are float16; the weights' scale would know no largest number."""
    with pytest.raises(VerificationError, match=r"'large' reaches \d\S* on 400 validation samples"):
        run(single(*wide(1e5)), "fp8")
    assert not (tmp_path / "out").exists()


def test_golden_images_that_cannot_be_run_are_reported(
    run: Callable, tiny_artifact: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ORT_ERRORS[0]("no kernel")

    monkeypatch.setattr(module, "golden_records", fails)
    with pytest.raises(SetupError, match="cannot run int8 here: no kernel"):
        run(tiny_artifact())
    assert not (tmp_path / "out").exists()


def test_without_the_data_or_with_something_else_than_an_artifact(tiny_artifact: Callable, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not the one that was trained on"):
        sdcompress.quantize(tiny_artifact(), tmp_path / "out", "int8")
    with pytest.raises(CheckpointError):
        sdcompress.quantize(tmp_path / "nothing", tmp_path / "out", "int8")
    assert not (tmp_path / "out").exists()


def test_a_quantised_cascade_becomes_one_graph(
    run: Callable, one_graph_once: Callable[[str], Path], tmp_path: Path
) -> None:
    source = one_graph_once("cascade")
    result = run(source)
    assert result.dropped == ("policy",)
    made = open_artifact(tmp_path / "out").manifest
    seal(tmp_path / "out", **{**dict(made), "policy": open_artifact(source).manifest.policy})
    full = export_one_graph(tmp_path / "out", tmp_path / "graph", kind="graph", host=Host("a processor", None))
    assert full.one_graph is not None
    operators = [node.op_type for node in onnx.load(tmp_path / "graph" / "model.onnx").graph.node]
    assert "QuantizeLinear" in operators
    assert verify(tmp_path / "graph").one_graph == "graph"


def test_progress_goes_to_the_end_of_both_parts(
    run: Callable, tiny_artifact: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reading_twice(segment: FloatSegment) -> onnx.ModelProto:  # as where biases are corrected
        assert list(segment.feeds())
        return int8(segment)

    monkeypatch.setattr(module, "precision_of", lambda _: reading_twice)
    calls: list[tuple[int, int]] = []
    run(tiny_artifact(), progress=lambda done, total: calls.append((done, total)))
    calibration = [done for done, total in calls if total == 900]  # 300 images for each of 3 segments
    assert calibration == sorted(calibration)
    assert calibration[-1] == 900
    assert calls[-1] == (400, 400)


TORCHLESS = """
import sys
import numpy as np
from sdcompress.data.samples import ArraySamples
from sdcompress.quantizing.quantize import quantize
rng = np.random.default_rng(0)
data = ArraySamples(rng.integers(0, 256, (64, 4, 4, 1), np.uint8), rng.integers(0, 3, 64))
quantize(sys.argv[1], sys.argv[2], precision="int8", training=data, validation=data, max_drop=0.9)
print([name for name in ("torch", "timm", "torchvision", "onnxscript", "sympy") if name in sys.modules])
"""


def test_it_needs_no_torch(tiny_artifact: Callable, tmp_path: Path) -> None:
    command = [sys.executable, "-c", TORCHLESS, tiny_artifact(), tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
