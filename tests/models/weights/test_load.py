"""Weights of files and folders in a network: what is taken, what is refused, and that no code runs."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import pictures
from safetensors.torch import save_file
from torch import Tensor

from sdcompress.errors import RecipeError, SetupError, WeightsError
from sdcompress.models.build import build
from sdcompress.models.multiexit import MultiExit
from sdcompress.models.weights.load import describe, load_weights
from sdcompress.models.weights.preparation import preparation_beside
from sdcompress.schema.recipe import Exits, Model

EXITS = Exits(head="linear")


def network(classes: int = 10, name: str = "cifar:resnet8") -> MultiExit:
    return build(Model(name=name), EXITS, outputs=(classes,), inputs=pictures(3, 16, 16))


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return network().backbone.state_dict()


def taken(net: MultiExit, tensors: dict[str, Tensor]) -> bool:
    here = net.backbone.state_dict()
    return all(torch.equal(here[name], value) for name, value in tensors.items() if not name.startswith("fc."))


Change = Callable[[dict[str, Tensor]], Any]


@pytest.mark.parametrize(
    ("change", "dictionary", "stripped"),
    [
        (lambda t: t, "", ""),
        (lambda t: {f"module.{name}": value for name, value in t.items()}, "", "module."),
        (lambda t: {f"model.backbone.{name}": value for name, value in t.items()}, "", "model.backbone."),
        (
            lambda t: {"state_dict": {f"module.{name}": value for name, value in t.items()}, "epoch": 3},
            "state_dict",
            "module.",
        ),
        (lambda t: {"model": {name: value + 1 for name, value in t.items()}, "ema": t, "args": {"lr": 0.1}}, "ema", ""),
        (lambda t: {"optimizer": {"state": {0: {"m": torch.zeros(3)}}}, "model": {"net": t}}, "model.net", ""),
    ],
)
def test_names_are_found_in_whatever_holds_them(
    tmp_path: Path, tensors: dict[str, Tensor], change: Change, dictionary: str, stripped: str
) -> None:
    torch.save(change(tensors), tmp_path / "w.pt")
    net = network()
    loaded = load_weights(net, str(tmp_path / "w.pt"), "name", "cifar:resnet8")
    assert taken(net, tensors)
    assert (loaded.dictionary, loaded.stripped) == (dictionary, (stripped, ""))
    assert (loaded.taken, loaded.left) == (len(tensors), ())
    assert all(name.startswith("heads.") for name in loaded.anew)


def test_a_classifier_of_another_size_starts_anew_and_is_said(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    save_file({name: value.clone() for name, value in tensors.items()}, tmp_path / "w.safetensors")
    torch.manual_seed(2)
    net = network(7)
    before = net.backbone.fc.weight.clone()
    loaded = load_weights(net, str(tmp_path / "w.safetensors"), "name", "cifar:resnet8")
    assert taken(net, tensors)
    assert torch.equal(net.backbone.fc.weight, before)
    assert {"backbone.fc.weight", "backbone.fc.bias"} <= set(loaded.anew)
    assert set(loaded.left) == {"fc.weight", "fc.bias"}
    assert f"{len(tensors) - 2} tensors are taken from" in describe(loaded)
    assert "left over in the file: fc.bias, fc.weight" in describe(loaded)


def test_other_names_in_the_same_order_are_taken_where_that_is_asked_for(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    floats = {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    torch.save({f"_{at}": value for at, value in enumerate(floats.values())}, tmp_path / "w.pth")
    net = network(7)
    with pytest.raises(RecipeError, match=rf"0 of its {len(tensors)} tensors are in the file"):
        load_weights(net, str(tmp_path / "w.pth"), "name", "cifar:resnet8")
    loaded = load_weights(net, str(tmp_path / "w.pth"), "order", "cifar:resnet8")
    assert taken(net, floats)
    assert loaded.left == (f"_{len(floats) - 2}", f"_{len(floats) - 1}")
    save_file({f"_{at}": value for at, value in enumerate(floats.values())}, tmp_path / "w.safetensors")
    with pytest.raises(RecipeError, match="safetensors, which keeps no order"):  # it sorts by name
        load_weights(net, str(tmp_path / "w.safetensors"), "order", "cifar:resnet8")


def test_weights_of_another_network_are_refused_with_the_counts(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    torch.save(tensors, tmp_path / "w.pt")
    other = network(name="cifar:resnet18")
    before = {name: value.clone() for name, value in other.backbone.state_dict().items()}
    with pytest.raises(RecipeError) as caught:
        load_weights(other, str(tmp_path / "w.pt"), "name", "cifar:resnet18")
    fits = sum(name in tensors and tensors[name].shape == value.shape for name, value in before.items())
    assert f"{fits} of its {len(before)} tensors" in caught.value.problem
    assert f"{len(tensors) - fits} of the file's {len(tensors)} are left over" in caught.value.problem
    assert "model.match=partial" in caught.value.next_step
    assert all(torch.equal(before[name], value) for name, value in other.backbone.state_dict().items())
    with pytest.raises(RecipeError, match=r"by order: it has .* tensors without counters, the network"):
        load_weights(other, str(tmp_path / "w.pt"), "order", "cifar:resnet18")
    assert load_weights(other, str(tmp_path / "w.pt"), "partial", "cifar:resnet18").taken == fits


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(pickle.dumps({"a": _Code()})), "would run code"),
        (lambda path: torch.save({"a": torch.zeros(1), "args": _Code()}, path), "would run code"),
        (lambda path: torch.save(torch.nn.Linear(1, 1), path), "would run code"),
        (lambda path: path.write_bytes(b"version https://git-lfs"), "is no whole file of weights: .*Git LFS"),
        (lambda path: path.write_bytes(b""), "is no whole file of weights: it is empty"),
        (lambda path: torch.save([torch.zeros(1)], path), "holds no tensors by name"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_file_of_tensors_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(network(), str(tmp_path / "w.pt"), "name", "cifar:resnet8")
    assert caught.value.next_step
    assert not (tmp_path / "ran").exists()


def test_a_cut_safetensors_file_is_refused(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-100])
    with pytest.raises(WeightsError, match="is no whole file of weights"):
        load_weights(network(), str(tmp_path / "w.safetensors"), "name", "cifar:resnet8")


def test_a_folder_of_the_hub_is_read_in_one_file_or_several(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    one, several, cache = tmp_path / "one", tmp_path / "several", tmp_path / "models--a--b"
    for folder in (one, several, cache / "snapshots" / "abc", cache / "snapshots" / "old", cache / "refs"):
        folder.mkdir(parents=True)
    save_file(tensors, one / "model.safetensors")
    save_file(tensors, cache / "snapshots" / "abc" / "model.safetensors")
    (cache / "refs" / "main").write_text("abc")
    parts = {name: f"model-{at % 2}.safetensors" for at, name in enumerate(tensors)}
    for file in set(parts.values()):
        save_file({name: tensors[name] for name in tensors if parts[name] == file}, several / file)
    (several / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    for folder in (one, several, cache):
        net = network()
        assert load_weights(net, str(folder), "name", "cifar:resnet8").taken == len(tensors)
        assert taken(net, tensors)
    (several / "model-1.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"names model-1\.safetensors, which cannot be read"):
        load_weights(network(), str(several), "name", "cifar:resnet8")
    (several / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../w.pt"}}))
    with pytest.raises(WeightsError, match="which cannot be read"):
        load_weights(network(), str(several), "name", "cifar:resnet8")


def test_what_is_not_there_says_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="nothing is downloaded") as caught:
        load_weights(network(), str(tmp_path / "w.pt"), "name", "cifar:resnet8")
    assert str(tmp_path / "w.pt") in caught.value.next_step
    with pytest.raises(WeightsError, match="holds 0 files of weights") as refused:
        load_weights(network(), str(tmp_path), "name", "cifar:resnet8")
    assert refused.value.next_step == f"put model.safetensors into {tmp_path}"


def test_the_preparation_stands_beside_the_weights(tmp_path: Path) -> None:
    assert preparation_beside(tmp_path) == {}
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(
            {"image_mean": [0.5] * 3, "image_std": [0.2] * 3, "resample": 3, "do_center_crop": True}
            | {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
        )
    )
    expected = {"mean": [0.5] * 3, "std": [0.2] * 3, "crop_pct": 224 / 256, "interpolation": "bicubic"}
    assert preparation_beside(tmp_path) == expected
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "resample": [3]}))
    assert preparation_beside(tmp_path) == {"mean": [0.5] * 3}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": [0.1] * 3, "crop_pct": 0.9}}))
    assert preparation_beside(tmp_path) == {"mean": [0.1] * 3, "crop_pct": 0.9}
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(WeightsError, match="holds no JSON object"):
        preparation_beside(tmp_path)
