"""What every choice behind ``sdcompress quantize`` costs on a trained network: answers that differ, and milliseconds.

    python benchmarks/quantize/choices.py --run RUN --data-dir data

RUN is a training run with exits (benchmarks/alternatives/half.yaml). Its whole network is quantised as ``int8`` does it
and with one choice changed at a time; accuracy and answers are of the validation split. All are timed in turn, one
image, one thread. The cascade is quantised by the verb itself.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "speed")]

from record import Record, against  # noqa: E402
from turns import calls_in_turn  # noqa: E402

import sdcompress  # noqa: E402
from sdcompress.artifact.read import Artifact, open_artifact  # noqa: E402
from sdcompress.benchmarking.stats import ratio_of_means  # noqa: E402
from sdcompress.data.samples import Dataset  # noqa: E402
from sdcompress.evaluation.trained_model import open_trained_model  # noqa: E402
from sdcompress.modalities._image_preprocess import normalise  # noqa: E402
from sdcompress.options import Options  # noqa: E402
from sdcompress.quantizing import insert_qdq, ranges  # noqa: E402
from sdcompress.quantizing.calibration_data import CalibrationData  # noqa: E402
from sdcompress.quantizing.precisions import fp8, fp16, int8, uint8  # noqa: E402
from sdcompress.quantizing.precisions._base import Feed, FloatSegment  # noqa: E402
from sdcompress.quantizing.segments import load_segment, output_layers, without_signals  # noqa: E402

Array = npt.NDArray[Any]
BATCH, TIMED = 200, 500


@contextmanager
def changed(options: dict[str, Any] | None = None, **arguments: Any) -> Iterator[None]:
    """Within the block ``int8`` asks onnxruntime for something else."""
    asked = insert_qdq.QDQQuantizer

    def instead(*given: Any, extra_options: dict[str, Any], **named: Any) -> Any:
        return asked(*given, **named | arguments, extra_options=extra_options | (options or {}))

    with mock.patch.object(insert_qdq, "QDQQuantizer", instead):
        yield


class Reader(CalibrationDataReader):
    """Feeds as onnxruntime asks for them."""

    def __init__(self, feeds: Iterator[Feed]) -> None:
        self._feeds = feeds

    def get_next(self) -> Feed | None:
        """The next batch; None after the last."""
        return next(self._feeds, None)


@contextmanager
def defaults() -> Iterator[None]:
    """Within the block ``int8`` is what onnxruntime makes of a network by itself, per channel."""

    def instead(segment: FloatSegment, *_: Any) -> onnx.ModelProto:
        with tempfile.TemporaryDirectory() as folder:
            given, out = Path(folder) / "float.onnx", Path(folder) / "integers.onnx"
            onnx.save(segment.model, given)
            types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
            quantize_static(given, out, Reader(segment.feeds()), per_channel=True, **types)
            return onnx.load(out)

    with mock.patch.object(int8, "quantize_integers", instead), mock.patch.object(int8, "_make_pairs_distinct"):
        yield


@contextmanager
def all_extremes() -> Iterator[None]:
    """Within the block a range holds the extremes of all images."""
    with mock.patch.object(ranges, "GROUP", sys.maxsize):
        yield


@contextmanager
def as_given() -> Iterator[None]:
    """Within the block the pairs of a tensor stay alike."""
    with mock.patch.object(int8, "_make_pairs_distinct"):
        yield


CHOICES: dict[str, Callable[[], Any]] = {
    "int8 as it is": changed,
    "unsigned activations": partial(changed, {"ActivationSymmetric": False}, activation_qType=QuantType.QUInt8),
    "biases in integers": partial(changed, {"QuantizeBias": True}),
    "signed, equal pairs left alike": as_given,
    "weights of 8 bits": partial(changed, reduce_range=False),
    "extremes of all images": all_extremes,
    "onnxruntime's defaults": defaults,
}


def graphs(artifact: Artifact, dataset: Dataset) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The network in float32, as ``fp16``, ``fp8`` and ``int8`` make it, and with one choice changed."""
    (segment,) = artifact.manifest.segments
    (exit_,) = artifact.manifest.exits
    bare = without_signals(load_segment(artifact, segment), ())
    before = [artifact.file(segment).read_bytes()]
    feeds = CalibrationData(artifact.manifest, before, dataset.train, count=None, threads=1, progress=None)
    given = FloatSegment(bare, output_layers(bare, [exit_.outputs]), partial(feeds.feeds, 0))
    yield "float32", bare
    yield "fp16", fp16.fp16(given)
    yield "fp8", fp8.fp8(given)
    with mock.patch.object(fp8, "_residual_inputs", return_value={}):
        yield "fp8, sums not rounded", fp8.fp8(given)
    yield "uint8", uint8.uint8(given)
    with changed(reduce_range=False):
        yield "uint8, weights of 8 bits", uint8.uint8(given)
    for name, choice in CHOICES.items():
        with choice():
            yield name, int8.int8(given)


def session(model: onnx.ModelProto) -> Callable[[Array], Array]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    opened = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (entry,) = opened.get_inputs()
    return lambda images: opened.run(None, {entry.name: images})[0]


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--run", type=Path, required=True)
    read.add_argument("--data-dir", type=Path)
    read.add_argument("--rounds", type=int, default=20)
    read.add_argument("--seconds", type=float, default=0.2, help="of one turn")
    given = read.parse_args()
    record = Record(HERE)
    options = Options(data_dir=given.data_dir)
    dataset = open_trained_model(given.run, options).dataset()
    with tempfile.TemporaryDirectory() as folder:
        single, cascade = Path(folder, "single"), Path(folder, "cascade")
        sdcompress.export(given.run, single, None, options, layout="single")
        sdcompress.export(given.run, cascade, None, options)
        verb = {
            precision: sdcompress.quantize(cascade, Path(folder, precision), precision, None, options)
            for precision in ("int8", "fp8", "fp16")
        }
        opened = open_artifact(single)
        spec, calls = opened.modality.preprocess, {}
        for name, model in graphs(opened, dataset):
            calls[name] = session(model)
    samples = dataset.split("validation")
    inputs = normalise(samples.examples(np.arange(len(samples))), spec)
    answers = {
        name: np.concatenate([call(inputs[at : at + BATCH]).argmax(1) for at in range(0, len(inputs), BATCH)])
        for name, call in calls.items()
    }
    times = calls_in_turn(
        calls, [inputs[at : at + 1] for at in range(TIMED)], rounds=given.rounds, seconds=given.seconds
    )
    rows = [
        {
            "row": name,
            "accuracy": round(float((answers[name] == samples.targets).mean()), 4),
            "other_answers": round(float((answers[name] != answers["float32"]).mean()), 4),
            "mean_ms": round(float(np.concatenate(times[name]).mean()), 4),
            "times as fast as float32": against(ratio_of_means(times["float32"], times[name]), None),
        }
        for name in calls
    ]
    kept = {"samples", "exits", "bytes_before", "bytes_after", "low_precision_ops", "high_precision_ops"}
    figures = {name: found.model_dump(mode="json", include=kept) for name, found in verb.items()}
    record.write({"cascade": figures, "choices": rows}, threads=1, batch=1, images=len(samples), timed=TIMED)


if __name__ == "__main__":
    main()
