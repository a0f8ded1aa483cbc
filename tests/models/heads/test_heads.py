from __future__ import annotations

import pytest
import torch

from sdcompress import registry
from sdcompress.errors import RecipeError
from sdcompress.models import heads
from sdcompress.models._trace import MacCounter

NAMES = [name for name in registry.names(heads.ROOM) if name != "dense"]  # one vector for each sample
CONVOLUTIONS = [name for name in NAMES if name not in {"linear", "transformer"}]  # the latter has a width of its own
POOLED = [name for name in NAMES if name != "transformer"]  # in which tokens do not see each other


def head(name, shape=(32, 16, 16), final_shape=(256, 2, 2), *, width=64, pool="mean"):
    torch.manual_seed(0)
    return registry.load(heads.ROOM, name, extra="train")(
        shape, (10,), width=width, final_shape=final_shape, pool=pool
    ).eval()


def macs(module, shape):
    with torch.no_grad(), MacCounter() as counter:
        module(torch.zeros(1, *shape))
    return counter.total


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(32, 16, 16), (8, 15, 9), (300, 2, 2), (16, 1, 1), (17, 32)])
def test_logits_are_the_classifier_of_the_feature(name, shape):
    made = head(name, shape)
    logits, feature = made(torch.rand(3, *shape))
    assert feature.shape == (3, made.feature_size)
    assert torch.equal(logits, made.classifier(feature))
    assert logits.shape == (3, 10)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_of_a_head_learns(name):
    for shape in ((32, 16, 16), (17, 32)):
        made = head(name, shape).train()
        made(torch.rand(4, *shape))[0].square().sum().backward()
        assert all(p.grad is not None for p in made.parameters())


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_width_cap_bounds_the_channels_and_the_macs(name):
    wide, narrow = head(name, width=512), head(name, width=16)
    assert (wide.feature_size, narrow.feature_size) == (256, 16)
    assert narrow.classifier.in_features == 16
    assert macs(narrow, (32, 16, 16)) < macs(wide, (32, 16, 16)) / 2


def test_bottleneck_by_hand():
    """1 x 1: 32 to 16 at 16 x 16; 8 x 8 stride 8 at 2 x 2; 1 x 1: 16 to 64 at 2 x 2; classifier 64 to 10."""
    assert macs(head("bottleneck"), (32, 16, 16)) == 32 * 16 * 256 + 16 * 16 * 64 * 4 + 16 * 64 * 4 + 640


def test_bottleneck_shrinks_large_maps_before_its_largest_kernel():
    made = head("bottleneck", (8, 32, 32), (64, 2, 2))
    assert macs(made, (8, 32, 32)) == 8 * 16 * 256 + 16 * 16 * 64 * 4 + 16 * 64 * 4 + 640


def test_bottleneck_pools_no_side_below_the_deepest_map():
    """512 / 16 needs pooling by 4, to 128; 4 rows are those of the deepest map, and 1 row cannot be pooled."""
    for rows in (1, 4):
        made = head("bottleneck", (8, rows, 512), (64, rows, 16))
        assert made(torch.rand(2, 8, rows, 512))[0].shape == (2, 10)
        # 1 x 1 at 128 columns, 1 x 8 stride 8 to 16 columns, 1 x 1 there
        cells = 16 * rows
        assert macs(made, (8, rows, 512)) == 8 * 16 * 128 * rows + 16 * 16 * 8 * cells + 16 * 64 * cells + 640


def test_sepconv_by_hand():
    """Three halvings, 32 -> 64 -> 64 -> 64: depthwise and pointwise twice a block, the first pair 'middle' wide."""

    def block(inputs, outputs, cells):
        return cells * (9 * inputs + inputs * inputs + 9 * inputs + inputs * outputs)

    expected = block(32, 64, 64) + block(64, 64, 16) + block(64, 64, 4) + 640
    assert macs(head("sepconv"), (32, 16, 16)) == expected
    mask = 64 * (9 * 32 + 32 * 32) * 2
    assert macs(head("attention"), (32, 16, 16)) == expected + mask


def test_attention_only_dims_the_map():
    mask = head("attention").body[0]
    features = torch.rand(2, 32, 16, 16)
    assert (mask(features) <= features).all()
    assert (mask(features) > 0).all()


@pytest.mark.parametrize("name", POOLED)
def test_tokens_are_pooled_by_mean_or_by_the_first(name):
    tokens = torch.rand(2, 17, 32)
    shuffled = torch.cat([tokens[:, :1], tokens[:, 1:].flip(1) * 2], 1)
    first = head(name, (17, 32), pool="token")
    mean = head(name, (17, 32), pool="mean")
    assert torch.equal(first(tokens)[0], first(shuffled)[0])
    assert torch.allclose(mean(tokens)[0], mean(tokens.flip(1))[0], atol=1e-6)
    assert not torch.allclose(first(tokens)[0], first(tokens.flip(1))[0], atol=1e-3)


@pytest.mark.parametrize("pool", ["mean", "token"])
@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_no_logits(name, pool):
    made, tokens = head(name, (17, 32), pool=pool), torch.rand(2, 17, 32)
    mask = torch.ones(2, 17, dtype=torch.int64)
    mask[:, 9:] = 0
    padded = tokens * mask[:, :, None] + 100 * (1 - mask[:, :, None])
    assert torch.allclose(made(padded, mask)[0], made(tokens[:, :9])[0], atol=1e-5)
    assert torch.allclose(made(tokens, torch.ones_like(mask))[0], made(tokens)[0], atol=1e-5)


def test_a_tanh_mlp_is_linear_tanh_linear_on_the_normed_mean():
    made, tokens = head("tanh_mlp", (17, 32), (17, 32)), torch.rand(2, 17, 32)
    norm, hidden = made.body[1], made.body[2]
    mean = tokens.mean(1)
    normed = (mean - mean.mean(1, keepdim=True)) / (mean.var(1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    expected = made.classifier(torch.tanh(normed @ hidden.weight.T + hidden.bias))
    assert torch.allclose(made(tokens)[0], expected, atol=1e-5)


def test_the_transformer_head_by_hand():
    """As FastBERT's table 1: 128 channels; narrow, three projections, both products of attention, out, hidden."""
    n, c, d = 17, 384, 128
    expected = n * c * d + n * d * 3 * d + 2 * n * n * d + n * d * d + d * d + d * 10
    assert macs(head("transformer", (n, c), width=512), (n, c)) == expected
    assert macs(head("transformer", (c, 1, n), width=512), (c, 1, n)) == expected


@pytest.mark.parametrize("shape", [(32, 16, 16), (8, 5, 9), (16, 1, 1)])
def test_dense_logits_are_the_classifier_upsampled(shape):
    kind = registry.load(heads.ROOM, "dense", extra="train")
    torch.manual_seed(0)
    made = kind(shape, (7, 20, 30), width=12, final_shape=shape, pool="mean").eval()
    features = torch.rand(3, *shape)
    logits, feature = made(features)
    assert (logits.shape, feature.shape, made.feature_size) == ((3, 7, 20, 30), (3, 12), 12)
    body = made.body(features)
    assert torch.equal(feature, body.mean((2, 3)))
    up = torch.nn.functional.interpolate(made.classifier(body), size=(20, 30), mode="bilinear", align_corners=False)
    assert torch.equal(logits, up)
    made.train()(features)[0].square().sum().backward()
    assert all(p.grad is not None for p in made.parameters())


def test_heads_say_which_outputs_they_give():
    dense, linear = (registry.load(heads.ROOM, name, extra="train") for name in ("dense", "linear"))
    with pytest.raises(RecipeError, match="one vector for each sample") as caught:
        linear((8, 4, 4), (5, 8, 8), width=4, final_shape=(8, 4, 4), pool="mean")
    assert "such as dense" in caught.value.next_step
    with pytest.raises(RecipeError, match="outputs of every pixel"):
        dense((8, 4, 4), (5,), width=4, final_shape=(8, 4, 4), pool="mean")
    with pytest.raises(RecipeError, match=r"gives? tokens \[17, 32\]"):
        dense((17, 32), (5, 8, 8), width=4, final_shape=(17, 32), pool="mean")
