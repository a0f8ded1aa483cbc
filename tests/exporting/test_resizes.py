"""Bilinear interpolation in exported graphs, by both exporters: stored scales and products, equal to torch."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from meaning import image_modality
from torch import Tensor, nn
from torch.nn.functional import interpolate

from sdcompress.exporting.graph import BATCH, export_all_exits
from sdcompress.onnx_graph.macs import macs
from sdcompress.onnx_graph.partition import cut_segments, serialize

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, of its older exporter


class Masked(nn.Module):
    """Two masks like those of ``attention``, 4 x 4 and 3 x 3 to 8 x 8, and logits of each pixel, 8 x 8 to 16 x 16."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.Conv2d(16, 5, 1)
        self.halved, self.smaller = nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.Conv2d(16, 16, 3, stride=3, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.first(images)
        masked = features * self._up(self.halved(features), features)
        logits = (masked * self._up(self.smaller(masked), features)).mean((2, 3))
        return logits, self._up(self.last(masked), images)

    def _up(self, small: Tensor, large: Tensor) -> Tensor:
        return interpolate(small, size=large.shape[2:], mode="bilinear", align_corners=False)


@pytest.mark.parametrize("opset", [16, 18])
def test_sizes_are_not_computed_and_the_maps_are_those_of_torch(opset: int) -> None:
    torch.manual_seed(0)
    net = Masked().eval()
    model = export_all_exits(net, ["exit1", "final"], image_modality((3, 16, 16)), opset=opset)
    resizes = [node for node in model.graph.node if node.op_type == "Resize"]
    stored = {tensor.name for tensor in model.graph.initializer}
    assert [len(node.input) for node in resizes] == [3]  # [4, 4] to [8, 8]
    assert resizes[0].input[2] in stored
    assert sum(node.op_type == "MatMul" for node in model.graph.node) == 1 + 2  # 576 weights, 16384
    assert not {"Shape", "Slice"} & {node.op_type for node in model.graph.node}
    session = onnxruntime.InferenceSession(serialize(model))
    x = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)
    for rows in (1, 3):
        with torch.no_grad():
            expected = [output.numpy() for output in net(torch.from_numpy(x[:rows]))]
        for actual, wanted in zip(session.run(None, {"input": x[:rows]}), expected, strict=True):
            np.testing.assert_allclose(actual, wanted, atol=1e-6)
    # convolutions alone: 8 x 8 x 16 x 27, 4 x 4 x 16 x 144, 3 x 3 x 16 x 144 and 8 x 8 x 5 x 16
    assert macs(model, {BATCH: 1}) == 27648 + 36864 + 20736 + 5120
    segments = cut_segments(model, ["exit1_outputs", "final_outputs"])
    assert [segment.graph.output[0].name for segment in segments] == ["exit1_outputs", "final_outputs"]
