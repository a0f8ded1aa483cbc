"""Convert weights sharded over processes (FSDP2) from local to full values and back.

A sharded weight is torch's ``DTensor``. What needs the full or the local value of a tensor calls this file, and gets
the tensor itself where it is not sharded: so nothing else depends on how a run is spread over its processes.

``fully_shard``: Zhao et al., "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel", VLDB 2023, arXiv
2304.11277, in torch's second version of it, which keeps parameters apart:
https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

from sdcompress.errors import RecipeError
from sdcompress.models.multiexit import MultiExit
from sdcompress.schema.recipe import Recipe

__all__ = [
    "check_sharding",
    "distribute_like",
    "full_value",
    "is_sharded",
    "load",
    "local_value",
    "shard",
    "shard_alike",
]

_AXIS = "data_parallel"  # Fabric's name of the axis of the mesh along which the batch is split


def check_sharding(recipe: Recipe) -> None:
    """Refuse what cannot be trained with sharded weights; with one process none are.

    Raises:
        RecipeError: if train.strategy is fsdp and something else in ``train`` does not go with it.
    """
    spec = recipe.train
    if spec.strategy != "fsdp" or spec.processes == 1:
        return
    refused = {
        "train.compile": (spec.compile, "false", "the two were never tried together"),
        "train.channels_last": (spec.channels_last, "false", "FSDP cuts contiguous weights only"),
        "train.precision": (
            spec.precision == "16-mixed",
            "bf16-mixed",
            "Fabric has no loss scale for sharded weights",
        ),
    }
    for key, (refuse, instead, why) in refused.items():
        if refuse:
            value = getattr(spec, key.removeprefix("train."))
            raise RecipeError(
                f"{key} is {str(value).lower()}, which does not go with train.strategy fsdp: {why}.",
                allowed=f"{key} {instead} with fsdp; anything with ddp",
                next_step=f"--set {key}={instead}, or --set train.strategy=ddp",
            )


def shard(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Shard the parameters of a module in place, along their first axis; each process holds full buffers.

    Its blocks are gathered one after the other when they compute, and dropped again.

    Args:
        module: a training step, or a network.
        mesh: the processes.

    Returns:
        The module.
    """
    for unit in _units(module):
        unit.register_forward_hook(_no_views)
        # torch would leave the outermost unit gathered after a forward pass: a teacher, or an average that is
        # evaluated, has no backward pass that drops it, and would go on with the weights of its first pass
        fully_shard(unit, mesh=mesh[_AXIS], reshard_after_forward=True)
    return module


def shard_alike(copy: nn.Module, original: nn.Module) -> None:
    """Shard a copy as its original is sharded, if it is.

    Args:
        copy: made before its original was sharded: torch copies no sharded module.
        original: the network.
    """
    mesh = next((value.device_mesh for value in original.parameters() if isinstance(value, DTensor)), None)
    if mesh is not None:
        shard(copy, mesh)


def load(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors into a module by their names, each as the module's own is placed.

    Args:
        module: sharded or not.
        tensors: full, or sharded as the module's own; all of its names and no others.
    """
    current = module.state_dict()
    module.load_state_dict(
        {name: distribute_like(current[name], value) if name in current else value for name, value in tensors.items()}
    )


def distribute_like(like: Tensor, value: Tensor) -> Tensor:
    """Return a tensor distributed as another one of its shape: its local part, if that is sharded.

    Args:
        like: how.
        value: the same in all processes, or already sharded.
    """
    if not isinstance(like, DTensor) or isinstance(value, DTensor):
        return value
    # no source: every process cuts its part out of its own value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def is_sharded(tensor: Tensor) -> bool:
    """Return whether each process holds only a part of a tensor."""
    return isinstance(tensor, DTensor)


def full_value(tensor: Tensor) -> Tensor:
    """Return all of a tensor; where it is sharded, all processes must call this at the same time."""
    if not isinstance(tensor, DTensor):
        return tensor
    full: Tensor = tensor.full_tensor()
    return full


def local_value(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor: the memory itself, not a copy."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _units(module: nn.Module) -> Iterator[nn.Module]:
    """Return the modules gathered at once, inner before outer: blocks, networks without them, the rest of the module.

    A block is an element of a list or a sequence that has parts itself: a transformer's or a residual block, a stage,
    a head. Single layers are none: some modules read the weights of their layers without calling them.
    """
    lists = (nn.Sequential, nn.ModuleList)
    blocks = {part for parent in module.modules() if isinstance(parent, lists) for part in parent.children()}
    if len([*module.named_parameters(remove_duplicate=False)]) > len([*module.parameters()]):
        blocks = set()  # FSDP wants both places of a weight in one unit
    for part in reversed([*module.modules()]):
        block = part in blocks and any(True for _ in part.children()) and type(part).forward is not nn.Module.forward
        # a network too, because it is also called by itself
        if block or part is module or isinstance(part, MultiExit):
            yield part


def _no_views(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    # FSDP waits at a unit's output for its gradient; a view that is changed in place would slip past it

    def owned(tensor: Tensor) -> Tensor:
        return tensor.clone() if tensor.requires_grad and tensor._is_view() else tensor  # noqa: SLF001 - its only name

    return tree_map_only(Tensor, owned, output)
