"""A network of several inputs whose sizes vary is exported, cut and compared as one of images is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from signals import TASK
from torch import nn

from sdcompress.errors import UsageError
from sdcompress.exporting.checkpoint_outputs import edge_case_outputs
from sdcompress.exporting.ensemble import GeometricEnsemble
from sdcompress.exporting.graph import axis_sizes, export_all_exits
from sdcompress.exporting.layout import cut_layout
from sdcompress.modalities import Inputs, Modality
from sdcompress.onnx_graph.macs import macs
from sdcompress.schema.graphs import Tensor
from sdcompress.schema.recipe import Export
from sdcompress.tasks import build
from sdcompress.tasks.classification import Classification
from sdcompress.verification.gate import ParityGate

NAMES = ("exit1", "final")


@dataclass(frozen=True)
class Tokens(Modality):
    """Sequences of numbers, padded with zeros; an example is int64 [L]."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (
            Tensor(name="tokens", dtype="int64", shape=("batch", "length")),
            Tensor(name="mask", dtype="float32", shape=("batch", "length")),
        )

    def prepare(self, raw: Any) -> Inputs:
        return self.collate(np.stack(raw))

    example = check = prepare

    def collate(self, examples: Any) -> Inputs:
        return Inputs({"mask": (examples > 0).astype(np.float32), "tokens": examples})  # in no particular order

    def edge_cases(self) -> Mapping[str, Any]:
        return {"one token": np.array([1, 0, 0, 0]), "the last token": np.array([9, 9, 9, 9])}

    @property
    def packed(self) -> Mapping[str, tuple[str, int]]:
        return {"examples": ("int64", 2)}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.middle = nn.Embedding(10, 6), nn.Linear(6, 5)
        self.heads = nn.ModuleList([nn.Linear(6, 2), nn.Linear(5, 2)])

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        weights = (mask / mask.sum(1, keepdim=True))[..., None]
        first = self.embedding(tokens)
        second = self.middle(first).relu()
        return self.heads[0]((first * weights).sum(1)), self.heads[1]((second * weights).sum(1))


def outputs_of(net: nn.Module, inputs: Inputs) -> dict[str, np.ndarray]:
    with torch.no_grad():
        outputs = net(*(torch.from_numpy(inputs.arrays[name]) for name in ("tokens", "mask")))
    return dict(zip(NAMES, (output.numpy() for output in outputs), strict=True))


def test_inputs_keep_their_names_types_and_axes_and_the_gate_sees_them(tmp_path: Path) -> None:
    net, modality = Net().eval(), Tokens()
    model = export_all_exits(net, NAMES, modality)
    axes = {value.name: [axis.dim_param for axis in value.type.tensor_type.shape.dim] for value in model.graph.input}
    assert axes == {"tokens": ["batch", "length"], "mask": ["batch", "length"]}
    examples = np.random.default_rng(0).integers(1, 10, (40, 9))  # of another length than what was traced
    gate = ParityGate(
        examples, outputs_of(net, modality.collate(examples)), edge_case_outputs(net, NAMES, modality),
        modality=modality, task=TASK, settings=Export(parity_max_batch=8), advance=lambda _: None,
    )  # fmt: skip
    layout = cut_layout(model, "cascade", NAMES, TASK)
    records = gate(layout.graphs, layout.outputs, out=tmp_path / "out", what="cascade")
    gate.signals(layout.graphs, layout.signals, layout.outputs)
    assert [record.flips for record in records] == [0, 0]
    # 16 tokens: 16 x 6 x 5 of the middle, 6 x 2 and 5 x 2 of the heads
    assert sum(macs(graph, axis_sizes(modality)) for graph in layout.models.values()) == 16 * 6 * 5 + 6 * 2 + 5 * 2


def test_the_older_exporter_takes_inputs_of_which_only_the_batch_varies() -> None:
    with pytest.raises(UsageError, match="axes length, which vary") as caught:
        export_all_exits(Net().eval(), NAMES, Tokens(), opset=17)
    assert "--opset 18" in caught.value.next_step


@pytest.mark.parametrize("name", ["classification", "multilabel"])
def test_an_ensemble_of_two_inputs_is_the_mean_that_its_task_says(name: str) -> None:
    net, modality = Net().eval(), Tokens()
    model = export_all_exits(GeometricEnsemble(net, build(name, ("a", "b"), {})), NAMES, modality)
    inputs = modality.collate(np.random.default_rng(0).integers(1, 10, (5, 7)))
    first, last = outputs_of(net, inputs).values()
    if name == "classification":
        first, last = (logits - np.log(np.exp(logits).sum(1, keepdims=True)) for logits in (first, last))
    actual = onnxruntime.InferenceSession(model.SerializeToString()).run(None, inputs.arrays)
    np.testing.assert_allclose(actual, [first, (first + last) / 2], atol=1e-5)


def test_a_task_without_an_ensemble_of_exits_refuses_it() -> None:
    class Numbers(Classification):
        def ensemble_terms(self, outputs: torch.Tensor) -> None:
            """Its outputs stand for no probabilities."""

    with pytest.raises(UsageError, match="no geometric ensemble") as caught:
        GeometricEnsemble(Net(), Numbers(("a", "b")))
    assert "export.ensemble" in caught.value.next_step
