from __future__ import annotations

import pytest
from torch import nn

from sdcompress.models import _feature_layout
from sdcompress.models.cutpoints import CutPoint


@pytest.mark.parametrize(
    ("shape", "image", "seen"),
    [
        ((64, 7, 7), (3, 224, 224), (64, 7, 7)),
        ((7, 7, 64), (3, 224, 224), (64, 7, 7)),
        ((64, 6, 10), (3, 96, 160), (64, 6, 10)),
        ((6, 10, 64), (3, 96, 160), (64, 6, 10)),
        ((8, 8, 8), (3, 32, 32), (8, 8, 8)),
        ((64, 2, 2), (3, 33, 63), (64, 2, 2)),
        ((49, 64), (3, 224, 224), (49, 64)),
    ],
)
def test_maps_and_tokens_are_told_from_their_shape(shape, image, seen):
    point = CutPoint("stage", shape, 0.5)
    assert _feature_layout.is_map(point, image)
    assert _feature_layout.tap(point, nn.Identity(), image).shape == seen


def test_a_declared_layout_decides_where_the_shape_does_not():
    backbone = nn.Identity()
    point = CutPoint("stage", (8, 8, 8), 0.5)
    assert not _feature_layout.tap(point, backbone, (3, 32, 32)).channels_last
    backbone.output_fmt = "NHWC"
    assert _feature_layout.tap(point, backbone, (3, 32, 32)).channels_last


def test_blocks_of_tokens_are_no_map():
    assert not _feature_layout.is_map(CutPoint("levels.2", (1, 196, 384), 0.5), (3, 224, 224))


@pytest.mark.parametrize(
    ("shape", "tokens"), [((16, 24), True), ((16, 16), True), ((24, 16), False), ((4, 16, 16), False)]
)
def test_tokens_of_a_padding_mask_have_its_length_first(shape, tokens):
    assert _feature_layout.is_map(CutPoint("layer", shape, 0.5), None, 16) == tokens
