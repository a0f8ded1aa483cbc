"""What a training takes over from another one, and what it says of it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from networks import pictures

from sdcompress.checkpoint import open_checkpoint
from sdcompress.errors import OutputExistsError, RecipeError, SetupError, WeightsError
from sdcompress.methods._base import Needs
from sdcompress.models.build import build
from sdcompress.schema.recipe import Model, Recipe
from sdcompress.storage import digest_of
from sdcompress.training.check_recipe import check_network, check_recipe
from sdcompress.training.run import train
from sdcompress.training.warm_start import load_start

Small = Callable[..., Recipe]


def frozen(recipe: Recipe, out: Path) -> dict[str, torch.Tensor]:
    """The weights after a training that learns nothing."""
    return train(recipe, out).network().state_dict()


STILL = ["train.optimizer.lr=1e-30", "train.optimizer.weight_decay=0", "train.epochs=1"]


def test_the_backbone_is_taken_over_by_another_method_and_its_heads_start_anew(small: Small, tmp_path: Path) -> None:
    old = train(small("method=baseline", "train.epochs=1"), tmp_path / "old")
    with pytest.warns(UserWarning, match=r"trained anew: heads\.0, heads\.1"):
        new = frozen(small("method=byot", f"model.weights={tmp_path / 'old'}", *STILL), tmp_path / "new")
    parameters = dict(old.network().named_parameters())
    assert all(torch.equal(new[name], value) for name, value in parameters.items())


def test_heads_are_taken_over_where_they_stand_at_the_same_places(small: Small, tmp_path: Path) -> None:
    old = train(small("method=byot", "train.epochs=1"), tmp_path / "old")
    with pytest.warns(UserWarning, match="taken from .*; trained anew: nothing"):
        new = frozen(small("method=eed", f"model.weights={tmp_path / 'old'}", *STILL), tmp_path / "new")
    assert all(torch.equal(new[name], value) for name, value in old.network().named_parameters())
    with pytest.warns(UserWarning, match="trained anew: heads"):
        train(small("method=eed", f"model.weights={tmp_path / 'old'}", "exits.count=1", *STILL), tmp_path / "other")


def test_a_resumed_run_does_not_start_again(small: Small, tmp_path: Path) -> None:
    train(small("method=baseline", "train.epochs=1"), tmp_path / "old")
    recipe = small("method=baseline", f"model.weights={tmp_path / 'old'}", "train.checkpoint_steps=2")
    whole = train(recipe, tmp_path / "whole")

    def stop(done: int, _all: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "parts", on_step=stop)
    assert train(recipe, tmp_path / "parts").weights_sha256 == whole.weights_sha256


def test_a_run_goes_on_without_what_it_started_from_and_says_nothing_twice(small: Small, tmp_path: Path) -> None:
    train(small("method=baseline", "train.epochs=1"), tmp_path / "old")
    recipe = small("method=byot", f"model.weights={tmp_path / 'old'}")

    def stop(done: int, _all: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="trained anew: heads"), pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "new", on_step=stop)
    (tmp_path / "old").rename(tmp_path / "moved")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved = small("method=byot", f"model.weights={tmp_path / 'moved'}")
        assert train(moved, tmp_path / "new").state.finished


def test_a_finished_run_is_not_given_for_one_that_starts_from_other_weights(small: Small, tmp_path: Path) -> None:
    for seed in (1, 2):
        train(small("method=baseline", "train.epochs=1", f"seed={seed}"), tmp_path / str(seed))
    settings = ("method=baseline", "train.epochs=1")
    train(small(*settings), tmp_path / "new")
    with pytest.raises(OutputExistsError, match=r"the weights that it started from: random ones -> those in .*1"):
        train(small(*settings, f"model.weights={tmp_path / '1'}"), tmp_path / "new")
    begun = train(small(*settings, f"model.weights={tmp_path / '1'}"), tmp_path / "new", overwrite=True)
    with pytest.raises(OutputExistsError, match=r"those that .*1 had -> those in .*2"):
        train(small(*settings, f"model.weights={tmp_path / '2'}"), tmp_path / "new")
    with pytest.raises(OutputExistsError, match=r"those that .*1 had -> random ones"):
        train(small(*settings), tmp_path / "new")
    again = train(small(*settings, f"model.weights={tmp_path / '1'}"), tmp_path / "new")
    assert again.weights_sha256 == begun.weights_sha256


def test_a_start_that_is_not_there_is_refused_before_anything_is_written(small: Small, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="There are no weights"):
        train(small(f"model.weights={tmp_path / 'nowhere'}"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_the_user_froze_stays_frozen(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half.py").write_text(
        "from sdcompress.models.backbones.cifar import cifar\n"
        "def frozen(outputs, inputs):\n"
        "    net = cifar('resnet8', outputs=outputs, inputs=inputs, pretrained=False)\n"
        "    net.conv1.requires_grad_(False)\n"
        "    return net\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe = small("model.name=half:frozen", "method=fastbert", "exits.head=bottleneck")
    first = build(recipe.model, recipe.exits, outputs=(10,), inputs=pictures(1, 16, 16)).backbone
    torch.manual_seed(recipe.seed)
    start = build(recipe.model, recipe.exits, outputs=(10,), inputs=pictures(1, 16, 16)).backbone.conv1.weight
    assert not first.conv1.weight.requires_grad
    trained = train(recipe, tmp_path / "run").network().backbone
    assert torch.equal(trained.conv1.weight, start)
    assert not torch.equal(trained.layer1[0].path[0].weight, first.layer1[0].path[0].weight)


def test_another_backbone_says_what_both_are(small: Small, tmp_path: Path) -> None:
    train(small("method=baseline", "train.epochs=1"), tmp_path / "old")
    with pytest.raises(RecipeError, match=r"'cifar:resnet8'.*'cifar:wrn_10_1'") as caught:
        train(small("model.name=cifar:wrn_10_1", f"model.weights={tmp_path / 'old'}"), tmp_path / "new")
    assert "method, exits, data and schedule may differ" in caught.value.allowed


def test_a_run_of_another_method_names_what_can_be_taken_over(small: Small, tmp_path: Path) -> None:
    train(small("method=baseline", "train.epochs=1"), tmp_path)
    with pytest.raises(OutputExistsError, match=r"method\.name: 'baseline' -> 'byot'") as caught:
        train(small("method=byot", "train.epochs=1"), tmp_path)
    assert "model.weights" in caught.value.next_step


def test_going_on_with_another_torch_says_that_bits_may_differ(small: Small, tmp_path: Path) -> None:
    def stop(done: int, _all: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small(), tmp_path, on_step=stop)
    state = open_checkpoint(tmp_path).path / "state.json"
    fields = json.loads(state.read_text())
    fields["versions"]["torch"] = "1.0"
    del fields["digest"]
    state.write_text(json.dumps({**fields, "digest": digest_of(fields)}))
    with pytest.warns(UserWarning, match=r"torch 1\.0 -> "):
        assert train(small(), tmp_path).state.finished


OTHER_DATA = "0" * 64  # a fingerprint
FROZEN = ["method=fastbert", "method.backbone_share=0"]


def test_a_backbone_that_nothing_has_trained_is_not_frozen(small: Small, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="random weights: the exits would learn random answers") as caught:
        train(small(*FROZEN), tmp_path / "new")
    assert "model.weights" in caught.value.next_step
    assert not (tmp_path / "new").exists()
    with pytest.raises(RecipeError, match="random weights"):
        train(small("method=fastbert+ps_kd", "method.backbone_share=0"), tmp_path / "new")


@pytest.mark.usefixtures("nets")
def test_a_network_of_ones_own_may_load_its_weights_itself(small: Small) -> None:
    with pytest.warns(UserWarning, match="If 'nets:plain' does not load trained weights itself"):
        check_recipe(small(*FROZEN, "model.name=nets:plain"))


def test_a_trained_start_may_be_frozen_but_not_with_a_classifier_of_other_classes(small: Small, tmp_path: Path) -> None:
    train(small("method=baseline", "train.epochs=1"), tmp_path / "old")
    recipe = small(*FROZEN, f"model.weights={tmp_path / 'old'}", "train.epochs=1")
    with pytest.warns(UserWarning, match="trained anew: heads"):
        train(recipe, tmp_path / "new")
    net = build(recipe.model, recipe.exits, outputs=(7,), inputs=pictures(1, 16, 16))
    with pytest.raises(RecipeError, match=r"backbone\.fc\.weight, backbone\.fc\.bias of .*old.* is new"):
        load_start(net, recipe, tuple("abcdefg"), OTHER_DATA)
    same = build(recipe.model, recipe.exits, outputs=(10,), inputs=pictures(1, 16, 16))
    swapped = ("1", "0", *"23456789")
    with pytest.raises(RecipeError, match=r"output 0 of the classifier in .* stands for '0', and in the data for '1'"):
        load_start(same, recipe, swapped, OTHER_DATA)
    tuned = small("method=fastbert", "method.backbone_share=0.5", f"model.weights={tmp_path / 'old'}")
    with pytest.warns(UserWarning, match="trained anew: heads"):
        load_start(same, tuned, swapped, OTHER_DATA)  # its classifier learns


@pytest.mark.parametrize(
    ("settings", "learnt"),
    [
        (["seed=0", "data.validation=0.2"], False),
        (["seed=0", "data.validation=0.1"], False),  # the first half of the samples that were held out
        (["seed=0", "data.validation=0.3"], True),
        (["seed=1", "data.validation=0.2"], True),
        (["seed=1", "data.validation=0"], False),
    ],
)
def test_a_start_that_may_have_learnt_the_validation_samples_is_named(
    small: Small, tmp_path: Path, settings: list[str], *, learnt: bool
) -> None:
    source = train(small("method=baseline", "train.epochs=1", "seed=0", "data.validation=0.2"), tmp_path / "old")
    recipe = small("method=baseline", f"model.weights={tmp_path / 'old'}", *settings)
    net = build(recipe.model, recipe.exits, outputs=(10,), inputs=pictures(1, 16, 16))
    for fingerprint, warned in ((OTHER_DATA, learnt), (source.data_fingerprint, False)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            load_start(net, recipe, source.state.outputs, fingerprint)
        said = [str(one.message) for one in caught if "may have learnt the validation samples" in str(one.message)]
        assert len(said) == warned
        assert all("--set seed=0 --set data.validation=0.2." in one for one in said)


@pytest.mark.parametrize(("classes", "fits"), [(1000, True), (7, False)])
def test_published_weights_may_be_frozen_where_their_classifier_is_kept(
    small: Small, classes: int, *, fits: bool
) -> None:
    recipe = small(*FROZEN, "model.name=timm:resnet18", "model.pretrained=true")
    check_recipe(recipe)
    net = build(Model(name="timm:resnet18"), recipe.exits, outputs=(classes,), inputs=pictures(1, 32, 32))
    if fits:
        check_network(Needs(), net, recipe)
        return
    with pytest.raises(RecipeError, match="are for 1000 outputs, so that its classifier is new"):
        check_network(Needs(), net, recipe)


def test_a_file_of_weights_starts_a_training_and_is_recorded(small: Small, tmp_path: Path) -> None:
    done = train(small("method=baseline", "train.epochs=1"), tmp_path / "old")
    file = done.path / "weights.safetensors"
    with pytest.warns(UserWarning, match=r"without 'backbone\.' of its names; trained anew: heads\.0, heads\.1"):
        new = train(small("method=byot", f"model.weights={file}", *STILL), tmp_path / "new")
    parameters = dict(done.network().named_parameters())
    assert all(torch.equal(new.network().state_dict()[name], value) for name, value in parameters.items())
    loaded = new.state.loaded
    assert loaded is not None
    assert (loaded.file, loaded.sha256, loaded.stripped) == (str(file), done.weights_sha256, ("backbone.", ""))
    assert loaded.left == ()


def test_a_weights_file_that_is_broken_or_of_another_network_leaves_nothing_behind(
    small: Small, tmp_path: Path
) -> None:
    (tmp_path / "w.pt").write_bytes(b"")
    with pytest.raises(WeightsError, match="is no whole file"):
        train(small(f"model.weights={tmp_path / 'w.pt'}"), tmp_path / "new")
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(RecipeError, match=r"does not fit 'cifar:resnet8': 0 of its"):
        train(small(f"model.weights={tmp_path / 'w.pt'}"), tmp_path / "new")
    assert not (tmp_path / "new" / "steps").exists()
    assert not (tmp_path / "new" / "recipe.yaml").exists()


def test_weights_are_of_one_origin(small: Small) -> None:
    with pytest.raises(RecipeError, match="choose one"):
        small("model.pretrained=true", "model.weights=w.pt")
    with pytest.raises(RecipeError, match="match needs weights"):
        small("model.match=order")
