"""quantize and what comes after it, as commands, on a trained network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from sdcompress.artifact.read import open_artifact
from sdcompress.cli.quantize import _show
from sdcompress.onnx_graph.tensorrt8 import unsupported_by_8_5
from sdcompress.quantizing.precisions._base import FloatSegment
from sdcompress.quantizing.precisions.fp16 import fp16
from sdcompress.schema.change import ExitChange, Quantized
from sdcompress.schema.report import BenchReport, Evaluation


@pytest.fixture(scope="module")
def int8(cli: Callable, made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quantize") / "int8"
    done = cli("quantize", made.cascade, "--precision", "int8", "--max-drop", "50%", "--out", out)
    assert done.code == 0, done.err
    assert "next: sdcompress calibrate" in done.out
    assert "other decisions" in done.out
    assert "MiB" in done.out
    assert "160 training samples" in done.out
    assert "ms in int8, " in done.out  # beside fp32; whether it is faster is the machine's to say
    assert "288/288" in done.err  # the validation images, where progress goes
    assert "288/288" not in done.out
    return out


@pytest.mark.parametrize("layout", ["single", "all", "cascade"])
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_json_is_what_was_written(cli: Callable, made, tmp_path: Path, layout: str, precision: str) -> None:
    source = made.cascade
    if layout != "cascade":
        source = tmp_path / "source"
        assert cli("export", made.train, "--layout", layout, "--out", source).code == 0
    out = tmp_path / "out"
    done = cli("quantize", source, "--precision", precision, "--max-drop", "0.5", "--out", out, "--json")
    told = Quantized.model_validate_json(done.out)
    manifest = open_artifact(out).manifest
    assert (told.digest, told.precision, told.max_drop) == (manifest.digest, precision, 0.5)
    assert told.speed is not None
    assert (told.speed.verdict == "slower") == (told.speed.high < 1)
    assert told.bytes_after < 0.7 * told.bytes_before
    assert told.high_precision_ops == (0 if precision == "int8" else len(manifest.exits))
    assert cli("verify", out).code == 0


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_an_older_opset_stays_what_it_is(cli: Callable, made, tmp_path: Path, precision: str) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    assert cli("export", made.train, "--layout", "cascade", "--opset", "16", "--out", source).code == 0
    done = cli("quantize", source, "--precision", precision, "--max-drop", "0.5", "--out", out)
    assert done.code == 0, done.err
    for segment in open_artifact(out).manifest.segments:
        model = onnx.load(out / segment.file)
        assert (model.ir_version, [opset.version for opset in model.opset_import]) == (8, [16])
        assert unsupported_by_8_5({segment.file: model}) == ""
        assert_rounding_is_as_tensorrt_8_5_takes_it(model)
    assert cli("verify", out).code == 0
    for newer in ("bf16", "fp8"):
        done = cli("quantize", source, "--precision", newer, "--out", tmp_path / newer)
        assert (done.code, "exported with opset 16" in done.err) == (2, True)


def assert_rounding_is_as_tensorrt_8_5_takes_it(model: onnx.ModelProto) -> None:
    """As its parser asks (QuantDequantLinearHelper), and its builder: int8 constants stand before DequantizeLinear."""
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    rounding = [node for node in model.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    beside = {name for node in rounding for name in node.input[1:]}
    for node in rounding:
        _, scale, zero = node.input
        assert stored[scale].dtype == np.float32
        assert (stored[scale] > 0).all()
        assert (stored[zero].dtype, stored[zero].size) == (np.int8, stored[scale].size)
        assert not stored[zero].any()
    codes = {name for name, value in stored.items() if value.dtype == np.int8} - beside
    assert {node.op_type for node in model.graph.node if codes & set(node.input)} <= {"DequantizeLinear"}


def test_fp8_raises_the_opset_and_signals_stay(cli: Callable, made, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = cli("quantize", made.cascade, "--precision", "fp8", "--max-drop", "0.5", "--out", out)
    assert done.code == 0, done.err
    assert "convolutions and products in fp8" in done.out
    assert "in fp16 or fp32" in done.out
    assert "ranges from 160 training samples" in done.out
    manifest = open_artifact(out).manifest
    for segment in manifest.segments:
        model = onnx.load(out / segment.file)
        assert (model.ir_version, [opset.version for opset in model.opset_import]) == (10, [19])
    assert all(exit_.signals for exit_ in manifest.exits[:-1])
    assert cli("verify", out).code == 0
    assert cli("calibrate", out, "--max-drop", "20%", "--out", tmp_path / "early").code == 0


def test_all_that_is_done_with_an_artifact(cli: Callable, int8: Path, tmp_path: Path) -> None:
    assert ": cascade, int8, classification, 10 outputs" in cli("inspect", int8).out
    told = Evaluation.model_validate_json(cli("evaluate", int8, "--split", "validation", "--json").out)
    assert [e.metric for e in told.exits[:-1]] == [e.metrics["accuracy"] for e in open_artifact(int8).manifest.exits]
    quick = ["--samples", "golden", "--scenario", "single-stream", "--duration", "100ms", "--warmup", "1ms"]
    assert BenchReport.model_validate_json(cli("bench", int8, *quick, "--rounds", "5", "--json").out).records
    early = tmp_path / "early"
    done = cli("calibrate", int8, "--max-drop", "20%", "--confidence", "90%", "--out", early)
    assert done.code == 0, done.err
    certificate = open_artifact(early).manifest.certificate
    assert certificate is not None
    assert certificate.precision == ("int8",) * 3
    assert cli("verify", early).code == 0
    assert cli("explain", early, "--out", tmp_path / "explained").code == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--precision", "int4"], 2, "Did you mean 'int8'"),
        (["--precision", "int8", "--max-drop", "1"], 2, "--max-drop is '1'"),
        (["--precision", "int8", "--max-drop", "lots"], 2, "e.g. --max-drop 1%"),
        (["--precision", "int8", "--calibration-samples", "5"], 2, "at least 64"),
        (["--precision", "int8", "--calibration-samples", "9999"], 2, "160 training samples"),
        (["--precision", "bf16"], 3, "cannot run bf16 here"),
    ],
)
def test_each_refusal_has_its_code_and_its_next_step(
    cli: Callable, made, tmp_path: Path, *, options: list[str], code: int, said: str
) -> None:
    done = cli("quantize", made.cascade, "--out", tmp_path / "out", *options)
    assert (done.code, said in done.err) == (code, True), done.err
    assert "next:" in done.err
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_and_a_second_time_are_refused(cli: Callable, made, int8: Path, tmp_path: Path) -> None:
    done = cli("quantize", made.train, "--precision", "int8", "--out", tmp_path / "out")
    assert (done.code, "is a checkpoint" in done.err, "sdcompress export" in done.err) == (2, True, True)
    done = cli("quantize", int8, "--precision", "fp16", "--out", tmp_path / "out")
    assert (done.code, "is in int8 already" in done.err) == (2, True)
    done = cli("quantize", made.cascade, "--precision", "int8", "--out", int8)
    assert (done.code, "--overwrite" in done.err) == (2, True)


def test_a_loss_that_is_not_allowed_is_exit_code_4(
    cli: Callable, made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdcompress.quantizing import quantize

    def forgetful(segment: FloatSegment) -> onnx.ModelProto:
        """A precision in which every weight is the same."""
        model = fp16(segment)
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT16:
                ones = np.ones(tuple(tensor.dims), np.float16)
                tensor.CopyFrom(onnx.numpy_helper.from_array(ones, tensor.name))
        return model

    monkeypatch.setattr(quantize, "precision_of", lambda _: forgetful)
    done = cli("quantize", made.cascade, "--precision", "fp16", "--out", tmp_path / "out")
    assert done.code == 4, done.err
    assert "an exit loses too much on 288 validation samples" in done.err
    assert "at most 1.00%" in done.err
    assert (tmp_path / "out.failed" / "parity.json").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", ["all", "cascade"])
def test_what_can_be_calibrated_is_calibrated_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], layout: str
) -> None:
    change = ExitChange(
        name="exit1",
        metric_before=0.9,
        metric_after=0.9,
        decision_changes=0,
        changed_share=0.0,
        change_unit="samples",
        max_abs_diff=0.0,
    )
    result = Quantized(
        source="fp32",
        artifact="my int8",
        digest="a" * 64,
        precision="int8",
        max_drop=0.01,
        samples=9,
        calibration_samples=9,
        exits=(change, change),
        bytes_before=4,
        bytes_after=1,
        low_precision_ops=1,
        high_precision_ops=0,
        dropped=(),
    )
    monkeypatch.setattr("sdcompress.inspect", lambda _: SimpleNamespace(layout=layout), raising=False)
    _show(result, Path("photos"))
    command = "next: sdcompress calibrate 'my int8' --out FOLDER --data-dir photos"
    assert (command in capsys.readouterr().out) == (layout == "cascade")
