"""A modality of token ids without a tokenizer: what networks of texts are exported and cut with in tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from encoders import INPUTS

from sdcompress.modalities import Inputs, Modality
from sdcompress.schema.graphs import Tensor

__all__ = ["Tokens"]


@dataclass(frozen=True)
class Tokens(Modality):
    """An example is int64 [L], 0 behind its last token; a batch is cut to its longest."""

    mask = "attention_mask"

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return INPUTS

    def example(self, raw: Any) -> Any:
        return np.asarray(raw)

    def collate(self, examples: Any) -> Inputs:
        mask = (examples > 0).astype(np.int64)
        longest = max(1, int(mask.sum(1).max(initial=0)))
        return Inputs({"input_ids": examples[:, :longest], "attention_mask": mask[:, :longest]}, self.mask)

    def edge_cases(self) -> Mapping[str, Any]:
        one = np.zeros(12, np.int64)
        one[0] = 9
        return {"one token": one, "the same token": np.full(12, 7), "rising": np.arange(5, 17)}
