"""One graph of a calibrated cascade: compared, timed, described, and dropped when it is stale."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

import sdcompress
from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.write import entry, seal
from sdcompress.calibration.calibrate import calibrate
from sdcompress.errors import DataError, ParityError, UsageError, VerificationError
from sdcompress.exporting import one_graph
from sdcompress.exporting.one_graph import Host, export_one_graph
from sdcompress.modalities import as_image, modality_of
from sdcompress.modalities._image_preprocess import normalise
from sdcompress.onnx_graph import merge
from sdcompress.options import Options
from sdcompress.runtime.open import open_engine
from sdcompress.schema import recipe
from sdcompress.schema.graphs import PathTime
from sdcompress.verification.verify import verify

Made = Callable[[str], Path]
HERE = Host("a processor", 0.5)


@pytest.mark.parametrize("kind", ["graph", "if"])
def test_the_artifact_is_the_cascade_and_one_graph_more(one_graph_once: Made, kind: str) -> None:
    old, new = (open_artifact(one_graph_once(name)).manifest for name in ("cascade", kind))
    assert (new.segments, new.exits, new.policy, new.golden) == (old.segments, old.exits, old.policy, old.golden)
    assert new.provenance.parent == old.digest
    made = new.one_graph
    assert made is not None
    assert (made.file, made.kind, made.samples, made.near_threshold) == ("model.onnx", kind, 16, 0)
    assert made.batches == ((1,) if kind == "if" else (1, 2, 7, 32))
    assert [tensor.name for tensor in made.outputs] == ["outputs", "decision", "exit_index"]
    assert made.inputs[0].shape == ((1 if kind == "if" else "batch"), 1, 4, 4)
    assert made.macs == sum(segment.macs for segment in old.segments)
    engine = open_engine(one_graph_once("cascade"), threads=1)
    images = normalise(
        open_artifact(one_graph_once("cascade")).golden().examples, as_image(modality_of(new)).preprocess
    )
    left = np.bincount(engine(images).exit_index, minlength=3)
    assert [time.samples for time in made.times] == np.minimum(left, 8).tolist()
    for time in made.times[:-1]:
        assert time.ms is not None
        assert time.full_depth_ms is not None
        assert time.ms < time.full_depth_ms


def test_without_sdcompress_the_lines_of_the_card_run(one_graph_once: Made, tmp_path: Path) -> None:
    card = (one_graph_once("graph") / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[1]
    assert "sdcompress" not in code
    (image,) = open_artifact(one_graph_once("cascade")).golden().examples[:1]
    Image.fromarray(image[..., 0]).save(tmp_path / "photo.png")
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "photo.png"],
        cwd=one_graph_once("graph"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    engine = open_engine(one_graph_once("cascade"), threads=1)
    result = engine(engine.preprocess([image]))
    assert done.stdout.strip() == f"{tmp_path / 'photo.png'} ({result.outputs.argmax()}, {result.exit_index[0]})"


def test_its_rows_are_the_cascades_in_a_batch_of_any_size(one_graph_once: Made, tiny_network: Any) -> None:
    session = onnxruntime.InferenceSession(one_graph_once("graph") / "model.onnx")
    engine = open_engine(one_graph_once("cascade"), threads=1)
    inputs = engine.preprocess(tiny_network.samples(300, seed=9).examples(np.arange(300)))
    result = engine(inputs)
    logits, answer, exit_index = session.run(None, dict(inputs.arrays))
    np.testing.assert_array_equal(exit_index, result.exit_index)
    np.testing.assert_array_equal(answer, result.outputs.argmax(1))
    np.testing.assert_allclose(logits, result.outputs, atol=1e-5)


@pytest.mark.parametrize("kind", ["graph", "if"])
def test_verify_runs_it_again(one_graph_once: Made, kind: str) -> None:
    assert verify(one_graph_once(kind)).one_graph == kind
    assert verify(one_graph_once("cascade")).one_graph is None


def test_verify_finds_a_graph_of_other_thresholds(one_graph_once: Made, tmp_path: Path) -> None:
    path = Path(shutil.copytree(one_graph_once("graph"), tmp_path / "other"))
    opened = open_artifact(path)
    segments = [onnx.load(opened.file(segment)) for segment in opened.manifest.segments]
    other = merge.merge(opened.manifest, segments, (0.99, 0.6), batch_of_one=False)
    onnx.save(other, path / "model.onnx")
    assert opened.manifest.one_graph is not None
    changed = opened.manifest.one_graph.model_copy(
        update=entry(path, "model.onnx").model_dump()  # an edited and resealed artifact
    )
    kept = {name: getattr(opened.manifest, name) for name in type(opened.manifest).model_fields if name != "digest"}
    seal(path, **{**kept, "one_graph": changed})
    with pytest.raises(ParityError, match=r"model\.onnx.*exit1: .* take another exit"):
        verify(path)


def test_a_graph_that_answers_otherwise_is_set_aside(
    one_graph_once: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        one_graph, "merge", lambda manifest, segments, _, **kind: merge.merge(manifest, segments, (0.99, 0.6), **kind)
    )
    with pytest.raises(ParityError, match="does not predict what its segments predict"):
        export_one_graph(one_graph_once("cascade"), tmp_path / "out", kind="graph", host=HERE)
    assert not (tmp_path / "out").exists()
    assert {file.name for file in (tmp_path / "out.failed").iterdir()} == {"model.onnx", "parity.json"}
    assert any(found["problem"] for found in json.loads((tmp_path / "out.failed" / "parity.json").read_text()))


@pytest.mark.parametrize(
    ("certificate", "precisions", "whole"),
    [
        (SimpleNamespace(external=None), ("uint8",), True),
        (SimpleNamespace(external=None), ("fp32",), False),
        (None, ("uint8",), False),
        (SimpleNamespace(external="disjoint"), ("uint8",), False),
    ],
)
def test_in_lower_precision_every_sample_that_may_have_certified_is_compared(
    certificate: Any, precisions: tuple[str, ...], whole: bool
) -> None:
    manifest: Any = SimpleNamespace(certificate=certificate, precisions=precisions)
    assert one_graph._certified_in_low_precision(manifest) == whole


def test_what_was_compared_stands_in_the_manifest(
    one_graph_once: Made, tiny_network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_graph, "_validation_split", lambda _: tiny_network.samples(300, seed=3))
    monkeypatch.setattr(one_graph, "_certified_in_low_precision", lambda _: True)
    steps = list[tuple[int, int]]()
    options = Options(progress=lambda done, total: steps.append((done, total)))
    made = export_one_graph(one_graph_once("cascade"), tmp_path / "out", options, kind="if", host=HERE).one_graph
    assert made is not None
    assert (made.samples, made.whole_validation_split, made.near_threshold) == (316, True, 0)
    assert steps == [(done, 13) for done in range(1, 14)]  # 300 samples in ten parts, and three exits
    assert "On 316 real samples, all that certified" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_a_graph_that_gains_nothing_is_refused_and_nothing_is_written(
    one_graph_once: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = PathTime(
        exit="exit1", samples=4, rounds=40, ms=2.0, full_depth_ms=2.1, no_exits_ms=1.9, wins_vs_full_depth=22
    )
    monkeypatch.setattr(one_graph, "time_paths", lambda *_, **__: (slow, slow))
    with pytest.raises(VerificationError, match=r"exit1 in 2\.000 ms, to the end in 2\.100 ms"):
        export_one_graph(one_graph_once("cascade"), tmp_path / "out", kind="graph", host=HERE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"layout": "all", "policy": (0.9, 0.8)}, "has the layout 'all' and a policy"),
        ({}, "(?s)has the layout 'cascade' and no policy.*next: sdcompress calibrate"),
        ({"policy": (1.5, 2.0)}, "no sample exits early"),
    ],
)
def test_what_has_no_thresholds_that_fire_is_refused(
    tiny_artifact: Callable[..., Path], tmp_path: Path, given: dict[str, Any], found: str
) -> None:
    with pytest.raises(UsageError, match=found):
        export_one_graph(tiny_artifact(**given), tmp_path / "out", kind="graph", host=HERE)


def test_the_graph_describes_its_tensors(one_graph_once: Made) -> None:
    path = one_graph_once("graph")
    manifest = open_artifact(path).manifest
    metadata = {prop.key: json.loads(prop.value) for prop in onnx.load(path / "model.onnx").metadata_props}
    assert metadata["sdcompress.outputs"] == list(manifest.outputs)
    assert metadata["sdcompress.task"] == manifest.task.model_dump(mode="json")
    assert metadata["sdcompress.exits"] == ["exit1", "exit2", "final"]
    assert metadata["sdcompress.modality"] == manifest.modality.model_dump(mode="json")


def test_data_that_was_named_must_be_there(one_graph_once: Made, tmp_path: Path) -> None:
    with pytest.raises((DataError, VerificationError)):
        export_one_graph(one_graph_once("cascade"), tmp_path / "out", Options(data_dir=tmp_path), kind="if", host=HERE)


def test_new_thresholds_drop_it(one_graph_once: Made, tiny_network: Any, tmp_path: Path) -> None:
    calibrated = calibrate(
        one_graph_once("graph"), tmp_path / "again", samples=tiny_network.samples(300), settings=recipe.Calibrate()
    )
    assert calibrated.one_graph is None
    assert not (tmp_path / "again" / "model.onnx").exists()
    assert open_artifact(tmp_path / "again").manifest.one_graph is None


def test_one_kind_is_exported_from_the_other_and_replaces_it(one_graph_once: Made, tmp_path: Path) -> None:
    for _ in range(2):
        exported = export_one_graph(one_graph_once("graph"), tmp_path / "out", kind="if", host=HERE, overwrite=True)
    assert exported.one_graph is not None
    assert exported.one_graph.kind == "if"
    assert open_artifact(tmp_path / "out").manifest == exported


def test_it_needs_no_torch(one_graph_once: Made, tmp_path: Path) -> None:
    program = (
        "import sys; from sdcompress.exporting.one_graph import Host, export_one_graph;"
        "export_one_graph(sys.argv[1], sys.argv[2], kind='if', host=Host('', None));"
        "print([m for m in ('torch', 'timm', 'torchvision', 'onnxscript') if m in sys.modules])"
    )
    arguments = [sys.executable, "-c", program, one_graph_once("cascade"), tmp_path / "out"]
    assert subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_verify_needs_no_onnx_for_it(one_graph_once: Made) -> None:
    program = (
        "import sys; from sdcompress.verification.verify import verify; verify(sys.argv[1]);"
        "print([m for m in ('torch', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, one_graph_once("graph")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("layout", ["single", "cascade", "all"])
def test_other_layouts_of_an_artifact_name_the_training_that_they_are_made_of(
    tiny_artifact: Callable[..., Path], tmp_path: Path, layout: Any
) -> None:
    with pytest.raises(UsageError, match="is an artifact, where a checkpoint is needed") as caught:
        sdcompress.export(tiny_artifact(), tmp_path / "out", layout=layout)
    assert "weights 222222222222" in caught.value.next_step
    assert not (tmp_path / "out").exists()
