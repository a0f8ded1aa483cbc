"""The one graph under our names: the cascade's answers, and what only the cascade can do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdcompress.artifact.execution_target import one_graph_agrees
from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.write import seal
from sdcompress.errors import CertificateError, InputError, UsageError
from sdcompress.machine import processor
from sdcompress.modalities import Inputs
from sdcompress.options import EngineOptions
from sdcompress.runtime.one_graph import OneGraphEngine
from sdcompress.runtime.open import open_cascade, open_engine, open_one_graph

Made = Callable[[str], Path]
FASTER = {"machine": processor()[0], "mean_ms": 1.0, "segments_ms": 2.0}


@pytest.mark.parametrize(("kind", "batch"), [("graph", 50), ("if", 1)])
def test_it_predicts_as_the_cascade(one_graph_once: Made, tiny_network: Any, kind: str, batch: int) -> None:
    one, chain = (
        open_one_graph(one_graph_once(kind), EngineOptions(threads=1)),
        open_engine(one_graph_once("cascade"), threads=1),
    )
    assert one.exit_names == chain.exit_names
    inputs = one.preprocess(tiny_network.samples(50, seed=4).examples(np.arange(50)))
    np.testing.assert_array_equal(inputs, chain.preprocess(tiny_network.samples(50, seed=4).examples(np.arange(50))))
    told = chain(inputs)
    found = [one(inputs[at : at + batch]) for at in range(0, 50, batch)]
    np.testing.assert_array_equal(np.concatenate([part.exit_index for part in found]), told.exit_index)
    np.testing.assert_allclose(np.concatenate([part.outputs for part in found]), told.outputs, atol=1e-5)


@pytest.mark.parametrize("kind", ["graph", "if"])
def test_no_rows_are_no_answers(one_graph_once: Made, kind: str) -> None:
    found = open_one_graph(one_graph_once(kind))(np.empty((0, 1, 4, 4), np.float32))
    assert (found.outputs.shape, found.exit_index.shape) == ((0, 3), (0,))


def test_an_if_takes_one_image_and_inputs_are_checked(one_graph_once: Made) -> None:
    one = open_one_graph(one_graph_once("if"))
    with pytest.raises(InputError, match=r"(?s)A batch of 2 .*allowed: one sample"):
        one(np.zeros((2, 1, 4, 4), np.float32))
    with pytest.raises(InputError):
        one(np.zeros((1, 1, 4, 5), np.float32))


def test_an_artifact_without_one_is_refused(one_graph_once: Made) -> None:
    with pytest.raises(UsageError, match=r"(?s)no graph that exits by itself.*export .* --layout graph"):
        open_one_graph(one_graph_once("cascade"))


def test_thresholds_that_no_certificate_covers_do_not_run(
    one_graph_once: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise CertificateError("not covered")

    monkeypatch.setattr("sdcompress.runtime.open.check_covered", refuses)
    with pytest.raises(CertificateError):
        open_one_graph(one_graph_once("graph"))
    open_one_graph(one_graph_once("graph"), EngineOptions(allow_uncertified=True))


def with_graph(cascade: Path, graph: Path, out: Path, **changed: Any) -> Path:
    """A copy of a cascade with the one graph of another artifact, and other figures of it."""
    shutil.copytree(cascade, out)
    shutil.copy(graph / "model.onnx", out)
    entry, manifest = open_artifact(graph).manifest.one_graph, open_artifact(cascade).manifest
    assert entry is not None
    kept = {name: getattr(manifest, name) for name in type(manifest).model_fields if name != "digest"}
    seal(out, **{**kept, "one_graph": entry.model_copy(update={**FASTER, **changed})})
    return out


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each call that one graph runs."""
    counted, run = list[int](), OneGraphEngine.run

    def counting(self: OneGraphEngine, checked: Inputs) -> Any:
        counted.append(len(checked))
        return run(self, checked)

    monkeypatch.setattr(OneGraphEngine, "run", counting)
    return counted


@pytest.mark.parametrize("kind", ["graph", "if"])
def test_where_it_was_faster_it_runs_single_samples(
    one_graph_once: Made, tmp_path: Path, rows: list[int], kind: str
) -> None:
    engine = open_engine(with_graph(one_graph_once("cascade"), one_graph_once(kind), tmp_path / "faster"), threads=1)
    inputs = np.random.default_rng(0).normal(size=(7, 1, 4, 4)).astype(np.float32)
    expected = open_engine(one_graph_once("cascade"), threads=1)(inputs)
    for count in (1, 7):
        found = engine(inputs[:count])
        np.testing.assert_array_equal(found.exit_index, expected.exit_index[:count])
        np.testing.assert_allclose(found.outputs, expected.outputs[:count], atol=1e-5)
    engine(inputs[:1], deadline_ms=1e6)
    engine.forced(inputs[:1], 0)
    assert engine.exits(inputs).shape[1] == 7
    assert rows == [1]


def test_elsewhere_the_segments_run(one_graph_once: Made, tmp_path: Path, rows: list[int]) -> None:
    cascade, graph, image = one_graph_once("cascade"), one_graph_once("graph"), np.zeros((1, 1, 4, 4), np.float32)
    for place, changed in enumerate(({"machine": "another processor"}, {"mean_ms": 2.0})):
        open_engine(with_graph(cascade, graph, tmp_path / str(place), **changed), threads=1)(image)
    faster = with_graph(cascade, graph, tmp_path / "faster")
    open_cascade(faster, EngineOptions(threads=1))(image)
    open_engine(faster, backend="openvino", threads=1, allow_uncertified=True)(image)
    assert rows == []


def test_with_a_certificate_it_runs_only_if_it_gave_the_exits_and_decisions_of_the_segments(
    certified_artifact: Path, one_graph_once: Made, tmp_path: Path, rows: list[int]
) -> None:
    image = np.zeros((1, 1, 4, 4), np.float32)
    same = with_graph(certified_artifact, one_graph_once("graph"), tmp_path / "same")
    other = with_graph(certified_artifact, one_graph_once("graph"), tmp_path / "other", near_threshold=1)
    open_engine(other, threads=1)(image)
    assert rows == []
    open_engine(other, threads=1, allow_uncertified=True)(image)
    open_engine(same, threads=1)(image)
    assert rows == [1, 1]


def test_in_8_bits_it_answers_for_certified_segments_if_all_that_certified_were_compared(one_graph_once: Made) -> None:
    manifest = open_artifact(one_graph_once("graph")).manifest
    segments = tuple(one.model_copy(update={"precision": "uint8"}) for one in manifest.segments)

    def agrees(**changed: Any) -> bool:
        assert manifest.one_graph is not None
        graph = manifest.one_graph.model_copy(update=changed)
        return one_graph_agrees(manifest.model_copy(update={"segments": segments, "one_graph": graph}))

    assert one_graph_agrees(manifest)
    assert not agrees()
    assert agrees(whole_validation_split=True)
    assert not agrees(whole_validation_split=True, near_threshold=1)
    assert not agrees(whole_validation_split=True, max_abs_diff=2e-4)
    assert not one_graph_agrees(open_artifact(one_graph_once("cascade")).manifest)
