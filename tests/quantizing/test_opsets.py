"""A transformer as the exporters write it at several opsets: layer norm, GELU and attention in pieces or whole."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from meaning import image_modality
from networks import pictures

from sdcompress.exporting.graph import export_all_exits
from sdcompress.models.build import build
from sdcompress.onnx_graph.tensorrt8 import DYNAMO_OPSET, unsupported_by_8_5
from sdcompress.quantizing.precisions._base import FloatSegment
from sdcompress.quantizing.precisions.fp8 import fp8
from sdcompress.quantizing.precisions.fp16 import fp16
from sdcompress.quantizing.precisions.int8 import int8
from sdcompress.quantizing.segments import output_layers, without_signals
from sdcompress.schema.recipe import Exits, Model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, of its older exporter

IMAGE = (3, 32, 32)
TINY = {"depth": 2, "embed_dim": 48, "num_heads": 3, "patch_size": 8, "class_token": False, "global_pool": "avg"}
# without a bias nothing stands between the product and the slices into queries, keys and values
OPTIONS = {"bias": TINY, "no bias": {**TINY, "qkv_bias": False}}


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.stack(session.run(None, {"input": images}))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("opset", [16, 17, 18, 21, 23])
def test_a_transformer_is_close_whatever_its_opset(opset: int, options: str) -> None:
    pytest.importorskip("timm")
    torch.manual_seed(0)
    settings = Model(name="timm:vit_tiny_patch16_224", options=OPTIONS[options])
    net = build(settings, Exits(count=1, head="linear"), outputs=(7,), inputs=pictures(*IMAGE)).eval()
    with torch.no_grad():  # those of a new network are 0
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.2)
    model = without_signals(export_all_exits(net.logits_only(), net.exit_names, image_modality(IMAGE), opset=opset), [])
    images = np.random.default_rng(0).normal(size=(48, *IMAGE)).astype(np.float32)
    logits = [value.name for value in model.graph.output]
    segment = FloatSegment(
        model, output_layers(model, logits), lambda: iter([{"input": images[:24]}, {"input": images[24:]}])
    )
    exact = run(model, images)

    def error(quantised: onnx.ModelProto) -> float:
        return float((run(quantised, images) - exact).std() / exact.std())

    quantised = {"int8": int8(segment), "fp16": fp16(segment)}
    # 0.016 to 0.019 where stored summands are rounded, too
    assert error(quantised["int8"]) < 0.014
    assert error(quantised["fp16"]) < 0.0005
    assert (unsupported_by_8_5(quantised) == "") == (opset == 16)  # from 17 on LayerNormalization is one node
    if opset >= DYNAMO_OPSET:
        assert 0.001 < error(fp8(segment)) < 0.04
