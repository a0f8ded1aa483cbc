"""Weights of a Hugging Face encoder, as files of its own and of others name them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdcompress.models.build import build
from sdcompress.models.weights.load import load_weights
from sdcompress.schema.graphs import Tensor
from sdcompress.schema.recipe import Exits, Model

INPUTS = tuple(
    Tensor(name=name, dtype="int64", shape=("batch", "sequence")) for name in ("input_ids", "attention_mask")
)
CONFIG = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
}


def test_an_encoder_is_taken_and_its_new_head_starts_anew(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    encoder = transformers.BertModel(transformers.BertConfig(**CONFIG))
    torch.save({f"bert.{name}": value for name, value in encoder.state_dict().items()}, tmp_path / "w.bin")
    model = Model(name="hf:bert", options={"config": CONFIG})
    net = build(model, Exits(head="linear"), outputs=(2,), inputs=INPUTS, heads=False)
    loaded = load_weights(net, str(tmp_path / "w.bin"), "name", model.name)
    assert loaded.stripped == ("bert.", "encoder.")
    assert all(name.startswith("head.") for name in net.classifier)
    assert all(name.startswith("backbone.head.") for name in loaded.anew)
    assert all(name.startswith("bert.pooler.") for name in loaded.left)
    words = net.backbone.encoder.embeddings.word_embeddings.weight
    assert torch.equal(words, encoder.embeddings.word_embeddings.weight)
