"""A cascade of chosen exits: what is joined computes what its pieces compute, and nothing of the others is left."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from meaning import image_modality
from networks import pictures
from signals import TASK

from sdcompress import export
from sdcompress.artifact.read import open_artifact
from sdcompress.checkpoint import open_checkpoint
from sdcompress.errors import UnknownNameError, UsageError
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.exporting.export import export_all
from sdcompress.exporting.export_spec import ExportSpec, kept_exits
from sdcompress.exporting.graph import export_all_exits
from sdcompress.exporting.layout import cut_layout
from sdcompress.modalities import Inputs
from sdcompress.modalities._image_preprocess import normalise
from sdcompress.models.build import build
from sdcompress.onnx_graph.partition import cut_segments, serialize
from sdcompress.options import Options
from sdcompress.runtime.open import open_engine
from sdcompress.schema.recipe import Exits, Export, Model
from sdcompress.verification.sessions import SegmentSessions
from sdcompress.verification.verify import verify

KNOWN = ("exit1", "exit2", "exit3", "final")
SIDE = 16


def test_the_last_exit_is_kept_whether_named_or_not_in_the_order_of_the_network() -> None:
    assert kept_exits(KNOWN, ["exit2"]) == ("exit2", "final")
    assert kept_exits(KNOWN, ["final", "exit3", "exit1"]) == ("exit1", "exit3", "final")
    assert kept_exits(KNOWN, []) == KNOWN


def test_a_truncated_cascade_keeps_the_exits_up_to_its_end() -> None:
    assert kept_exits(KNOWN, [], end="exit3") == ("exit1", "exit2", "exit3")
    assert kept_exits(KNOWN, ["exit1"], end="exit3") == ("exit1", "exit3")
    assert kept_exits(KNOWN, ["exit2", "exit1"], end="exit2") == ("exit1", "exit2")


@pytest.mark.parametrize(
    ("wanted", "end", "error", "match"),
    [
        (["exit22"], None, UnknownNameError, "Did you mean 'exit2'"),
        (["exit1", "exit2", "exit1"], None, UsageError, "named twice: exit1"),
        (["final"], None, UsageError, "'final' is the only exit to keep"),
        (["exit2"], "exit2", UsageError, "(?s)'exit2' is the only exit to keep.*at least one of exit1"),
        ([], "exit1", UsageError, "(?s)'exit1' is the only exit to keep.*a network with exits before it"),
        (["exit1", "final"], "exit3", UsageError, "(?s)truncated at 'exit3'.*behind it: final.*some of exit1, exit2"),
    ],
)
def test_names_that_make_no_cascade_are_refused(
    wanted: list[str], end: str | None, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        kept_exits(KNOWN, wanted, end=end)


@pytest.fixture(scope="module")
def resnet() -> onnx.ModelProto:
    torch.manual_seed(0)
    net = build(Model(), Exits(count=3, head="bottleneck"), outputs=(5,), inputs=pictures(3, SIDE, SIDE)).eval()
    return export_all_exits(net.logits_only(), net.exit_names, image_modality((3, SIDE, SIDE)))


SUBSETS = [chosen for count in (2, 3, 4) for chosen in combinations(KNOWN, count)]


@pytest.mark.parametrize("layout", ["cascade", "all"])
@pytest.mark.parametrize("kept", SUBSETS, ids="+".join)
def test_any_choice_gives_the_logits_of_the_whole_chain(
    resnet: onnx.ModelProto, kept: tuple[str, ...], layout: str
) -> None:
    every = [f"{name}_outputs" for name in KNOWN]
    pieces = cut_segments(resnet, every)
    cut = cut_layout(resnet, layout, kept, TASK)  # type: ignore[arg-type]
    assert len(cut.models) == (len(kept) if layout == "cascade" else 1)
    images = np.random.default_rng(0).normal(size=(5, 3, SIDE, SIDE)).astype(np.float32)
    chain = SegmentSessions([serialize(piece) for piece in pieces], outputs=every, threads=1)
    graphs, logits = list(cut.graphs.values()), list(cut.outputs.values())
    chosen = SegmentSessions(graphs, outputs=logits, threads=1)
    for batch in (1, 5):
        rows = [KNOWN.index(name) for name in kept]
        # joined, onnxruntime may fuse across the old border, and round otherwise
        np.testing.assert_allclose(
            chosen(Inputs({"input": images[:batch]})), chain(Inputs({"input": images[:batch]}))[rows], atol=1e-6
        )
    made = [name for model in cut.models.values() for node in model.graph.node for name in node.output if name]
    assert len(made) == len(set(made))
    read = {name for model in cut.models.values() for node in model.graph.node for name in node.input}
    ends = {output.name for model in cut.models.values() for output in model.graph.output}
    assert {name for name in made if not name.endswith("/order")} <= read | ends  # of TopK only the values are used


@pytest.fixture(scope="module")
def images(checkpoint: Path) -> np.ndarray:
    val = open_trained_model(checkpoint).dataset().val
    return val.examples(np.arange(len(val)))


@pytest.fixture(scope="module")
def logits(checkpoint: Path, images: np.ndarray) -> np.ndarray:
    """[E, N, K] of the checkpoint itself."""
    source = open_checkpoint(checkpoint)
    with torch.no_grad():
        found = source.network()(torch.from_numpy(normalise(images, source.modality.preprocess))).logits
    return np.stack([exit_.numpy() for exit_ in found])


@pytest.mark.parametrize("opset", [16, 18])
def test_an_artifact_speaks_of_the_kept_exits_only(
    checkpoint: Path, tmp_path: Path, images: np.ndarray, logits: np.ndarray, opset: int
) -> None:
    targets = [ExportSpec(tmp_path / layout, layout, exits=("exit2",)) for layout in ("cascade", "all")]
    every = export_all(checkpoint, [*targets, ExportSpec(tmp_path / "every", "cascade")], settings=Export(opset=opset))[
        -1
    ]
    for layout, files in (("cascade", 2), ("all", 1)):
        opened = open_artifact(tmp_path / layout)
        manifest = opened.manifest
        assert [exit_.name for exit_ in manifest.exits] == ["exit2", "final"]
        assert [exit_.metrics["accuracy"] for exit_ in manifest.exits] == [
            exit_.metrics["accuracy"] for exit_ in every.exits[1:]
        ]
        assert [record.exit for record in manifest.parity] == ["exit2", "final"]
        assert len(manifest.segments) == files
        np.testing.assert_array_equal(opened.golden().outputs, open_artifact(tmp_path / "every").golden().outputs[1:])
        engine = open_engine(tmp_path / layout, threads=1)
        np.testing.assert_allclose(engine.exits(engine.preprocess(images)), logits[1:], atol=2e-5)
        assert [exit_.name for exit_ in verify(tmp_path / layout).exits] == ["exit2", "final"]
    joined, full = open_artifact(tmp_path / "cascade").manifest.segments, every.segments
    assert joined[0].macs < full[0].macs + full[1].macs  # without the head of exit1
    assert joined[1].macs == full[2].macs
    assert manifest.exits[0].signals is None
    assert open_artifact(tmp_path / "cascade").manifest.exits[0].signals is not None


def test_a_truncated_cascade_is_the_network_up_to_its_end(
    checkpoint: Path, tmp_path: Path, images: np.ndarray, logits: np.ndarray
) -> None:
    targets = [ExportSpec(tmp_path / "two", "cascade", exit="exit2"), ExportSpec(tmp_path / "every", "cascade")]
    two, every = export_all(checkpoint, targets, settings=Export())
    assert [exit_.name for exit_ in two.exits] == ["exit1", "exit2"]
    assert [segment.macs for segment in two.segments] == [segment.macs for segment in every.segments[:2]]
    assert two.exits[0].signals is not None
    assert two.exits[1].signals is None  # nothing is decided at its end
    engine = open_engine(tmp_path / "two", threads=1)
    np.testing.assert_allclose(engine.exits(engine.preprocess(images)), logits[:2], atol=2e-5)
    assert [exit_.name for exit_ in verify(tmp_path / "two").exits] == ["exit1", "exit2"]


def test_an_ensemble_is_the_mean_over_the_kept_exits(
    checkpoint: Path, tmp_path: Path, images: np.ndarray, logits: np.ndarray
) -> None:
    targets = [
        ExportSpec(tmp_path / "two", "cascade", exits=("exit2",)),
        ExportSpec(tmp_path / "three", "cascade"),
        ExportSpec(tmp_path / "single", "single"),
    ]
    ticks: list[tuple[int, int]] = []
    export_all(checkpoint, targets, Export(ensemble="geometric"), Options(progress=lambda *tick: ticks.append(tick)))
    assert ticks[-1][0] == ticks[-1][1]
    log_probabilities = logits - np.log(np.exp(logits).sum(2, keepdims=True))
    means = {
        "two": np.stack([log_probabilities[1], log_probabilities[1:].mean(0)]),
        "three": np.stack([log_probabilities[0], log_probabilities[:2].mean(0), log_probabilities.mean(0)]),
        "single": log_probabilities.mean(0)[None],  # hears all exits of the network
    }
    labels = open_trained_model(checkpoint).dataset().val.targets
    for name, expected in means.items():
        engine = open_engine(tmp_path / name, threads=1)
        np.testing.assert_allclose(engine.exits(engine.preprocess(images)), expected, atol=5e-5)
        right = (expected.argmax(2) == labels).mean(1)
        assert [exit_.metrics["accuracy"] for exit_ in open_artifact(tmp_path / name).manifest.exits] == pytest.approx(
            right
        )


def test_exits_to_keep_are_refused_with_the_layout_single(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="layout 'single'") as caught:
        export(checkpoint, tmp_path / "a", {"keep_exits": ["exit1"]}, layout="single")
    assert "--truncate-at" in caught.value.next_step
    assert list(tmp_path.iterdir()) == []
