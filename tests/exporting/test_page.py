"""docs/artifact.md is true: it names every field, and its code runs as written on artifacts that we write."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel

from sdcompress import export
from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.write import seal
from sdcompress.calibration.calibrate import calibrate
from sdcompress.modalities._image_preprocess import geometry, normalise
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.runtime.open import open_engine
from sdcompress.schema import engines, graphs, recipe
from sdcompress.schema import manifest as schema
from sdcompress.schema.manifest import Policy
from sdcompress.schema.recipe import Export

PAGE = (Path(__file__).parents[2] / "docs" / "artifact.md").read_text(encoding="utf-8")
DIGEST, PREPROCESS, CASCADE, CERTIFICATE, ONE_GRAPH = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def cascade(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cascade with a temperature and a policy under which some golden samples leave at each exit."""
    folder = tmp_path_factory.mktemp("page") / "cascade"
    exported = export(checkpoint, folder, layout="cascade", settings=Export())
    logits = open_artifact(folder).golden().outputs / 0.5
    exponents = np.exp(logits - logits.max(2, keepdims=True))
    confidence = np.sort((exponents / exponents.sum(2, keepdims=True)).max(2), axis=1)
    policy = Policy(
        thresholds=tuple(float(rows[15:17].mean()) for rows in confidence[:2]),
        max_drop=0.5,
        samples=32,
        metric=0.5,
        reference_metric=0.5,
        shares=(0.5, 0.25, 0.25),
        stage_ms=(1.0, 1.0, 1.0),
    )
    exits = tuple(exit_.model_copy(update={"temperature": 0.5}) for exit_ in exported.exits)
    seal(folder, **{**dict(exported), "exits": exits, "policy": policy})
    return folder


def execute(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/artifact.md", "exec"), names)
    return names


def test_the_digest_is_recomputed(cascade: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert execute(DIGEST, cascade, monkeypatch)["digest"] == open_artifact(cascade).manifest.digest
    shutil.copytree(cascade, tmp_path / "edited")
    manifest = tmp_path / "edited" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"max_drop": 0.5', '"max_drop": 0.4'))
    with pytest.raises(AssertionError):
        execute(DIGEST, tmp_path / "edited", monkeypatch)


def test_the_cascade_by_hand_gives_the_engines_answers(cascade: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = execute(CASCADE, cascade, monkeypatch)
    engine = open_engine(cascade, threads=1)
    golden = open_artifact(cascade).golden()
    prediction = engine(normalise(golden.examples, engine.modality.preprocess))
    np.testing.assert_array_equal(names["exit_index"], prediction.exit_index)
    np.testing.assert_array_equal(names["decisions"], prediction.outputs.argmax(1))
    assert set(names["exit_index"].tolist()) == {0, 1, 2}


def test_the_certificate_is_recomputed_by_hand(certified_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert execute(CERTIFICATE, certified_artifact, monkeypatch)["p_recorded"] > 0  # the last p-value that was compared
    execute(DIGEST, certified_artifact, monkeypatch)
    manifest = certified_artifact / "manifest.json"
    fields = json.loads(manifest.read_text())
    fields["certificate"]["levels"][0]["p_values"][0] *= 1.01
    manifest.write_text(json.dumps(fields))
    with pytest.raises(AssertionError):
        execute(CERTIFICATE, certified_artifact, monkeypatch)


@pytest.mark.parametrize("group_by", ["stratum", "exit"])
def test_a_certificate_for_groups_is_recomputed_by_hand(
    tiny_artifact: Callable[..., Path], tiny_network: Any, monkeypatch: pytest.MonkeyPatch, group_by: Any
) -> None:
    cascade = tiny_artifact()
    settings = recipe.Calibrate(max_drop=0.08, confidence=0.9, group_by=group_by)
    calibrate(cascade, cascade.parent / group_by, samples=tiny_network.samples(4000), settings=settings)
    assert execute(CERTIFICATE, cascade.parent / group_by, monkeypatch)["p_recorded"] > 0


def test_a_page_without_a_certificate_has_nothing_to_recompute(cascade: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert execute(CERTIFICATE, cascade, monkeypatch)["certificate"] is None


def test_one_graph_by_hand_gives_the_engines_answers(
    one_graph_once: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("graph", "if"):
        names = execute(ONE_GRAPH, one_graph_once(kind), monkeypatch)
        execute(DIGEST, one_graph_once(kind), monkeypatch)
        engine = open_engine(one_graph_once("cascade"), threads=1)
        prediction = engine(engine.preprocess(open_artifact(one_graph_once(kind)).golden().examples[:1]))
        assert names["exit_index"].tolist() == prediction.exit_index.tolist()
        assert names["decision"].tolist() == prediction.outputs.argmax(1).tolist()


@pytest.mark.parametrize("resize", [None, (9, 12), 10, 33])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_preprocessing_is_ours(
    cascade: Path, monkeypatch: pytest.MonkeyPatch, resize: Any, interpolation: Any, channels: Any
) -> None:
    by_page = execute(PREPROCESS, cascade, monkeypatch)["network_input"]
    mean, std = (0.485, 0.456, 0.406)[:channels], (0.229, 0.224, 0.225)[:channels]
    spec = Preprocess(channels=channels, resize=resize, crop=(7, 8), interpolation=interpolation, mean=mean, std=std)
    for height, width in ((17, 23), (30, 11)):
        pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
        prepared = by_page(Image.fromarray(pixels), json.loads(spec.model_dump_json()))
        np.testing.assert_array_equal(prepared, normalise(geometry(pixels, spec)[None], spec))
        deep = pixels[..., 0].astype(np.uint16) * 256 + pixels[..., 1]
        for white in (None, 4095):
            scaled = spec.model_copy(update={"white_level": white})
            prepared = by_page(Image.fromarray(deep), json.loads(scaled.model_dump_json()))
            np.testing.assert_array_equal(prepared, normalise(geometry(deep, scaled)[None], scaled))


def test_every_field_of_the_manifest_is_on_the_page() -> None:
    models = [getattr(module, name) for module in (schema, graphs, engines) for name in module.__all__]
    models = [model for model in models if isinstance(model, type) and issubclass(model, BaseModel)]
    fields = {field for model in models for field in model.model_fields}
    assert [field for field in sorted(fields) if f"`{field}`" not in PAGE] == []
