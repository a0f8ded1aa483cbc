"""Small summands survive the export, so that a blank image divides by them and not by zero."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
from meaning import image_modality
from torch import Tensor, nn

from sdcompress.exporting.graph import export_all_exits
from sdcompress.onnx_graph.partition import serialize

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, of its older exporter


def span(x: Tensor) -> Tensor:
    return x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True)


FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "add": lambda x: (x - x.amin((1, 2, 3), keepdim=True)) / (span(x) + 1e-8),
    "add, left": lambda x: span(x) / (1e-12 + span(x)) + x,
    "subtract": lambda x: span(x) / (span(x) - 1e-9) + x,
    "root": lambda x: span(x) / torch.sqrt(span(x) ** 2 + 1e-20) + x,
    "clamp": lambda x: span(x) / span(x).clamp(min=1e-8) + x,
    "maximum": lambda x: span(x) / torch.maximum(span(x), torch.tensor(1e-8)) + x,
    "logarithm": lambda x: (1 / (span(x) + 1e-8)).log() + x,
}


class AllForms(nn.Module):
    """Images [B, 1, 4, 4] scaled by their own span in every form, [B, 16] for each."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(form(images).flatten(1) for form in FORMS.values())


@pytest.mark.parametrize("opset", [16, 18])
def test_a_blank_image_is_divided_by_the_epsilon(opset: int) -> None:
    net = AllForms().eval()
    model = export_all_exits(net, list(FORMS), image_modality((1, 4, 4)), opset=opset)
    images = np.stack([np.zeros((1, 4, 4)), np.ones((1, 4, 4)), np.eye(4)[None]]).astype(np.float32)
    outputs = onnxruntime.InferenceSession(serialize(model)).run(None, {"input": images})
    with torch.no_grad():
        wanted = [logits.numpy() for logits in net(torch.from_numpy(images))]
    for form, ours, torchs in zip(FORMS, outputs, wanted, strict=True):
        assert np.isfinite(torchs).all()
        np.testing.assert_allclose(ours, torchs, rtol=1e-5, err_msg=form)


class WithNothing(nn.Module):
    """A sum with nothing."""

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (images.relu().flatten(1) + 0.0,)


def test_a_zero_that_is_added_is_removed_as_ever() -> None:
    model = export_all_exits(WithNothing().eval(), ["final"], image_modality((1, 4, 4)))
    assert "Add" not in {node.op_type for node in model.graph.node}
