"""Keep strided depthwise convolutions in float32 where a CPU trains in bfloat16."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["keep_in_float32"]


class _Float32Conv2d(nn.Conv2d):
    """``nn.Conv2d`` that autocast leaves alone."""

    def forward(self, input: Tensor, *further: Any) -> Tensor:  # noqa: A002 - torch's name
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float(), *further)


def keep_in_float32(net: nn.Module) -> None:
    """Have each depthwise convolution with a stride compute in float32 under autocast.

    oneDNN has no fast kernel for its gradient in bfloat16: on a Xeon with AMX the step of a ResNet-18 with three exits
    took twice as long (benchmarks/cifar100_32). Without a stride there is one.

    Args:
        net: is changed in place; names and values of parameters stay.
    """
    for module in net.modules():
        if not isinstance(module, nn.Conv2d) or isinstance(module, _Float32Conv2d):
            continue
        if module.groups == module.in_channels > 1 and max(module.stride) > 1:
            module.__class__ = _in_float32(type(module))  # in place, so that copies and state dicts stay as they are


def _in_float32(kind: type[nn.Conv2d]) -> type[nn.Conv2d]:
    """Return a class of convolutions, such as those that pad or parametrize themselves, in float32."""
    if kind is nn.Conv2d:
        return _Float32Conv2d
    made: type[nn.Conv2d] = type(f"Float32{kind.__name__}", (_Float32Conv2d, kind), {})
    return made
