"""What pruning cuts, as plain data: the indices that an axis of a tensor keeps, and sizes that modules hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from sdcompress.schema.pruning import ChannelCuts, KeptChannels

__all__ = ["Cuts", "cuts_of", "merged", "position_ids", "sizes_of"]

Size: TypeAlias = int | tuple[int, ...]
_Axis: TypeAlias = tuple[str, int]


@dataclass(frozen=True)
class Cuts:
    """The difference between two shapes of a network.

    Attributes:
        kept: ascending indices that an axis keeps, by tensor and axis.
        of: the size of the axis before.
        sizes: attributes of modules with another size, by name.
    """

    kept: dict[_Axis, tuple[int, ...]]
    of: dict[_Axis, int]
    sizes: dict[str, Size]

    @property
    def record(self) -> ChannelCuts:
        """Return it as a checkpoint records it: axes that keep the same channels share an entry."""
        axes: dict[tuple[int, tuple[int, ...]], list[str]] = {}
        for (name, axis), kept in self.kept.items():
            axes.setdefault((self.of[name, axis], kept), []).append(f"{name}:{axis}")
        channels = (KeptChannels(of=of, kept=kept, axes=tuple(names)) for (of, kept), names in axes.items())
        return ChannelCuts(channels=tuple(channels), sizes=self.sizes)


def position_ids(net: nn.Module) -> dict[str, Tensor]:
    """Return tensors of the shapes of a network's, whose numbers are their positions."""
    return {
        # float64, because a parameter holds floats, and counts exactly to 2**53
        name: torch.arange(values.numel(), dtype=torch.float64).reshape(values.shape)
        for name, values in _named(net).items()
        if values.is_floating_point() and values.dim()
    }


def sizes_of(net: nn.Module) -> dict[str, Size]:
    """Return all whole numbers that modules hold, and tuples of them, by their name."""
    return {
        f"{name}.{attribute}": value
        for name, module in net.named_modules()
        for attribute, value in vars(module).items()
        if _is_size(value)
    }


def cuts_of(net: nn.Module, ids: Mapping[str, Tensor], sizes: Mapping[str, Size]) -> Cuts:
    """Return what was cut from a network that held ``position_ids``.

    Args:
        net: after it.
        ids: that it held.
        sizes: that its modules held before.
    """
    kept, of = {}, {}
    for name, values in _named(net).items():
        before = ids[name].shape if name in ids else values.shape
        for axis, size in enumerate(before):
            if values.shape[axis] != size:
                kept[name, axis], of[name, axis] = _along(values, axis, before), size
    changed = {name: value for name, value in sizes_of(net).items() if value != sizes.get(name, value)}
    return Cuts(kept, of, changed)


def merged(cuts: Cuts, before: ChannelCuts | None) -> Cuts:
    """Return cuts of a network that was cut already, by the indices of the network before all cuts."""
    if before is None:
        return cuts
    kept, of = dict(cuts.kept), dict(cuts.of)
    for channels in before.channels:
        for axis in channels.axes:
            name, _, number = axis.rpartition(":")
            key = name, int(number)
            kept[key] = tuple(channels.kept[at] for at in cuts.kept.get(key, range(len(channels.kept))))
            of[key] = channels.of
    return Cuts(kept, of, {**before.sizes, **cuts.sizes})


def _named(net: nn.Module) -> dict[str, Tensor]:
    return dict(net.named_parameters(remove_duplicate=False)) | dict(net.named_buffers(remove_duplicate=False))


def _along(ids: Tensor, axis: int, before: tuple[int, ...]) -> tuple[int, ...]:
    """Return the ascending indices along an axis of the first numbers along the others."""
    first = ids[tuple(slice(None) if at == axis else 0 for at in range(ids.dim()))]
    indices = np.unravel_index(first.detach().long().numpy(), before)[axis]
    return tuple(sorted(map(int, indices)))


def _is_size(value: object) -> bool:
    numbers = value if isinstance(value, tuple) and value else (value,)
    return all(type(number) is int and number > 0 for number in numbers)
