"""Rebuild the shape of a pruned network: cut the tensors of a network to the channels that it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sdcompress.errors import CheckpointError
from sdcompress.schema.pruning import ChannelCuts

__all__ = ["cut", "keep_channels", "unfit"]


def keep_channels(module: nn.Module, cuts: ChannelCuts, prefix: str = "") -> None:
    """Cut the tensors of a freshly built part of a network to the channels that a checkpoint keeps, in place.

    Args:
        module: as the recipe builds it.
        cuts: as the checkpoint records them.
        prefix: of the module's names in the record, such as "backbone.".

    Raises:
        CheckpointError: if a name or a size of the record is not one of the module.
    """
    part = cuts.only(prefix)
    tensors = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    with torch.no_grad():
        for channels in part.channels:
            kept = torch.tensor(channels.kept)
            for axis in channels.axes:
                name, _, number = axis.removeprefix(prefix).rpartition(":")
                tensor = tensors.get(name)
                if tensor is None or not _has(tensor, int(number), channels.of):
                    raise _not_here(axis, channels.of, tensor)
                tensors[name] = cut(module, name, tensor.index_select(int(number), kept))
    for name, size in part.sizes.items():
        _set_size(module, name, name.removeprefix(prefix), size)


def cut(module: nn.Module, name: str, values: Tensor) -> Tensor:
    """Put values in the place of a parameter or buffer of a module; return what stands there now."""
    owner, _, attribute = name.rpartition(".")
    before: Tensor = getattr(module.get_submodule(owner), attribute)
    after = nn.Parameter(values, before.requires_grad) if isinstance(before, nn.Parameter) else values
    setattr(module.get_submodule(owner), attribute, after)
    return after


def _has(tensor: Tensor, axis: int, size: int) -> bool:
    return axis < tensor.dim() and tensor.shape[axis] == size


def _set_size(module: nn.Module, shown: str, name: str, size: int | tuple[int, ...]) -> None:
    owner, _, attribute = name.rpartition(".")
    attributes: Mapping[str, Any] = {}
    if owner in dict(module.named_modules()):
        attributes = vars(module.get_submodule(owner))
    before = attributes.get(attribute)
    if type(before) is not type(size):
        raise _not_here(shown, size, None)
    if not _at_most(size, before):
        raise unfit(f"{shown} would be {size}, and is {before} before channels are removed")
    setattr(module.get_submodule(owner), attribute, size)


def _at_most(size: int | tuple[int, ...], before: Any) -> bool:
    """Return whether a size could be what removing channels leaves of another one."""
    sizes, limits = (value if isinstance(value, tuple) else (value,) for value in (size, before))
    return len(sizes) == len(limits) and all(type(b) is int and a <= b for a, b in zip(sizes, limits, strict=True))


def _not_here(name: str, size: object, tensor: Tensor | None) -> CheckpointError:
    here = f"has {[*tensor.shape]} here" if tensor is not None else "is not in the network here"
    return unfit(f"{name} of {size} {here}")


def unfit(why: str) -> CheckpointError:
    """Return the error for a record that is not of the network that the recipe builds.

    Args:
        why: the problem, as the end of a sentence.
    """
    return CheckpointError(
        f"The record of pruned channels does not fit the network of the recipe: {why}.",
        allowed="the network that was pruned, built by the same versions of its packages",
        next_step="install the versions that the checkpoint was written with (versions in state.json), or prune again",
    )
