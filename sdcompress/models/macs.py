"""Count multiply-accumulates: torch's own counter, and the attention kernels that it does not know."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

__all__ = ["MacCounter"]


class MacCounter:
    """Counts the MACs of convolutions, matrix products and attention that run inside its context.

    A MAC is two of torch's floating-point operations. Norms, activations and poolings count as nothing, as in the
    figures that papers print.
    """

    def __init__(self) -> None:
        kernels = (torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,)  # noqa: SLF001 - an operator's name
        self._flops = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(kernels, _attention_flops))

    def __enter__(self) -> MacCounter:
        self._flops.__enter__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return self

    def __exit__(self, *raised: Any) -> None:
        self._flops.__exit__(*raised)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    @property
    def total(self) -> int:
        """MACs so far."""
        return int(self._flops.get_total_flops()) // 2


def _attention_flops(query: Any, key: Any, value: Any, *_args: Any, out_shape: Any = None, **_kwargs: Any) -> int:  # noqa: ARG001
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]  # torch leaves it untyped
