"""What a method needs and a network or a recipe does not give."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from networks import pictures

from sdcompress import methods
from sdcompress.checkpoint import open_checkpoint
from sdcompress.errors import OutputExistsError, RecipeError
from sdcompress.methods._base import Needs
from sdcompress.modalities._image_settings import ImageAugmentation
from sdcompress.models.build import build
from sdcompress.models.cost import tap_shares
from sdcompress.objectives.batch import View
from sdcompress.schema import graphs, recipe
from sdcompress.training.check_recipe import check_augmentation, check_network, check_recipe, warn_of_places
from sdcompress.training.run import train

Small = Callable[..., recipe.Recipe]


def test_r_drop_without_dropout_names_the_options(small: Small, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="has none") as caught:
        train(small("method=r_drop"), tmp_path)
    assert "dropout" in caught.value.next_step
    assert not (tmp_path / "steps").exists()


class Kind(SimpleNamespace):
    """A modality of some inputs with the augmentation of images."""

    def __init__(self, tensors: tuple[graphs.Tensor, ...]) -> None:
        super().__init__(tensors=tensors)

    @staticmethod
    def augmentation_settings(settings: recipe.Augmentation) -> ImageAugmentation:
        return ImageAugmentation(**settings.parameters)


def of_kind(targets: tuple[int, ...], dtype: str) -> SimpleNamespace:
    """What a check reads of a data set with targets of this shape and inputs of this type."""
    tensors = (graphs.Tensor(name="inputs", dtype=dtype, shape=("batch", 4)),)
    train = SimpleNamespace(targets=np.zeros(targets, np.int64))
    return SimpleNamespace(train=train, modality=Kind(tensors), task=SimpleNamespace(target_fill=None))


def augmented(small: Small, **changed: object) -> recipe.Recipe:
    plain = {"crop": 0, "flip": False, "cutout": 0, "mixup": 0, "auto_augment": "none"}
    return small(*(f"train.augment.{name}={str(value).lower()}" for name, value in {**plain, **changed}.items()))


@pytest.mark.parametrize(
    ("changed", "mixed", "targets", "dtype", "problem"),
    [
        ({"flip": True}, 0.0, (5, 4, 4), "float32", "augment.flip changes inputs alone"),
        ({"auto_augment": "rand"}, 0.0, (5, 4, 4), "float32", "augment.auto_augment changes inputs alone"),
        ({"mixup": 0.2}, 0.0, (5, 4, 4), "float32", None),
        ({"flip": True}, 0.0, (5, 4), "float32", None),
        ({"mixup": 0.2}, 0.0, (5,), "int64", "mixup is 0.2, and the input 'inputs' is of integers"),
        ({}, 0.2, (5,), "int64", "mixes inputs"),
        ({}, 0.0, (5,), "int64", None),
    ],
)
def test_augmentation_that_targets_or_inputs_cannot_follow_is_refused(
    small: Small, changed: dict[str, object], *, mixed: float, targets: tuple[int, ...], dtype: str, problem: str | None
) -> None:
    dataset, needs = of_kind(targets, dtype), Needs(view=View(mixed=mixed))
    if problem is None:
        check_augmentation(augmented(small, **changed), needs, dataset)
        return
    with pytest.raises(RecipeError, match=problem) as caught:
        check_augmentation(augmented(small, **changed), needs, dataset)
    advice = [f"--set train.augment.{name}=" for name in changed] or ["another method"]
    assert advice[0] in caught.value.next_step


@pytest.mark.parametrize("method", ["ddgsd", "dlb"])
@pytest.mark.parametrize(
    ("moved", "off"), [({"flip": True}, "false"), ({"crop": 2}, "0"), ({"resized_crop": 0.5}, "0.0")]
)
def test_views_that_are_moved_apart_are_not_compared_place_by_place(
    small: Small, method: str, moved: dict[str, object], off: str
) -> None:
    asked, needs = augmented(small, **moved), methods.build(recipe.MethodSection(name=method)).needs
    masks = of_kind((5, 4, 4), "float32")
    masks.task.target_fill = 255
    with pytest.raises(RecipeError, match="place by place") as caught:
        check_augmentation(asked, needs, masks)
    assert f"--set train.augment.{next(iter(moved))}={off}, " in caught.value.next_step
    check_augmentation(asked, needs, of_kind((5,), "float32"))  # one target a sample has no place
    for view in (None, View(augmented=False)):
        check_augmentation(asked, Needs(view=view), masks)
    check_augmentation(augmented(small, cutout=2), needs, masks)  # it moves nothing


NETS = """
from torch import nn
from torchvision.ops import StochasticDepth

class Net(nn.Module):
    def __init__(self, classes, channels, part):
        super().__init__()
        self.part = part  # not called: what it is decides
        self.classify = nn.Linear(channels, classes)

    def forward(self, images):
        return self.classify(images.mean((2, 3)))

def stochastic_depth(outputs, inputs):
    return Net(outputs[0], inputs[0].shape[1], StochasticDepth(0.1, "row"))

def attention(outputs, inputs):
    return Net(outputs[0], inputs[0].shape[1], nn.MultiheadAttention(4, 2, dropout=0.1))
"""


@pytest.mark.parametrize(
    ("name", "options", "drops"),
    [
        ("cifar:resnet8", {"dropout": 0.1}, True),
        ("cifar:vgg11_bn", {"dropout": 0.1}, True),
        ("cifar:wrn_10_1", {"dropout": 0.1}, True),
        ("cifar:wrn_10_1", {}, False),
        ("timm:resnet18", {"drop_path_rate": 0.1}, True),
        ("needs_nets:stochastic_depth", {}, True),
        ("needs_nets:attention", {}, True),
        ("timm:resnet18", {}, False),
    ],
)
def test_dropout_and_stochastic_depth_are_found(
    name: str, options: dict[str, float], drops: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    model = recipe.Model(name=name, options=options)
    net = build(model, recipe.Exits(), outputs=(3,), inputs=pictures(3, 32, 32), heads=False)
    asked = recipe.Recipe(model=model, method=recipe.MethodSection(name="r_drop"))
    if drops:
        check_network(Needs(dropout=True), net, asked)
        return
    with pytest.raises(RecipeError, match="has none"):
        check_network(Needs(dropout=True), net, asked)


@pytest.mark.parametrize("method", ["ps_kd", "dlb", "cs_kd", "ema_teacher", "mixskd", "eed+ps_kd"])
def test_mixed_images_are_refused_where_single_ones_are_compared(small: Small, tmp_path: Path, method: str) -> None:
    with pytest.raises(RecipeError, match="cannot be mixed"):
        train(small(f"method={method}", "train.augment.mixup=0.2"), tmp_path)


@pytest.mark.parametrize("method", ["ps_kd", "eed+tf_kd"])
def test_a_method_that_needs_classes_is_refused_for_another_task(small: Small, method: str) -> None:
    asked = small(f"method={method}")
    other = asked.model_copy(update={"task": asked.task.model_copy(update={"name": "tags"})})
    with pytest.raises(RecipeError, match="cannot serve the task 'tags', but classification") as caught:
        check_recipe(other)
    assert "byot" in caught.value.allowed
    assert "ps_kd" not in caught.value.allowed
    check_recipe(other.model_copy(update={"method": recipe.MethodSection(name="byot")}))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["train.epochs=2", "train.schedule.warmup_epochs=2"],
            r"the training has 2: the rate only rises\. .*epochs=0\.2",
        ),
        (
            ["train.epochs=2", "train.schedule.warmup_epochs=2.5"],
            r"only rises, and does not get to train\.optimizer\.lr",
        ),
        (
            ["method=born_again", "train.epochs=7", "train.schedule.warmup_epochs=2"],
            "the shortest phase of the method has 2",
        ),
        (["method=born_again", "train.epochs=7", "train.schedule.warmup_epochs=1.9"], None),
    ],
)
def test_a_warm_up_that_leaves_no_time_for_the_schedule_is_said(
    small: Small, settings: list[str], said: str | None
) -> None:
    if said is not None:
        with pytest.warns(UserWarning, match=said):
            check_recipe(small(*settings))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_recipe(small(*settings))


def test_a_pyramid_over_tokens_is_refused(small: Small, tmp_path: Path) -> None:
    tiny = "{img_size: 16, patch_size: 4, embed_dim: 12, depth: 4, num_heads: 2}"
    settings = ["model.name=timm:vit_tiny_patch16_224", f"model.options={tiny}", "method=frskd"]
    with pytest.raises(RecipeError, match="tokens"):
        train(small(*settings), tmp_path)


OWN = """
from dataclasses import dataclass
import torch.nn.functional as F
from sdcompress.methods._base import Method

__all__ = ["Mine"]

@dataclass(frozen=True, kw_only=True)
class Mine(Method):
    def __call__(self, outputs, batch, state):
        return {"mine": SIGN sum(F.cross_entropy(z, batch.samples.targets) for z in outputs.logits)}
"""


def test_a_method_of_ones_own_trains_and_a_changed_or_moved_file_is_told_apart(small: Small, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN.replace("SIGN", "+"))

    def stop(done: int, _all: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    def own(where: Path) -> recipe.Recipe:
        return small("method=mine", f"method.file={where}")

    with pytest.raises(KeyboardInterrupt):
        train(own(file), tmp_path / "run", on_step=stop)
    file.write_text(OWN.replace("SIGN", "-"))
    with pytest.raises(OutputExistsError, match=r"the text of method\.file"):
        train(own(file), tmp_path / "run")
    moved = tmp_path / "elsewhere.py"
    moved.write_text(OWN.replace("SIGN", "+"))
    done = train(own(moved), tmp_path / "run")
    assert done.state.finished
    moved.unlink()
    assert open_checkpoint(tmp_path / "run").network().exit_names == ("exit1", "exit2", "final")


def test_a_refused_recipe_leaves_no_folder(small: Small, tmp_path: Path) -> None:
    for settings in (["train.accumulate=7"], ["method=born_again"]):
        with pytest.raises(RecipeError):
            train(small(*settings), tmp_path / "run")
        assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match="has none"):
        train(small("method=r_drop"), tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.yaml").exists()


BRANCHES = """
from torch import nn

class Branches(nn.Module):
    # two wide branches side by side, so that it can be cut only at the narrow stem
    def __init__(self, outputs, inputs, width=16):
        super().__init__()
        self.stem = nn.Conv2d(inputs[0].shape[1], 4, 3, padding=1)
        self.left, self.right = (nn.Conv2d(4, width, 3, padding=1) for _ in range(2))
        self.fc = nn.Linear(width, outputs[0])

    def forward(self, x):
        x = self.stem(x)
        return self.fc((self.left(x) * self.right(x)).mean((2, 3)))
"""


def test_exits_far_from_their_even_places_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "branches.py").write_text(BRANCHES)
    monkeypatch.syspath_prepend(tmp_path)
    asked = recipe.Recipe(model=recipe.Model(name="branches:Branches"), exits=recipe.Exits(count=1))
    image = (1, 16, 16)
    net = build(asked.model, asked.exits, outputs=(10,), inputs=pictures(*image))
    # MACs of a pixel: 9 x 1 x 4 in the stem, 2 x 9 x 4 x 16 in the branches, and 160 of all 256 pixels
    assert tap_shares(net, pictures(*image))[0] == pytest.approx(36 / (36 + 1152 + 160 / 256), rel=1e-3)
    with pytest.warns(UserWarning, match=r"exits\.count=1 .* stem at 3%"):
        warn_of_places(net, asked, pictures(*image))
    named = asked.model_copy(update={"exits": recipe.Exits(modules=("stem",))})
    even = recipe.Recipe(exits=recipe.Exits(count=2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_places(net, named, pictures(*image))
        warn_of_places(build(even.model, even.exits, outputs=(10,), inputs=pictures(*image)), even, pictures(*image))


def test_a_network_of_ones_own_that_ends_in_a_softmax_is_refused(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "soft.py").write_text(
        "from torch import nn\n"
        "from sdcompress.models.backbones.cifar import cifar\n"
        "def logits(outputs, inputs):\n"
        "    return cifar('resnet8', outputs=outputs, inputs=inputs, pretrained=False)\n"
        "def shares(outputs, inputs):\n"
        "    return nn.Sequential(logits(outputs, inputs), nn.Softmax(1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecipeError, match="'soft:shares' returns probabilities"):
        train(small("model.name=soft:shares", "train.epochs=1"), tmp_path / "run")
    assert train(small("model.name=soft:logits", "train.epochs=1"), tmp_path / "other").state.finished
