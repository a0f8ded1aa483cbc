from __future__ import annotations

import sys

import pytest
import torch
from networks import pictures
from torch import nn

from sdcompress import registry
from sdcompress.errors import RecipeError, UnknownNameError, UsageError
from sdcompress.models import backbones, heads
from sdcompress.models.backbones.torchvision_segmentation import torchvision_segmentation
from sdcompress.models.build import build
from sdcompress.schema import recipe
from sdcompress.schema.graphs import Tensor
from sdcompress.schema.recipe import Exits, Model

IMAGE = (3, 16, 16)
VIT = {"depth": 4, "embed_dim": 24, "num_heads": 2}
SWIN = {"depths": (1, 1, 2, 1), "embed_dim": 12, "num_heads": (1, 1, 2, 2)}
COSINE = """
class Cosine(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(5, 768))
    def forward(self, x):
        return x.flatten(1) @ self.w.T
def make(outputs, inputs):
    return Cosine()
"""


def network(name: str = "cifar:resnet8", image=IMAGE, heads=True, options=None, classes=5, **exits):
    model = recipe.Model(name=name, options=options or {})
    return build(model, recipe.Exits(**{"count": 2, **exits}), outputs=(classes,), inputs=pictures(*image), heads=heads)


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    def write(code: str) -> None:
        (tmp_path / "my_nets.py").write_text("import torch\nfrom torch import nn\n" + code)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "my_nets", raising=False)

    yield write
    sys.modules.pop("my_nets", None)


def test_heads_do_not_change_the_backbones_first_weights():
    weights = []
    for with_heads in (True, False, True):
        torch.manual_seed(7)
        weights.append(network(heads=with_heads).backbone.state_dict())
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    torch.manual_seed(8)
    assert not torch.equal(weights[0]["conv1.weight"], network().backbone.conv1.weight)


def test_the_same_seed_gives_the_same_network():
    torch.manual_seed(7)
    first = network()
    torch.manual_seed(7)
    second = network()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_building_leaves_batch_norm_alone_and_training_on():
    net = network()
    assert all(module.training for module in net.modules())
    assert not net.backbone.bn1.running_mean.any()


@pytest.mark.parametrize("head", [name for name in registry.names(heads.ROOM) if name != "dense"])
@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("timm:resnet18", 64, {}),
        ("timm:vit_tiny_patch16_224", 32, VIT),
        ("timm:swin_tiny_patch4_window7_224", 64, SWIN),
        ("timm:mobilenetv3_small_050", 64, {}),
    ],
)
def test_every_head_fits_every_kind_of_map(name, size, options, head):
    net = network(name, (1, size, size), options=options, head=head).eval()
    with torch.no_grad():
        outputs = net(torch.rand(3, 1, size, size))
    assert [tuple(z.shape) for z in outputs.logits] == [(3, 5)] * 3
    assert [tuple(f.shape[1:]) for f in outputs.features] == [(d,) for d in net.feature_sizes]
    assert [tuple(m.shape[1:]) for m in outputs.maps] == list(net.map_shapes)
    assert all(z.isfinite().all() for z in outputs.logits)


@pytest.mark.parametrize(
    ("name", "size", "whole"), [("resnet18", 8, 512), ("resnet50", 8, 2048), ("vgg11_bn", 32, 512)]
)
def test_width_scales_the_channels_of_every_layer(name, size, whole):
    half = network(f"cifar:{name}", (3, size, size), options={"width": 0.5}, heads=False)
    assert half.feature_sizes == (whole // 2,)
    convolutions = [m.out_channels for m in half.modules() if isinstance(m, nn.Conv2d)]
    full = [
        m.out_channels
        for m in network(f"cifar:{name}", (3, size, size), heads=False).modules()
        if isinstance(m, nn.Conv2d)
    ]
    assert [2 * channels for channels in convolutions] == full


@pytest.mark.parametrize(("name", "width"), [("resnet8", 0), ("resnet8", -1), ("resnet8", 17), ("wrn_16_1", 0.5)])
def test_a_width_that_cannot_be(name, width):
    with pytest.raises(RecipeError, match=r"model\.options\.width"):
        network(f"cifar:{name}", options={"width": width})


def test_swin_maps_are_turned_to_channels_first():
    net = network("timm:swin_tiny_patch4_window7_224", (3, 64, 64), options=SWIN)
    assert net.map_shapes[-1] == (96, 2, 2)


def test_vit_pools_the_class_token_unless_told():
    taken = {}
    for pool in ("auto", "token", "mean"):
        torch.manual_seed(0)
        net = network(
            "timm:vit_tiny_patch16_224", (3, 32, 32), options=VIT, modules=["blocks.1"], head="linear", pool=pool
        ).eval()
        outputs = net(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
        norm = net.heads[0].body[0](outputs.maps[0])
        expected = norm.mean(1) if pool == "mean" else norm[:, 0]
        assert torch.equal(outputs.features[0], expected)
        taken[pool] = outputs.logits[0]
    assert torch.equal(taken["auto"], taken["token"])


def test_exits_at_named_modules_in_order_of_execution():
    assert network(modules=["layer2", "conv1"]).taps == ("conv1", "layer2")
    with pytest.raises(UnknownNameError, match="layer2"):
        network(modules=["layer2.0.path"])


def test_more_exits_than_places():
    with pytest.raises(RecipeError, match=r"exits\.count"):
        network(count=9)


@pytest.mark.parametrize("name", ["resnet18", "cifar:", ":resnet18"])
def test_a_name_without_family_or_network(name):
    with pytest.raises(RecipeError, match="family:name"):
        network(name)


def test_unknown_families_networks_and_heads_name_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'cifar'"):
        network("cifr:resnet8")
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet8'"):
        network("cifar:resnet9")
    with pytest.raises(UnknownNameError, match="Did you mean 'linear'"):
        network(head="linar")
    assert set(registry.names(backbones.ROOM)) >= {"cifar", "timm"}


def test_options_that_the_backbone_does_not_take():
    with pytest.raises(RecipeError, match="wide"):
        network(options={"wide": 2})


def test_a_backbone_of_the_users_own(user_module):
    user_module(
        "def make(outputs, inputs, width):\n"
        "    return nn.Sequential(nn.Conv2d(inputs[0].shape[1], width, 3), nn.ReLU(), nn.Conv2d(width, width, 3),\n"
        "                         nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, outputs[0]))\n"
    )
    net = network("my_nets:make", (1, 16, 16), options={"width": 6}, count=1)
    assert net.taps == ("1",)
    assert net.map_shapes == ((6, 14, 14), (6, 12, 12))
    assert net(torch.rand(2, 1, 16, 16)).logits[0].shape == (2, 5)
    with pytest.raises(UsageError, match="mak"):
        network("my_nets:mak")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def make(outputs, inputs): return nn.Sequential(nn.Flatten(), nn.Linear(768, 7))", r"\(2, 5\)"),
        ("def make(outputs, inputs): return nn.Sequential(nn.Flatten(), nn.LazyLinear(7))", r"\(2, 5\)"),
        ("def make(outputs, inputs): return 3", "int"),
        (
            COSINE,
            "linear layer",
        ),
        ("def make(outputs, inputs): return nn.Sequential(nn.Flatten(), nn.Linear(9, outputs[0]))", "image_size"),
    ],
)
def test_backbones_that_cannot_be_used(user_module, code, message):
    user_module(code)
    with pytest.raises(RecipeError, match=message):
        network("my_nets:make", heads=False)


OF_CLASSES = """
class Net(nn.Module):
    def __init__(self, num_classes=1000):
        super().__init__()
class Other(nn.Module):
    def __init__(self, num_classes, **kwargs):
        super().__init__()
def make(outputs, inputs, width):
    return Net(outputs[0])
"""


@pytest.mark.parametrize(
    ("name", "options", "found"),
    [
        ("Net", {}, "called with outputs, inputs: .*'outputs'"),
        ("Other", {}, "called with outputs, inputs: .*'num_classes'"),
        ("make", {}, "called with outputs, inputs: .*'width'"),
        ("make", {"width": 4, "depth": 2}, "called with outputs, inputs, width, depth: .*'depth'"),
    ],
)
def test_a_class_in_the_place_of_a_function_is_answered_with_one(user_module, name, options, found):
    user_module(OF_CLASSES)
    with pytest.raises(RecipeError, match=found) as caught:
        network(f"my_nets:{name}", options=options)
    assert "def make(*, outputs, inputs): return Net(outputs[0])" in caught.value.next_step
    assert "model.options" in caught.value.next_step


def test_images_too_small_for_the_backbone():
    with pytest.raises(RecipeError, match=r"3 x 8 x 8.*\n?.*modality\.image_size"):
        network("cifar:vgg11_bn", (3, 8, 8))


def test_without_heads_a_backbone_that_cannot_be_cut_still_trains():
    net = network("timm:crossvit_9_240", (3, 240, 240), heads=False)
    assert net.exit_names == ("final",)


def test_heads_see_the_whole_map_and_reach_the_backbone():
    net = network(head="attention")
    net(torch.rand(2, *IMAGE)).logits[0].sum().backward()
    assert isinstance(net.backbone.conv1, nn.Conv2d)
    assert net.backbone.conv1.weight.grad.abs().sum() > 0


def test_tokens_without_a_class_token_are_averaged():
    net = network("timm:vit_tiny_patch16_224", (3, 32, 32), options=VIT, modules=["patch_embed"], head="linear").eval()
    outputs = net(torch.rand(2, 3, 32, 32))
    assert net.map_shapes[0] == (4, 24)
    assert torch.equal(outputs.features[0], net.heads[0].body[0](outputs.maps[0]).mean(1))


ODD = """
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)
    def forward(self, x, text):
        return self.fc(self.conv(x).mean((2, 3)))
def two(outputs, inputs):
    return Two()
def flat(outputs, inputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 5))
def no_flatten(outputs, inputs):
    return nn.Sequential(nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 5))
def no_forward(outputs, inputs):
    return nn.Module()
"""


@pytest.mark.parametrize(
    ("name", "found", "next_step"),
    [
        ("two", r"forward\(x, text\) of this backbone cannot be called with the inputs alone.*'text'", "wrap it"),
        ("flat", r"hand on are flat vectors \(0, 1, 2\)", "without exits"),
        ("no_flatten", "cannot take inputs of 3 x 16 x 16", "torch.nn.Flatten"),
        ("no_forward", "cannot be called: .*forward", "forward"),
    ],
)
def test_what_is_no_network_of_images_is_refused_with_the_reason(user_module, name, found, next_step):
    user_module(ODD)
    with pytest.raises(RecipeError, match=found) as caught:
        network(f"my_nets:{name}")
    assert next_step in caught.value.next_step
    assert len(str(caught.value).splitlines()) <= 3


def test_a_flat_network_trains_without_exits(user_module):
    user_module(ODD)
    assert network("my_nets:flat", heads=False).exit_names == ("final",)


def test_a_family_of_one_size_names_it():
    with pytest.raises(RecipeError, match="cannot take inputs of 3 x 64 x 64") as caught:
        network("timm:efficientformer_l1", image=(3, 64, 64))
    assert "224 x 224" in caught.value.allowed
    assert "modality.image_size=224" in caught.value.next_step


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("timm_fcn:resnet18", (64, 48), {"output_stride": 16, "width": 8}),
        ("timm_fcn:swin_tiny_patch4_window7_224", (64, 64), SWIN),
        ("timm_fcn:tf_efficientnet_lite0", (64, 96), {}),
        ("torchvision_segmentation:lraspp_mobilenet_v3_large", (64, 64), {}),
    ],
)
def test_networks_with_outputs_of_every_pixel(name, size, options):
    inputs = (Tensor(name="input", dtype="float32", shape=("batch", 3, *size)),)
    made = build(
        Model(name=name, options=options), Exits(count=2, head="dense", width_cap=8), outputs=(4, *size), inputs=inputs
    ).eval()
    with torch.no_grad():
        outputs = made(torch.rand(2, 3, *size))
    assert [tuple(z.shape) for z in outputs.logits] == [(2, 4, *size)] * 3
    assert [tuple(f.shape[1:]) for f in outputs.features] == [(d,) for d in made.feature_sizes]
    assert [tuple(m.shape[1:]) for m in outputs.maps] == list(made.map_shapes)


def test_backbones_without_maps_and_vector_heads_are_refused_for_pixels():
    inputs = (Tensor(name="input", dtype="float32", shape=("batch", 3, 32, 32)),)
    with pytest.raises(RecipeError, match=r"gives? tokens"):
        build(Model(name="timm_fcn:mixer_s32_224"), Exits(head="dense"), outputs=(4, 32, 32), inputs=inputs)
    with pytest.raises(RecipeError, match="such as dense"):
        build(Model(name="timm_fcn:resnet18"), Exits(), outputs=(4, 32, 32), inputs=inputs)
    with pytest.raises(UnknownNameError, match="lraspp"):
        build(Model(name="torchvision_segmentation:lrasp"), Exits(head="dense"), outputs=(4, 32, 32), inputs=inputs)
    with pytest.raises(RecipeError, match="takes images of 3 channels, and these have 1"):
        torchvision_segmentation(
            "lraspp_mobilenet_v3_large", outputs=(4,), inputs=pictures(1, 32, 32), pretrained=False
        )
