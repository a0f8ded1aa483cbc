"""A backbone with exits: taps on its modules, a head on each, one forward pass for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from sdcompress.models._trace import main_output, with_main_output
from sdcompress.models.heads._base import Head
from sdcompress.models.output_layer import classifier_tensors, feature_size
from sdcompress.models.outputs import Outputs

__all__ = ["LogitsOnly", "MultiExit", "Tap"]

# attributes of tapped modules, set only during a forward pass
_OUTPUT = "tapped_output"
_INPUT = "output_layer_input"


@dataclass(frozen=True)
class Tap:
    """A module of the backbone whose output an exit looks at.

    Attributes:
        name: the module.
        shape: of its output as heads and losses see it, without the batch axis: (C, H, W) or (N, C).
        channels_last: whether the backbone has it as [B, H, W, C] instead (Swin and its like).
        masked: whether the padding mask of the inputs is about its tokens, so that the head is given the mask.
    """

    name: str
    shape: tuple[int, ...]
    channels_last: bool = False
    masked: bool = False


class MultiExit(nn.Module):
    """A backbone and its exits. Heads see the whole map, so gradients of every exit reach the backbone.

    A tapped module keeps its output as an attribute of its own until the forward pass ends; nothing is kept after it.
    So the network can be copied, pickled, compiled and exported, but not called from two threads at once.

    Args:
        backbone: returns outputs [B, ...].
        output_layer: the backbone's module whose input is the final feature (``output_layer.output_layer``).
        taps: where the exits before the last look, in order of execution.
        heads: one for each tap; or none, then the taps only give their maps.
        deepest: the map before pooling; without it the feature stands for the last exit's map.
        mask: position of the padding mask among the inputs; None: they have none.
        equilibrium: Gradient Equilibrium (Li et al., "Improved Techniques for Training Adaptive Deep Networks", ICCV
            2019, arXiv 1908.06294, section 3.1): where an exit leaves the backbone, gradients are scaled so that their
            sum does not grow with the number of exits that are still to come.

    Attributes:
        exit_names: "exit1", ..., "final".
        classifier: names of the backbone's tensors that learn on a frozen backbone: of its output layer, and of all of
            the classifier that it declares.
        taps: names of the tapped modules, E - 1.
        feature_sizes: D_i of each exit.
        map_shapes: of each exit's map without the batch axis: (C, H, W), (N, C), or (D,) without ``deepest``.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        output_layer: str,
        taps: Sequence[Tap] = (),
        heads: Sequence[Head] = (),
        deepest: Tap | None = None,
        mask: int | None = None,
        equilibrium: bool = False,
    ) -> None:
        super().__init__()
        assert len(heads) in (0, len(taps))
        self.backbone = backbone
        self.heads = nn.ModuleList(heads)
        self.output_layer = output_layer
        self.classifier = frozenset(classifier_tensors(backbone, output_layer))
        self.taps = tuple(tap.name for tap in taps[: len(heads)])
        self.exit_names = (*(f"exit{i}" for i in range(1, len(heads) + 1)), "final")
        size = feature_size(backbone.get_submodule(output_layer))
        self.feature_sizes = (*(head.feature_size for head in heads), size)
        self.map_shapes = (*(tap.shape for tap in taps), deepest.shape if deepest else (size,))
        self._maps = (*taps, deepest) if deepest else tuple(taps)
        self._masks = tuple(mask if tap.masked else None for tap in taps)
        for name in dict.fromkeys(tap.name for tap in self._maps):
            shares = _shares(self.taps.index(name), len(self.exit_names)) if equilibrium and name in self.taps else None
            backbone.get_submodule(name).register_forward_hook(partial(_keep_output, shares))
        backbone.get_submodule(output_layer).register_forward_pre_hook(_keep_input)
        self._frozen = self._only_heads = False
        # by name: FSDP puts other parameters in their place
        self._learning = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
        self._forget()

    def freeze_backbone(self, *, frozen: bool) -> None:
        """Let only the heads learn: the backbone's weights and its running statistics stay as they are."""
        if frozen != self._frozen:
            self._frozen = frozen
            for name, parameter in self.backbone.named_parameters():
                if name in self._learning:  # what the user froze stays frozen
                    parameter.requires_grad_(not frozen)
            self.train(self.training)

    def freeze_all_but_heads(self) -> None:
        """Let heads alone learn, the last one among them, for good; running statistics stay as they are."""
        self._only_heads = True
        for name, parameter in self.backbone.named_parameters():
            if name not in self.classifier:
                parameter.requires_grad_(False)
        self._learning &= self.classifier
        self.train(self.training)

    def train(self, mode: bool = True) -> MultiExit:
        """Training or evaluation mode; a frozen backbone is always in the latter."""
        super().train(mode)
        if self._frozen or self._only_heads:
            self.backbone.eval()
        if self._only_heads and not self._frozen:
            for owner in {name.rpartition(".")[0] for name in self.classifier}:
                self.backbone.get_submodule(owner).train(mode)
        return self

    def forward(self, *inputs: Tensor) -> Outputs:
        """Return all exits of the inputs in one pass; for images there is one, float [B, C, H, W]."""
        try:
            final = self.backbone(*inputs)
            feature = self._feature(_kept(self.backbone, self.output_layer, _INPUT))
            maps = tuple(self._map(tap) for tap in self._maps)
        finally:
            self._forget()
        exits = [
            head(map_, None if mask is None else inputs[mask])
            for head, map_, mask in zip(self.heads, maps, self._masks, strict=False)  # maps hold the deepest too
        ]
        return Outputs(
            logits=(*(logits for logits, _ in exits), final),
            features=(*(vector for _, vector in exits), feature),
            maps=maps or (feature,),
        )

    @property
    def masked(self) -> bool:
        """Return whether heads look at an input beside their map, a mask of padding."""
        return any(mask is not None for mask in self._masks)

    @property
    def pooled_taps(self) -> tuple[bool, ...]:
        """Return of which heads ``head_inputs`` gives the vector: those that learn nothing before their classifier."""
        return tuple(_is_fixed(head) for head in self.heads)

    def head_inputs(self, *inputs: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return all that heads and the output layer compute from, and the backbone's outputs [B, ...].

        Of a head that learns nothing before its classifier it is the vector [B, D], of others the map; the last is the
        output layer's input.
        """
        try:
            final = self.backbone(*inputs)
            last = _kept(self.backbone, self.output_layer, _INPUT)
            maps = [self._map(tap) for tap in self._maps[: len(self.heads)]]
        finally:
            self._forget()
        heads = zip(self._heads, maps, self.pooled_taps, strict=True)
        seen = [head.body(map_) if fixed else map_ for head, map_, fixed in heads]
        return (*seen, last), final

    def from_head_inputs(self, *seen: Tensor) -> Outputs:
        """Return all exits of what ``head_inputs`` gave; there are no maps."""
        *of_heads, last = seen
        exits = [
            (head.classifier(values), values) if fixed else head(values)
            for head, values, fixed in zip(self._heads, of_heads, self.pooled_taps, strict=True)
        ]
        final = self.backbone.get_submodule(self.output_layer)(last)
        self._forget()
        return Outputs(
            logits=(*(logits for logits, _ in exits), final),
            features=(*(vector for _, vector in exits), self._feature(last)),
            maps=(),
        )

    @property
    def _heads(self) -> list[Head]:
        return [cast("Head", head) for head in self.heads]

    def logits_only(self) -> LogitsOnly:
        """Return the same network, returning the tuple of logits: what is exported."""
        return LogitsOnly(self)

    def _feature(self, seen: Tensor) -> Tensor:
        """[B, D] of what the output layer sees: [B, D, H, W] if it convolves, else [B, D], [B, N, D], [B, H, W, D]."""
        if seen.dim() == 4:
            convolves = isinstance(self.backbone.get_submodule(self.output_layer), nn.Conv2d)
            return seen.mean((2, 3) if convolves else (1, 2))
        return seen.mean(1) if seen.dim() == 3 else seen

    def _map(self, tap: Tap) -> Tensor:
        output = _kept(self.backbone, tap.name, _OUTPUT)
        return output.permute(0, 3, 1, 2) if tap.channels_last else output

    def _forget(self) -> None:
        for tap in self._maps:
            setattr(self.backbone.get_submodule(tap.name), _OUTPUT, None)
        setattr(self.backbone.get_submodule(self.output_layer), _INPUT, None)


class LogitsOnly(nn.Module):
    """Every exit's logits as a plain tuple, shallow to deep.

    Args:
        net: the network; its weights are shared, not copied.
    """

    def __init__(self, net: MultiExit) -> None:
        super().__init__()
        self.net = net

    def forward(self, first: Tensor, *further: Tensor) -> tuple[Tensor, ...]:
        """E tensors [B, ...] of the inputs; the first has a name, so that one dynamic shape describes it."""
        outputs: Outputs = self.net(first, *further)
        return outputs.logits


def _keep_output(shares: tuple[float, float] | None, module: nn.Module, _inputs: Any, output: Any) -> Any:
    value = main_output(output)
    assert value is not None, "a cut point gives a map"
    if shares is None or not value.requires_grad:
        setattr(module, _OUTPUT, value)
        return None
    setattr(module, _OUTPUT, _scaled_gradient(value, shares[0]))
    return with_main_output(output, _scaled_gradient(value, shares[1]))


def _shares(exit_: int, exits: int) -> tuple[float, float]:
    """Return the shares of the gradient that pass at an exit (from 0): its head's, and the later layers'."""
    left = exits - exit_
    return 1 / left, (left - 1) / left


def _scaled_gradient(values: Tensor, share: float) -> Tensor:
    """Return the same values, exactly; only a share of their gradient flows back."""
    scaled: Tensor = _Scale.apply(values, share)
    return scaled


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor, share: float) -> Tensor:
        context.share = share
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * context.share, None


def _is_fixed(head: nn.Module) -> bool:
    """Return whether a head is a classifier on a vector that nothing learnt makes of the map."""
    if not isinstance(head, Head) or type(head).forward is not Head.forward or head.dense:
        return False
    # dropout has no tensors, and gives another vector in each step
    drops = any(isinstance(module, nn.modules.dropout._DropoutNd) for module in head.body.modules())  # noqa: SLF001
    return not drops and not [*head.body.parameters(), *head.body.buffers()]


def _keep_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    setattr(module, _INPUT, inputs[0])


def _kept(backbone: nn.Module, name: str, attribute: str) -> Tensor:
    value = getattr(backbone.get_submodule(name), attribute)
    assert isinstance(value, Tensor), name
    return value
