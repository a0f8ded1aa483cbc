"""Encoders of texts as segments: any number of rows and tokens, and what is computed of the mask is computed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from encoders import batch, encoder
from signals import TASK
from text_tokens import Tokens

from sdcompress.exporting.graph import export_all_exits, output_name
from sdcompress.exporting.layout import cut_layout
from sdcompress.modalities import Inputs
from sdcompress.verification.sessions import SegmentSessions

pytest.importorskip("transformers")


# docs/encoders.md has all families: python tests/encoder_matrix.py
@pytest.mark.parametrize("family", ["bert", "deberta-v2", "modernbert"])
def test_segments_compute_what_torch_does_at_any_size(family: str, tmp_path: Path) -> None:
    net = encoder(family)
    model = export_all_exits(net.logits_only(), net.exit_names, Tokens())
    layout = cut_layout(model, "cascade", net.exit_names, TASK)
    sessions = SegmentSessions(list(layout.graphs.values()), outputs=[output_name(name) for name in net.exit_names])
    for rows, tokens in ((1, 1), (1, 25), (2, 7), (7, 33)):
        arrays = batch(rows, tokens)
        with torch.no_grad():
            expected = [logits.numpy() for logits in net(*map(torch.from_numpy, arrays.values())).logits]
        np.testing.assert_allclose(sessions(Inputs(arrays)), np.stack(expected), atol=1e-5)
    later = list(layout.models.values())[1:]
    for graph in later:
        inputs = [value.name for value in graph.graph.input]
        axes = [[axis.dim_param for axis in value.type.tensor_type.shape.dim] for value in graph.graph.input]
        assert len(inputs) == 4  # hidden states, the mask that is added, the mask of pooling, the counts of tokens
        assert not {"input_ids", "attention_mask"} & set(inputs)
        assert all(named[0] == "batch" for named in axes)
    if family == "bert":  # the others have position biases by the number of tokens
        operators = {node.op_type for graph in later for node in graph.graph.node}
        assert not {"Where", "Cast", "Expand", "GatherND", "Shape"} & operators
        assert net.backbone.encoder.config._attn_implementation == "sdpa"
        run_as = optimised(model, tmp_path / "optimised.onnx")
        assert "BiasGelu" in run_as
        assert "Erf" not in run_as


def optimised(model: onnx.ModelProto, file: Path) -> set[str]:
    """The operators that onnxruntime runs."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(file)
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return {node.op_type for node in onnx.load(file).graph.node}
