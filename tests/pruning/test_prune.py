"""A pruned checkpoint is a checkpoint: it is evaluated, exported, fine-tuned, resumed and pruned again."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import nn

import sdcompress
from sdcompress import recipes
from sdcompress.checkpoint import STATE, open_checkpoint
from sdcompress.cli.prune import show_pruned
from sdcompress.errors import CheckpointError, OutputExistsError, RecipeError, UsageError
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.exporting import dry_export
from sdcompress.models.build import build
from sdcompress.models.cost import costs
from sdcompress.models.inputs import example_inputs
from sdcompress.pruning import latency, save
from sdcompress.pruning import prune as pruning
from sdcompress.pruning.checking import random_inputs
from sdcompress.schema.pruning_target import PruningTarget
from sdcompress.storage import digest_of


@pytest.fixture(scope="module")
def half(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint at half of its MACs."""
    out = tmp_path_factory.mktemp("pruned") / "half"
    sdcompress.prune(checkpoint, out, {"target": "macs=50%", "round_to": 2})
    return out


def edited(folder: Path, out: Path, change: Callable[[dict], None]) -> Path:  # type: ignore[type-arg]
    """A copy of a checkpoint whose record was changed by somebody who knows how to seal it."""
    out.mkdir()
    for file in folder.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    state = json.loads((folder / STATE).read_text())
    change(state)
    state["digest"] = digest_of({key: value for key, value in state.items() if key != "digest"})
    (out / STATE).write_text(json.dumps(state))
    return out


def test_the_target_is_met_and_recorded(checkpoint: Path, half: Path) -> None:
    whole, pruned = open_checkpoint(checkpoint), open_checkpoint(half)
    record = pruned.state.pruned
    assert record is not None
    (round_,) = record.rounds
    assert round_.parent == whole.weights_sha256
    assert 0.3 * round_.before.macs < round_.after.macs <= 0.5 * round_.before.macs
    counted = costs(pruned.network(), pruned.modality.tensors)[-1]
    assert (counted.macs, counted.parameters) == (round_.after.macs, round_.after.parameters)
    assert (pruned.recipe, pruned.data_fingerprint) == (whole.recipe, whole.data_fingerprint)
    assert pruned.network().map_shapes != whole.network().map_shapes


def test_it_is_evaluated_and_exported_with_parity(half: Path, tmp_path: Path) -> None:
    engine = open_trained_model(half).engine()
    manifest = sdcompress.export(half, tmp_path / "artifact", layout="cascade")
    assert max(record.max_abs_diff for record in manifest.parity) < 1e-4
    assert sum(segment.macs for segment in manifest.segments) > 0
    assert manifest.provenance.pruned == open_checkpoint(half).state.pruned.rounds  # type: ignore[union-attr]
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1), np.uint8)
    exported = sdcompress.open(tmp_path / "artifact")
    inputs = engine.modality.collate(images)
    np.testing.assert_allclose(engine.exits(inputs), exported.exits(inputs), atol=1e-4)


def test_parameters_and_layers_alike(checkpoint: Path, tmp_path: Path) -> None:
    pruned = sdcompress.prune(
        checkpoint, tmp_path / "out", {"target": "parameters=40%", "ranking": "layer", "round_to": 4}
    ).state.pruned
    assert pruned is not None
    (round_,) = pruned.rounds
    assert round_.after.parameters <= 0.4 * round_.before.parameters
    assert {left % 4 for _, left, _ in pruned.layers} == {0}
    backbone = [left / of for name, left, of in pruned.layers if name.startswith("backbone")]
    assert max(backbone) - min(backbone) < 0.2


def test_taylor_reads_the_training_data(checkpoint: Path, tmp_path: Path) -> None:
    settings = {"importance": "taylor", "batches": 1, "round_to": 2}
    first = sdcompress.prune(checkpoint, tmp_path / "one", settings).state
    again = sdcompress.prune(checkpoint, tmp_path / "two", settings).state
    assert first.weights.sha256 == again.weights.sha256


def test_two_rounds_and_their_parents(half: Path, tmp_path: Path) -> None:
    quarter = sdcompress.prune(half, tmp_path / "quarter", {"target": "macs=60%", "round_to": 2})
    record = quarter.state.pruned
    assert record is not None
    assert [round_.parent for round_ in record.rounds][1] == open_checkpoint(half).weights_sha256
    assert record.rounds[1].before == record.rounds[0].after
    assert {channels.of for channels in record.channels} <= {8, 16, 32, 64}  # of the whole network


@pytest.mark.parametrize("exits", [{"count": 2, "head": "linear"}, {"count": 1, "head": "bottleneck", "width_cap": 8}])
def test_it_is_fine_tuned_and_the_run_resumes_alike(half: Path, tmp_path: Path, exits: dict[str, object]) -> None:
    """With the same exits, whose heads are taken over, and with others, which are made for the pruned backbone."""
    recipe = recipes.read(
        {
            "exits": exits,
            "data": {"train_limit": 96},
            "model": {"weights": str(half)},
            "train": {"epochs": 2, "batch_size": 32, "threads": 1, "device": "cpu"},
        }
    )
    from sdcompress.training.run import train

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = train(recipe, tmp_path / "whole")

        def stop(done: int, _all: int) -> None:
            if done == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "parts", on_step=stop)
        assert train(recipe, tmp_path / "parts").weights_sha256 == whole.weights_sha256
    pruned, parent = whole.state.pruned, open_checkpoint(half).state.pruned
    assert pruned is not None
    assert parent is not None
    assert pruned.rounds == parent.rounds
    net = whole.network()
    assert net.backbone.state_dict().keys() == open_checkpoint(half).network().backbone.state_dict().keys()
    again = sdcompress.prune(whole, tmp_path / "again", {"target": "macs=70%", "round_to": 1})
    inputs = random_inputs(example_inputs(again.modality.tensors))
    assert len(again.network()(*inputs).logits) == len(net.exit_names)


def test_it_is_no_training_that_could_be_made_longer(half: Path) -> None:
    with pytest.raises(CheckpointError, match="written by 'prune'"):
        sdcompress.train(extends=half, settings=["train.epochs=99"])


def test_nothing_is_written_where_the_target_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be pruned below .* macs"):
        sdcompress.prune(checkpoint, tmp_path / "out", {"target": "macs=1%"})
    with pytest.raises(UsageError, match="already meets"):
        sdcompress.prune(checkpoint, tmp_path / "out", {"target": "macs=900G"})
    with pytest.raises(RecipeError, match="is no target"):
        sdcompress.prune(checkpoint, tmp_path / "out", {"target": "half"})
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_where_the_checkpoint_gives_other_outputs(
    checkpoint: Path, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of some network may not be all that its shape follows from."""
    other = SimpleNamespace(network=lambda **_: open_checkpoint(half).network())
    monkeypatch.setattr(save, "open_checkpoint", lambda _: other)
    monkeypatch.setattr(pruning, "_STEPS", 1)
    with pytest.raises(CheckpointError, match="gives other outputs once it is built from its checkpoint"):
        sdcompress.prune(checkpoint, tmp_path / "out", {"target": "macs=90%", "round_to": 4})
    assert not (tmp_path / "out").exists()


def test_only_a_pruned_checkpoint_is_replaced(checkpoint: Path, half: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError):
        sdcompress.prune(checkpoint, half, {"target": "macs=60%"})
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError):
        sdcompress.prune(checkpoint, tmp_path, {"target": "macs=60%"}, overwrite=True)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_record_of_another_version_or_network_is_refused(half: Path, tmp_path: Path) -> None:
    def newer(state: dict) -> None:  # type: ignore[type-arg]
        state["pruned"]["version"] = 99

    with pytest.raises(CheckpointError, match="pruned by another version"):
        open_checkpoint(edited(half, tmp_path / "newer", newer))

    def wider(state: dict) -> None:  # type: ignore[type-arg]
        state["pruned"]["channels"][0]["of"] = 1000

    with pytest.raises(CheckpointError, match="does not fit the network of the recipe"):
        open_checkpoint(edited(half, tmp_path / "wider", wider)).network()

    def elsewhere(state: dict) -> None:  # type: ignore[type-arg]
        state["pruned"]["sizes"]["backbone.conv1.forward"] = 3

    with pytest.raises(CheckpointError, match="does not fit the network of the recipe"):
        open_checkpoint(edited(half, tmp_path / "elsewhere", elsewhere)).network()


def _repeated(record: dict[str, Any]) -> None:
    record["channels"].append(record["channels"][0])


def _endless(record: dict[str, Any]) -> None:
    record["channels"][0]["axes"] = [f"backbone.conv1.weight:{'9' * 5000}"]


def _negative(record: dict[str, Any]) -> None:
    record["channels"][0]["kept"] = [-1]


def _uncoupled(record: dict[str, Any]) -> None:
    for channels in record["channels"]:
        channels["axes"] = [axis for axis in channels["axes"] if axis.endswith(":0")] or ["nowhere:0"]


def _longer(record: dict[str, Any]) -> None:
    record["sizes"]["backbone.conv1.out_channels"] = 10**6


def _more_maps(record: dict[str, Any]) -> None:
    record["heads_for"] = [[8, 4, 4]]


def _huge_maps(record: dict[str, Any]) -> None:
    record["heads_for"] = [[10**9, 8, 8], [32, 4, 4], [64, 2, 2]]


@pytest.mark.parametrize("change", [_repeated, _endless, _negative, _uncoupled, _longer, _more_maps, _huge_maps])
def test_a_record_that_no_pruning_writes_is_refused(
    half: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    with pytest.raises(CheckpointError, match=r"does not fit the network of the recipe|is not intact"):
        open_checkpoint(edited(half, tmp_path / "forged", lambda state: change(state["pruned"]))).network()


def test_uncoupled_channels_are_refused_where_no_exit_looks_at_the_maps(half: Path) -> None:
    checkpoint = open_checkpoint(half)
    assert checkpoint.state.pruned is not None
    record = checkpoint.state.pruned.model_dump(mode="json")
    _uncoupled(record)
    recipe, cuts = checkpoint.recipe, type(checkpoint.state.pruned).model_validate(record)
    shapes = {"outputs": checkpoint.task.output_shape, "inputs": checkpoint.modality.tensors}
    with pytest.raises(CheckpointError, match="does not fit the network of the recipe"):
        build(recipe.model, recipe.exits, heads=False, cuts=cuts, **shapes)


def test_no_training_goes_on_from_it(half: Path, tmp_path: Path) -> None:
    from sdcompress.training.run import train

    checkpoint = open_checkpoint(half)
    longer = recipes.read(checkpoint.recipe.model_dump(mode="json"), ["train.epochs=99"])
    with pytest.raises(CheckpointError, match="written by 'prune'"):
        train(longer, tmp_path / "run", extends=checkpoint)


def test_the_dry_export_is_of_the_pruned_network(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_trained_model(half)
    exported: list[tuple[tuple[int, ...], ...]] = []
    monkeypatch.setattr(dry_export, "_export", lambda net, *_: exported.append(net.map_shapes))
    model = opened.recipe.model.model_copy(update={"weights": str(half)})
    dry_export.dry_export(opened.recipe.model_copy(update={"model": model}), opened.dataset())
    assert exported == [open_checkpoint(half).network().map_shapes]


def test_the_table_names_each_round(half: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pruned = open_checkpoint(half).state.pruned
    assert pruned is not None
    show_pruned(pruned)
    printed = capsys.readouterr().out
    assert pruned.rounds[0].parent[:12] in printed
    assert "backbone.conv1" in printed


@pytest.mark.parametrize(
    ("text", "quantity", "limit", "relative"),
    [
        ("macs=50%", "macs", 0.5, True),
        ("parameters=1.2M", "parameters", 1.2e6, False),
        ("ms=0.8", "ms", 0.8, False),
        ("ms=60%", "ms", 0.6, True),
    ],
)
def test_targets(text: str, quantity: str, limit: float, *, relative: bool) -> None:
    target = PruningTarget.parse(text)
    assert (target.quantity, target.relative) == (quantity, relative)
    assert target.limit == pytest.approx(limit)
    assert target.absolute(200) == pytest.approx(200 * limit if relative else limit)


@pytest.mark.parametrize("text", ["", "macs", "macs=0", "macs=100%", "macs=-3", "flops=3", "ms=1e999", "macs=nan"])
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(ValueError, match=r"target|needs"):
        PruningTarget.parse(text)


def test_a_target_in_milliseconds_is_searched_by_measured_ones(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network whose time is its parameters, so that the search is known."""
    monkeypatch.setattr(pruning, "session", lambda net, *_: sum(each.numel() for each in net.parameters()))
    monkeypatch.setattr(pruning, "milliseconds", lambda whole, pruned, _: (whole / 1e3, pruned / 1e3))
    record = sdcompress.prune(checkpoint, tmp_path / "out", {"target": "ms=60%", "round_to": 4}).state.pruned
    assert record is not None
    (round_,) = record.rounds
    assert round_.before.ms is not None
    assert round_.after.ms is not None
    assert 0.4 * round_.before.ms < round_.after.ms <= 0.6 * round_.before.ms


class Sums:
    """In the place of a session, which takes seconds to make: it takes as long as the network has parameters."""

    def __init__(self, net: nn.Module, *_: object) -> None:
        self._numbers = np.ones(sum(each.numel() for each in net.parameters()))

    def run(self, _outputs: None, _feed: object) -> None:
        np.exp(self._numbers)


def test_a_target_in_milliseconds_is_met_by_the_clock(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "session", Sums)
    monkeypatch.setattr(pruning, "_MS_STEPS", 2)
    record = sdcompress.prune(checkpoint, tmp_path / "out", {"target": "ms=80%", "round_to": 4}).state.pruned
    assert record is not None
    (round_,) = record.rounds
    assert round_.before.ms is not None
    assert round_.after.ms is not None
    assert 0 < round_.after.ms <= 0.8 * round_.before.ms
    assert round_.after.macs < round_.before.macs


def test_the_time_of_a_network_is_that_of_its_export(half: Path) -> None:
    opened = open_checkpoint(half)
    examples = np.zeros((1, 32, 32, 1), np.uint8)
    runs = latency.session(opened.network(), opened.task, opened.modality)
    before, after = latency.milliseconds(runs, runs, opened.modality.collate(examples))
    assert 0.2 < before / after < 5
