"""What a method needs and a network or a recipe does not give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sdcompress.errors import RecipeError
from sdcompress.methods._base import Needs
from sdcompress.models.build import build
from sdcompress.schema import recipe
from sdcompress.training.needs import check_network
from sdcompress.training.run import train

Small = Callable[..., recipe.Recipe]


def test_r_drop_without_dropout_names_the_options(small: Small, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="has none") as caught:
        train(small("method=r_drop"), tmp_path)
    assert "dropout" in caught.value.next_step
    assert not (tmp_path / "steps").exists()


@pytest.mark.parametrize(
    ("name", "options", "drops"),
    [
        ("cifar:resnet8", {"dropout": 0.1}, True),
        ("cifar:vgg11_bn", {"dropout": 0.1}, True),
        ("cifar:wrn_10_1", {"dropout": 0.1}, True),
        ("cifar:wrn_10_1", {}, False),
        ("timm:resnet18", {"drop_path_rate": 0.1}, True),
        ("timm:resnet18", {}, False),
    ],
)
def test_dropout_and_stochastic_depth_are_found(name: str, options: dict[str, float], drops: bool) -> None:
    model = recipe.Model(name=name, options=options)
    net = build(model, recipe.Exits(), classes=3, image=(3, 32, 32), heads=False)
    asked = recipe.Recipe(model=model, method=recipe.Method(name="r_drop"))
    if drops:
        check_network(Needs(dropout=True), net, asked)
        return
    with pytest.raises(RecipeError, match="has none"):
        check_network(Needs(dropout=True), net, asked)


@pytest.mark.parametrize("method", ["ps_kd", "dlb", "cs_kd", "ema_teacher", "mixskd", "eed+ps_kd"])
def test_mixed_images_are_refused_where_single_ones_are_compared(small: Small, tmp_path: Path, method: str) -> None:
    with pytest.raises(RecipeError, match="cannot be mixed"):
        train(small(f"method={method}", "train.augment.mixup=0.2"), tmp_path)


def test_a_pyramid_over_tokens_is_refused(small: Small, tmp_path: Path) -> None:
    tiny = "{img_size: 16, patch_size: 4, embed_dim: 12, depth: 4, num_heads: 2}"
    settings = ["model.name=timm:vit_tiny_patch16_224", f"model.options={tiny}", "method=frskd"]
    with pytest.raises(RecipeError, match="tokens"):
        train(small(*settings), tmp_path)
