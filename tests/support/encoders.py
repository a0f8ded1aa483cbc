"""Small random encoders of many families of transformers, and what is asked of each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sdcompress.models.build import build
from sdcompress.models.multiexit import MultiExit
from sdcompress.schema.graphs import Tensor
from sdcompress.schema.recipe import Exits, Model

__all__ = ["FAMILIES", "INPUTS", "REFUSED", "WIDTH", "batch", "encoder", "largest_change_by_padding"]

INPUTS = tuple(
    Tensor(name=name, dtype="int64", shape=("batch", "sequence")) for name in ("input_ids", "attention_mask")
)
WIDTH = 24
_SIZES = {
    "vocab_size": 60,
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 80,
}
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
_RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}

FAMILIES: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 16},
    "bert": {},
    "camembert": {},
    "convbert": {"embedding_size": WIDTH},
    "data2vec-text": {},
    "deberta": _RELATIVE,
    "deberta-v2": {**_RELATIVE, "position_buckets": 8, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
    "distilbert": {},
    "electra": {"embedding_size": 16},
    "ernie": {},
    "eurobert": {**_IDS, "mask_token_id": 3, "num_key_value_heads": 2},
    "fnet": {},
    "layoutlm": {},
    "megatron-bert": {},
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 8, "true_hidden_size": 8},
    "modernbert": {**_IDS, "global_attn_every_n_layers": 3, "local_attention": 8},
    "mpnet": {},
    "nomic_bert": {},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "roberta": {},
    "roformer": {},
    "squeezebert": {"embedding_size": WIDTH},
    "xlm": {},
    "xlm-roberta": {},
}

# why a family gets no exits after its layers: the message, and what lies behind it
REFUSED = {
    "albert": ("asks for 2 exits", "its layers are one module, which is called once for each of them"),
    "fnet": ("takes no attention_mask", "it mixes padding with the other tokens"),
    "squeezebert": ("asks for 2 exits", "its layers hand on [B, C, N], and heads look at [B, N, C]"),
}


def encoder(family: str, head: str = "tanh_mlp", **exits: Any) -> MultiExit:
    """A network of three layers with random weights and two exits, or those that are named; in evaluation mode."""
    torch.manual_seed(0)
    model = Model(name=f"hf:{family}", options={"config": {**_SIZES, **FAMILIES[family]}})
    return build(model, Exits(head=head, **(exits or {"count": 2})), outputs=(2,), inputs=INPUTS).eval()


def batch(rows: int, length: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Random tokens, also where the mask says padding: the first row is full, the last has one token."""
    rng = np.random.default_rng(seed)
    lengths = np.linspace(length, 1, rows).astype(np.int64)
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    return {"input_ids": rng.integers(4, 60, (rows, length)), "attention_mask": mask}


def largest_change_by_padding(net: MultiExit) -> float:
    """How far outputs move if a batch is padded by seven more tokens."""
    tokens = [torch.from_numpy(array) for array in batch(3, 9).values()]
    with torch.no_grad():
        alone = net(*tokens).logits
        padded = net(
            *(torch.nn.functional.pad(array, (0, 7), value=pad) for array, pad in zip(tokens, (5, 0), strict=True))
        ).logits
    return max(float((one - other).abs().max()) for one, other in zip(alone, padded, strict=True))
