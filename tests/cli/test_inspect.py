"""What inspect shows of the exits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sdcompress.artifact.read import open_artifact
from sdcompress.cli.inspect import show_manifest
from sdcompress.schema.manifest import Policy


def unlabelled(thresholds: tuple[float, ...]) -> Policy:
    """A policy that was chosen without targets."""
    count = len(thresholds) + 1
    return Policy(
        thresholds=thresholds,
        max_drop=0.02,
        samples=9,
        metric=None,
        reference_metric=None,
        shares=(1 / count,) * count,
        stage_ms=(1.0,) * count,
    )


@pytest.mark.parametrize(("metrics", "shown"), [({"accuracy": 0.9, "ece": 0.02}, True), ({"closeness": 0.9}, False)])
def test_a_calibration_error_is_shown_where_the_task_has_one(
    tiny_artifact: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    metrics: dict[str, float],
    *,
    shown: bool,
) -> None:
    manifest = open_artifact(tiny_artifact()).manifest
    exits = tuple(exit_.model_copy(update={"metrics": metrics}) for exit_ in manifest.exits)
    show_manifest(manifest.model_copy(update={"exits": exits}), "folder")
    assert ("ECE" in capsys.readouterr().out) == shown


def test_a_policy_without_targets_has_no_metric_and_inputs_have_names(
    tiny_artifact: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = open_artifact(tiny_artifact()).manifest
    count = len(manifest.exits)
    policy = unlabelled((0.5,) * (count - 1))
    show_manifest(manifest.model_copy(update={"policy": policy}), "folder")
    shown = " ".join(capsys.readouterr().out.split())
    assert f"inputs {manifest.inputs[0].name} float32 [batch" in shown
    assert "drop of at most" in shown
    assert "instead of" not in shown


@pytest.mark.parametrize(
    ("precision", "thresholds", "named"),
    [
        ("int8", (2.0, 0.5), "--layout cascade --keep-exits exit2,"),
        ("int8", (2.0, 2.0), "--layout single,"),
        ("int8", (0.5, 0.5), None),
        ("fp32", (2.0, 0.5), None),
        ("uint8", (2.0, 0.5), None),  # these graphs quantise nothing at a border
    ],
)
def test_exits_that_no_sample_takes_are_named_where_segments_stay_apart(
    tiny_artifact: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    precision: str,
    thresholds: tuple[float, ...],
    named: str | None,
) -> None:
    folder = tiny_artifact()
    manifest = open_artifact(folder).manifest
    assert [exit_.name for exit_ in manifest.exits] == ["exit1", "exit2", "final"]
    segments = tuple(segment.model_copy(update={"precision": precision}) for segment in manifest.segments)
    show_manifest(manifest.model_copy(update={"segments": segments, "policy": unlabelled(thresholds)}), str(folder))
    shown = " ".join(capsys.readouterr().out.split())
    assert ("segments are not joined" in shown) == (named is not None)
    assert named is None or named in shown


def test_segments_that_are_no_graphs_count_as_apart(
    tiny_artifact: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_artifact()
    manifest = open_artifact(folder).manifest
    (folder / "segment-1.onnx").write_bytes(b"no graph at all")
    segments = tuple(segment.model_copy(update={"precision": "uint8"}) for segment in manifest.segments)
    show_manifest(manifest.model_copy(update={"segments": segments, "policy": unlabelled((2.0, 2.0))}), str(folder))
    assert "segments are not joined" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("thresholds", "named"),
    [
        ((2.0, 0.5), "--layout cascade --keep-exits exit2 --ensemble geometric, and quantised then, the network has "),
        ((2.0, 2.0), "--layout single --ensemble geometric, and quantised then, the network has fewer of them"),
    ],
)
def test_an_ensemble_is_named_and_stays_one_in_what_is_recommended(
    tiny_artifact: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    thresholds: tuple[float, ...],
    named: str,
) -> None:
    manifest = open_artifact(tiny_artifact()).manifest
    provenance = manifest.provenance.model_copy(
        update={"recipe": {**manifest.provenance.recipe, "export": {"ensemble": "geometric"}}}
    )
    segments = tuple(segment.model_copy(update={"precision": "int8"}) for segment in manifest.segments)
    changed = {"segments": segments, "policy": unlabelled(thresholds), "provenance": provenance}
    show_manifest(manifest.model_copy(update=changed), "folder")
    shown = " ".join(capsys.readouterr().out.split())
    assert "folder: cascade, int8, geometric ensemble of exits, classification" in shown
    assert named in shown
    assert ("average the kept exits alone" in shown) == (0.5 in thresholds)
    show_manifest(manifest, "folder")
    assert "ensemble" not in capsys.readouterr().out
