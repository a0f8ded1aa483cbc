"""Find the channels that can only be removed together, by Torch-Pruning's dependency graph over backbone and exits.

"DepGraph: Towards Any Structural Pruning" (Fang et al., CVPR 2023, arXiv 2301.12900).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from sdcompress.models._trace import evaluating
from sdcompress.models.kept_channels import cut
from sdcompress.models.multiexit import MultiExit
from sdcompress.pruning.cuts import Cuts, cuts_of, position_ids, sizes_of

__all__ = ["ChannelGraph", "CoupledChannels"]

_HEADS = ("num_heads", "num_attention_heads", "n_heads")  # as timm, transformers and DistilBERT name their number
_WIDTHS = ("all_head_size", "attn_dim")  # likewise of all heads together
_WHOLE_NORMS = (nn.LayerNorm, nn.GroupNorm)  # they compute a statistic over several channels
_OPERATORS = torch_pruning.ops.OPTYPE


@dataclass(frozen=True)
class CoupledChannels:
    """Channels of several layers that a skip connection, a norm, a product or an exit couples.

    Attributes:
        name: of the layer that computes them, the first in order of execution.
        units: what can be removed, as indices of the root: a channel each, a whole attention head, or the channels
            at one place of each group of a grouped convolution.
        normalised: whether a layer norm or group norm computes a statistic over them, so that removing one changes
            what the others become.
        attention: the module whose heads they are; None: they are channels.
    """

    name: str
    units: tuple[tuple[int, ...], ...]
    normalised: bool
    attention: nn.Module | None
    root: nn.Module
    handler: Any

    def __len__(self) -> int:
        return len(self.units)


class ChannelGraph:
    """The dependencies of a network's channels, and what removing some of them cuts.

    Args:
        net: on the CPU; it is left as it was.
        example: its inputs, each [B, ...].

    Attributes:
        net: a copy of the network, to which the layers of groups belong; it is never cut.
        groups: all coupled channels but those of the exits' outputs, and of modules that share a parameter with another
            one: what is cut in one of them would be cut in the other.
    """

    def __init__(self, net: MultiExit, example: tuple[Tensor, ...]) -> None:
        self.net = copy.deepcopy(net).requires_grad_(requires_grad=True)
        outputs = [head.classifier for head in self.net.heads] + [self.net.backbone.get_submodule(net.output_layer)]
        with evaluating(self.net), torch.enable_grad():
            self._graph = torch_pruning.DependencyGraph().build_dependency(
                self.net.logits_only(), example_inputs=example, verbose=False
            )
        self._names = {module: name for name, module in self.net.named_modules()}
        self._ids, self._sizes = position_ids(self.net), sizes_of(self.net)
        self.groups = tuple(self._groups(outputs))

    def full_group(self, channels: CoupledChannels) -> Any:
        """Return all of some coupled channels as Torch-Pruning's group, as its importances take it."""
        return self._group(channels, channels.units)

    def cuts(self, removed: Mapping[int, Sequence[int]]) -> Cuts:
        """Return which axis of which tensor keeps which channels if some are removed.

        Args:
            removed: units, by the position of their group in ``groups``.
        """
        with _restored(self.net, self._graph), torch.no_grad():
            for name, ids in self._ids.items():
                cut(self.net, name, ids)
            for at, units in removed.items():
                channels = self.groups[at]
                self._group(channels, [channels.units[unit] for unit in units]).prune(record_history=False)
                _remove_heads(channels, len(units))
            return cuts_of(self.net, self._ids, self._sizes)

    def _group(self, channels: CoupledChannels, units: Sequence[tuple[int, ...]]) -> Any:
        # ascending: the importance by Taylor sorts indices, and not the indices of the root beside them
        indices = sorted(index for unit in units for index in unit)
        return self._graph.get_pruning_group(channels.root, channels.handler, indices)

    def _groups(self, outputs: list[Any]) -> Iterator[CoupledChannels]:
        sharing = _sharing_modules(self.net)
        for group in self._graph.get_all_groups(ignored_layers=outputs):
            kinds = {item.dep.target.type for item in group}
            if kinds & {_OPERATORS.OUTPUT, _OPERATORS.PARAMETER, _OPERATORS.MHA, _OPERATORS.LSTM}:
                continue
            if sharing & {item.dep.target.module for item in group}:
                continue
            yield self._coupled(group)

    def _coupled(self, group: Any) -> CoupledChannels:
        modules = [item.dep.target.module for item in group if item.dep.target.module in self._names]
        normalised = any(isinstance(module, _WHOLE_NORMS) for module in modules)
        root, handler, count = group[0].dep.target.module, group[0].dep.handler, len(group[0].idxs)
        attention = None if normalised else self._attention(group)
        if attention is not None:
            root, handler, count = attention[1].dep.target.module, attention[1].dep.handler, len(attention[1].idxs)
        name = min((self._names[module] for module in modules), key=[*self._names.values()].index)
        return CoupledChannels(
            name,
            _units(group, count, attention and attention[0]),
            normalised,
            attention and attention[0],
            root,
            handler,
        )

    def _attention(self, group: Any) -> tuple[nn.Module, Any] | None:
        """Return the attention whose queries, keys and values a group is, with the layer that takes its heads."""
        for item in group:
            layer = item.dep.target.module
            owner = self._names.get(layer, "").rpartition(".")[0]
            if isinstance(layer, nn.Linear) and self._graph.is_out_channel_pruning_fn(item.dep.handler) and owner:
                attention = self.net.get_submodule(owner)
                takers = [
                    taker
                    for taker in group
                    if isinstance(taker.dep.target.module, nn.Linear)
                    and self._graph.is_in_channel_pruning_fn(taker.dep.handler)
                ]
                if takers and _heads(attention) and len(takers[0].idxs) % _heads(attention) == 0:
                    return attention, takers[0]
        return None


def _sharing_modules(net: nn.Module) -> set[nn.Module]:
    """Return the modules that hold a parameter that another module holds too (tied weights)."""
    owners = dict[int, set[nn.Module]]()
    for module in net.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), set()).add(module)
    return {module for modules in owners.values() if len(modules) > 1 for module in modules}


def _heads(attention: nn.Module) -> int:
    return next((count for name in _HEADS if isinstance(count := vars(attention).get(name), int)), 0)


def _units(group: Any, count: int, attention: nn.Module | None) -> tuple[tuple[int, ...], ...]:
    if attention is not None:
        size = count // _heads(attention)
        return tuple(tuple(range(at, at + size)) for at in range(0, count, size))
    parts = max((_parts(item.dep.target.module) for item in group), default=1)
    if count % parts:
        return ()
    return tuple(tuple(range(at, count, count // parts)) for at in range(count // parts))


def _parts(module: Any) -> int:
    """Return how many equal parts of a layer's channels stay equal: of a grouped convolution, of a group norm."""
    if isinstance(module, nn.modules.conv._ConvNd):  # noqa: SLF001 - its public name
        return module.groups if module.groups < module.out_channels else 1
    return module.num_groups if isinstance(module, nn.GroupNorm) else 1


def _remove_heads(channels: CoupledChannels, removed: int) -> None:
    attention = channels.attention
    if attention is None:
        return
    names, size = vars(attention), len(channels.units[0])
    for name in {*_HEADS} & names.keys():
        setattr(attention, name, names[name] - removed)
    for name in {*_WIDTHS} & names.keys():
        setattr(attention, name, names[name] - removed * size)


@contextmanager
def _restored(net: nn.Module, graph: Any) -> Iterator[None]:
    """Undo inside of a network, and of the graph's own operators, all that pruning has changed."""
    modules = [(module, _copied(vars(module))) for module in net.modules()]
    operators = [(key, _copied(vars(key))) for key in graph.module2node if isinstance(key, nn.Module)]
    try:
        yield
    finally:
        for owner, before in (*modules, *operators):
            vars(owner).clear()
            vars(owner).update(before)


def _copied(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: copy.copy(value) if type(value) in (dict, list) else value for name, value in attributes.items()}
