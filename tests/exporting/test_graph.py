"""One torch export for all exits, silent, with named axes and nothing of the machine in it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from meaning import image_modality
from torch import Tensor, nn

from sdcompress.errors import ParityError, UsageError
from sdcompress.exporting.graph import export_all_exits
from sdcompress.onnx_graph.partition import serialize

NAMES = ("exit1", "exit2", "final")


def shapes(values: object) -> list[tuple[str, list[str | int]]]:
    return [
        (value.name, [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim])
        for value in values  # type: ignore[attr-defined]
    ]


def test_inputs_and_outputs_are_named_with_a_named_batch(model: onnx.ModelProto) -> None:
    assert shapes(model.graph.input) == [("input", ["batch", 3, 8, 8])]
    assert shapes(model.graph.output) == [(f"{name}_outputs", ["batch", 5]) for name in NAMES]
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]


def test_the_graph_computes_what_the_network_computes(
    model: onnx.ModelProto, tiny: nn.Module, images: np.ndarray
) -> None:
    session = onnxruntime.InferenceSession(serialize(model))
    for batch in (1, 2, 5):
        with torch.no_grad():
            expected = [logits.numpy() for logits in tiny(torch.from_numpy(images[:batch]))]
        for actual, wanted in zip(session.run(None, {"input": images[:batch]}), expected, strict=True):
            np.testing.assert_allclose(actual, wanted, atol=1e-6)


def test_the_exporter_is_silent(tiny: nn.Module, capfd: pytest.CaptureFixture[str]) -> None:
    export_all_exits(tiny, NAMES, image_modality((3, 8, 8)))
    assert capfd.readouterr() == ("", "")


def test_no_metadata_is_left(model: onnx.ModelProto) -> None:
    assert not model.metadata_props
    assert not model.doc_string
    for message in (*model.graph.node, *model.graph.value_info, *model.graph.initializer, *model.graph.input):
        assert not message.metadata_props
        assert not message.doc_string


def test_the_same_weights_give_the_same_bytes(tiny: nn.Module, model: onnx.ModelProto) -> None:
    assert serialize(export_all_exits(tiny, NAMES, image_modality((3, 8, 8)))) == serialize(model)


class Branching(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor]:
        pooled = images.mean((2, 3))
        return (pooled if pooled.sum() > 0 else -pooled,)


def test_what_torch_cannot_export_is_our_error_with_its_reason() -> None:
    with pytest.raises(UsageError, match="torch cannot export") as caught:
        export_all_exits(Branching(), ["final"], image_modality((3, 8, 8)))
    assert "data-dependent" in caught.value.problem
    assert "\n" not in caught.value.problem
    assert caught.value.next_step


class Frozen(nn.Module):
    """Its logits have always two rows."""

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (torch.ones(2, 5) * images.mean(),)


def test_a_lost_batch_axis_is_seen() -> None:
    with pytest.raises(ParityError, match="final_outputs is not as expected"):
        export_all_exits(Frozen(), ["final"], image_modality((3, 8, 8)))


def test_too_many_weights_for_one_file_are_refused_before_the_export() -> None:
    with torch.device("meta"):
        net = nn.Linear(2**15, 2**14)
    with pytest.raises(UsageError, match=r"2\.0 GiB of weights"):
        export_all_exits(net, ["final"], image_modality((3, 8, 8)))


class OneExit(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.net(images),)


def test_attention_that_cannot_be_exported_as_one_operator_is_written_in_parts() -> None:
    """BEiT's position bias: the fused operator's result has a layout that the exporter cannot follow."""
    size = {"img_size": 32, "patch_size": 16, "depth": 1, "embed_dim": 16, "num_heads": 2}
    torch.manual_seed(0)
    beit = timm.create_model("beit_base_patch16_224", num_classes=5, **size).eval()
    net = OneExit(beit).eval()
    session = onnxruntime.InferenceSession(serialize(export_all_exits(net, ["final"], image_modality((3, 32, 32)))))
    assert beit.blocks[0].attn.fused_attn  # it goes on as it was
    images = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        (expected,) = net(torch.from_numpy(images))
    np.testing.assert_allclose(session.run(None, {"input": images})[0], expected.numpy(), atol=1e-5)
