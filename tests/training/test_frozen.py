"""Heads on a frozen backbone: the weights that stay, and the same bits with and without what is kept of it."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import pictures

from sdcompress.errors import RecipeError
from sdcompress.models.backbones.cifar import cifar
from sdcompress.schema.recipe import Recipe
from sdcompress.storage import staged_folder
from sdcompress.training import feature_cache
from sdcompress.training.batches import Positions
from sdcompress.training.check_recipe import check_recipe
from sdcompress.training.feature_cache import Form, Plan, cache_folder, fill, room_for
from sdcompress.training.run import train

Small = Callable[..., Recipe]
FROZEN = ["train.backbone=frozen", "train.epochs=1"]
PLAIN = [*FROZEN, "data.train_limit=96", "train.augment.crop=0"]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Weights of a network, as if somebody had trained it."""
    torch.manual_seed(1)
    torch.save(
        cifar("resnet8", outputs=(10,), inputs=pictures(1, 16, 16), pretrained=False).state_dict(), tmp_path / "w.pt"
    )
    return tmp_path / "w.pt"


@pytest.fixture(autouse=True)
def _cache_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def trained(recipe: Recipe, out: Path) -> tuple[str, dict[str, torch.Tensor]]:
    done = train(recipe, out)
    return done.weights_sha256, done.network().state_dict()


@pytest.mark.filterwarnings("ignore:.*tensors are taken from")
@pytest.mark.parametrize(
    "settings",
    [
        [
            "method=byot",
            "exits.head=bottleneck",
            "train.ema_decay=0.9",
            "train.channels_last=true",
        ],  # heads that learn on maps, and an average
        ["method=ema_teacher", "exits.head=linear"],  # heads on pooled vectors, and an average that teaches
        ["method=cs_kd", "train.batch_size=48"],  # pairs: one batch of both
        ["method=fastbert", "exits.head=sepconv", "train.epochs=2"],  # the classifier first, then the heads alone
    ],
)
def test_the_backbone_stays_and_the_cache_changes_no_bit(
    small: Small, old: Path, tmp_path: Path, settings: list[str]
) -> None:
    base = ["train.backbone=frozen", "train.augment.crop=0", "data.train_limit=96", f"model.weights={old}"]
    settings = [*base, *settings, *([] if "train.epochs=2" in settings else ["train.epochs=1"])]
    recipe = small(*settings)
    direct, _ = trained(small(*settings, "train.feature_cache_gb=0"), tmp_path / "a")
    kept, after = trained(recipe, tmp_path / "b")
    assert kept == direct
    before = torch.load(old)
    body = [name for name in before if not name.startswith("fc.")]
    assert all(torch.equal(before[name], after[f"backbone.{name}"]) for name in body)  # running statistics among them
    assert not torch.equal(before["fc.weight"], after["backbone.fc.weight"])


@pytest.mark.filterwarnings("ignore:.*tensors are taken from")
def test_what_lies_on_disk_is_used_again_by_another_method(
    small: Small, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*PLAIN, f"model.weights={old}"]
    in_memory, _ = trained(small(*settings), tmp_path / "a")
    monkeypatch.setattr(feature_cache, "IN_MEMORY", 0)
    assert trained(small(*settings), tmp_path / "b")[0] == in_memory
    (folder,) = cache_folder().iterdir()
    taken = sum(file.stat().st_size for file in folder.iterdir())
    settings.append(f"train.feature_cache_gb={1.5 * taken / 1e9}")  # room for them once
    monkeypatch.setattr(feature_cache, "_computed", lambda *_: pytest.fail("it is known"))
    train(small(*settings, "method=deep_supervision"), tmp_path / "c")
    assert [*cache_folder().iterdir()] == [folder]


@pytest.mark.filterwarnings("ignore:.*tensors are taken from")
def test_a_stopped_run_goes_on_with_the_same_bits(small: Small, old: Path, tmp_path: Path) -> None:
    recipe = small(*PLAIN, f"model.weights={old}", "train.checkpoint_steps=1")
    whole, _ = trained(recipe, tmp_path / "whole")

    def stop(done: int, _all: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "parts", on_step=stop)
    assert trained(recipe, tmp_path / "parts")[0] == whole


@pytest.mark.filterwarnings("ignore:.*tensors are taken from")
@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ([], r"train\.augment\.crop changes inputs"),
        (["method=mixskd"], "'mixskd' mixes inputs"),
        (["train.feature_cache_gb=0.000001"], r"and train\.feature_cache_gb is 1e-06"),
    ],
)
def test_where_nothing_can_be_kept_that_is_said(
    small: Small, old: Path, tmp_path: Path, settings: list[str], why: str
) -> None:
    with pytest.warns(UserWarning, match=f"runs in every step, because its outputs are not kept: .*{why}"):
        train(small(*(FROZEN if "crop" in why else PLAIN), f"model.weights={old}", *settings), tmp_path / "new")


@pytest.mark.parametrize(
    ("method", "why"),
    [("born_again", "other random weights"), ("frskd", "own maps"), ("sfr", "own maps"), ("r_drop", "dropout")],
)
def test_a_method_that_teaches_the_backbone_says_so_before_training(small: Small, method: str, why: str) -> None:
    with pytest.raises(RecipeError, match=f"cannot train on a frozen backbone: .*{why}"):
        check_recipe(small("train.backbone=frozen", f"method={method}", "train.epochs=4"))


def test_random_weights_are_not_frozen(small: Small, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"train\.backbone=frozen freezes the backbone .* random weights"):
        train(small(*PLAIN), tmp_path / "new")
    torch.save({"conv1.weight": torch.zeros(64, 1, 3, 3)}, tmp_path / "w.pt")
    partial = small(*PLAIN, f"model.weights={tmp_path / 'w.pt'}", "model.match=partial", "model.name=cifar:resnet18")
    with pytest.raises(RecipeError, match=r"backbone\.bn1\.weight.* does not fit and is new"):
        train(partial, tmp_path / "new")


def test_a_classifier_of_other_classes_is_trained_on_a_frozen_backbone(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = cifar("resnet8", outputs=(7,), inputs=pictures(1, 16, 16), pretrained=False)
    torch.save(net.state_dict(), tmp_path / "w.pt")
    with pytest.warns(UserWarning, match=r"trained anew: fc\.bias, fc\.weight, heads\.0, heads\.1; left over"):
        _, after = trained(small(*PLAIN, f"model.weights={tmp_path / 'w.pt'}"), tmp_path / "new")
    assert torch.equal(after["backbone.conv1.weight"], net.state_dict()["conv1.weight"])


def test_a_kept_map_lies_in_memory_as_the_backbone_gave_it() -> None:
    given = torch.randn(2, 4, 5, 3, dtype=torch.bfloat16).permute(0, 3, 1, 2)  # channels last, as Swin and ConvNeXt
    assert Form.of(given) == (torch.bfloat16, (0, 2, 3, 1))
    kept = Form.of(given).cast(given.float().contiguous())
    assert torch.equal(kept, given)
    assert (kept.dtype, kept.stride()) == (torch.bfloat16, (60, 1, 15, 3))
    one_cell = torch.empty(2, 3, 1, 1, memory_format=torch.channels_last)  # whose order its shape does not tell
    assert Form.of(one_cell).cast(torch.randn(4, 3, 1, 1)).stride() == (3, 1, 3, 3)


def test_passes_have_as_many_rows_as_steps_and_each_sample_once() -> None:
    plan = Plan(7, 3, padded=True, run=lambda _: ())
    assert [(positions.tolist(), count) for positions, count in plan.passes()] == [
        ([0, 1, 2], 3),
        ([3, 4, 5], 3),
        ([6, 6, 6], 1),
    ]
    assert [len(positions) for positions, _ in Plan(7, 3, padded=False, run=lambda _: ()).passes()] == [3, 3, 1]


def test_the_oldest_features_make_room_and_no_more_than_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(feature_cache, "IN_MEMORY", 0)
    for at, name in enumerate(("old", "newer", "newest")):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "train-0.npy", np.zeros(100, np.float32))  # 528 bytes
        os.utime(tmp_path / name, (at, at))
    assert room_for(500, 2000, tmp_path) is None
    assert {path.name for path in tmp_path.iterdir()} == {"newer", "newest"}
    assert "train.feature_cache_gb is" in (room_for(3000, 2000, tmp_path) or "")
    assert {path.name for path in tmp_path.iterdir()} == {"newer", "newest"}


OWN = """from torch import nn


class Negated(nn.Module):
    def forward(self, images):
        return {0}images


def net(*, outputs, inputs):
    channels = inputs[0].shape[1]
    body = [nn.Conv2d(channels, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(Negated(), *body, nn.Flatten(), nn.Linear(8, outputs[0]))
"""


@pytest.mark.filterwarnings("ignore:.*tensors are taken from", "ignore:exits.count")
def test_other_code_of_the_user_gives_other_features(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "IN_MEMORY", 0)
    monkeypatch.syspath_prepend(tmp_path)
    settings = [*PLAIN, "model.name=own_frozen:net", f"model.weights={tmp_path / 'w.pt'}", "exits.count=1"]
    for at, sign in enumerate(("", "-")):
        (tmp_path / "own_frozen.py").write_text(OWN.format(sign))
        monkeypatch.delitem(sys.modules, "own_frozen", raising=False)
        importlib.invalidate_caches()
        net = importlib.import_module("own_frozen").net(outputs=(10,), inputs=pictures(1, 16, 16))
        if not at:
            torch.save(net.state_dict(), tmp_path / "w.pt")
        train(small(*settings), tmp_path / f"run{at}")
    assert len([*cache_folder().iterdir()]) == 2


LAST = """from torch import nn


class Stage(nn.Module):
    # as ConvNeXt: what it returns is a view whose channels lie last in memory
    def __init__(self, before, after):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(before, after, 3, stride=2, padding=1), nn.LayerNorm(after)

    def forward(self, images):
        return self.norm(self.convolution(images).permute(0, 2, 3, 1)).relu().permute(0, 3, 1, 2)


def net(*, outputs, inputs):
    stages = [Stage(inputs[0].shape[1], 8), Stage(8, 16), nn.Conv2d(16, 16, 3, padding=1)]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, outputs[0]))
"""


@pytest.mark.filterwarnings("ignore:.*tensors are taken from")
def test_heads_on_maps_whose_channels_lie_last_get_the_same_bits(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "channels_last_nets.py").write_text(LAST)
    monkeypatch.syspath_prepend(tmp_path)
    net = importlib.import_module("channels_last_nets").net(outputs=(10,), inputs=pictures(1, 16, 16))
    torch.save(net.state_dict(), tmp_path / "w.pt")
    settings = [*PLAIN, "model.name=channels_last_nets:net", f"model.weights={tmp_path / 'w.pt'}"]
    settings += ["exits.modules=['0','1']", "exits.head=bottleneck"]
    direct, kept = (
        train(small(*settings, f"train.feature_cache_gb={size}"), tmp_path / f"run{size}") for size in (0, 8)
    )
    assert kept.weights_sha256 == direct.weights_sha256


def test_what_a_process_is_filling_stays_and_what_a_killed_one_left_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "IN_MEMORY", 0)
    (tmp_path / ".left.0123abcd.tmp").mkdir()
    with staged_folder(tmp_path / "filling"):
        assert room_for(1, 2000, tmp_path) is None
        (filling,) = tmp_path.iterdir()
        assert filling.name.startswith(".filling.")


def test_two_that_fill_at_once_end_with_the_same_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "IN_MEMORY", 0)
    folder = tmp_path / "key"

    def run(positions: Positions) -> tuple[torch.Tensor]:
        values = (torch.from_numpy(positions).float()[:, None],)
        if not folder.exists():  # the other one, while this one computes
            fill({"train": Plan(3, 3, padded=False, run=lambda _: values)}, ((1,),), folder)
        return values

    features = fill({"train": Plan(3, 3, padded=False, run=run)}, ((1,),), folder)
    assert features["train"].features[0].tolist() == [[0], [1], [2]]
    assert [*tmp_path.iterdir()] == [folder]


def test_nothing_is_said_of_the_bits_where_they_agree(small: Small, old: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*tensors are taken from")
        train(small(*PLAIN, f"model.weights={old}"), tmp_path / "new")
