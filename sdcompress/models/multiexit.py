"""A backbone with exits: taps on its modules, a head on each, one forward pass for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sdcompress.models.classifier import feature_size
from sdcompress.models.heads._base import Head
from sdcompress.models.outputs import Outputs

__all__ = ["LogitsOnly", "MultiExit", "Tap"]

# attributes of tapped modules, set only during a forward pass
_OUTPUT = "tapped_output"
_INPUT = "classifier_input"


@dataclass(frozen=True)
class Tap:
    """A module of the backbone whose output an exit looks at.

    Attributes:
        name: the module.
        shape: of its output as heads and losses see it, without the batch axis: (C, H, W) or (N, C).
        channels_last: whether the backbone has it as [B, H, W, C] instead (Swin and its like).
    """

    name: str
    shape: tuple[int, ...]
    channels_last: bool = False


class MultiExit(nn.Module):
    """A backbone and its exits. Heads see the whole map, so gradients of every exit reach the backbone.

    A tapped module keeps its output as an attribute of its own until the forward pass ends; nothing is kept after it.
    So the network can be copied, pickled, compiled and exported, but not called from two threads at once.

    Args:
        backbone: returns logits [B, K].
        classifier: the backbone's module whose input is the final feature (``classifier_name``).
        taps: where the exits before the last look, in order of execution.
        heads: one for each tap.
        deepest: the map before pooling; without it the feature stands for the last exit's map.

    Attributes:
        exit_names: "exit1", ..., "final".
        taps: names of the tapped modules, E - 1.
        feature_sizes: D_i of each exit.
        map_shapes: of each exit's map without the batch axis: (C, H, W), (N, C), or (D,) without ``deepest``.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        classifier: str,
        taps: Sequence[Tap] = (),
        heads: Sequence[Head] = (),
        deepest: Tap | None = None,
    ) -> None:
        super().__init__()
        assert len(taps) == len(heads)
        self.backbone = backbone
        self.heads = nn.ModuleList(heads)
        self.classifier = classifier
        self.taps = tuple(tap.name for tap in taps)
        self.exit_names = (*(f"exit{i}" for i in range(1, len(taps) + 1)), "final")
        size = feature_size(backbone.get_submodule(classifier))
        self.feature_sizes = (*(head.feature_size for head in heads), size)
        self.map_shapes = (*(tap.shape for tap in taps), deepest.shape if deepest else (size,))
        self._maps = (*taps, deepest) if deepest else tuple(taps)
        for name in dict.fromkeys(tap.name for tap in self._maps):
            backbone.get_submodule(name).register_forward_hook(_keep_output)
        backbone.get_submodule(classifier).register_forward_pre_hook(_keep_input)
        self._forget()

    def forward(self, images: Tensor) -> Outputs:
        """All exits of float images [B, C, H, W] in one pass."""
        try:
            final = self.backbone(images)
            feature = _pooled(_kept(self.backbone, self.classifier, _INPUT))
            maps = tuple(self._map(tap) for tap in self._maps)
        finally:
            self._forget()
        exits = [head(maps[i]) for i, head in enumerate(self.heads)]
        return Outputs(
            logits=(*(logits for logits, _ in exits), final),
            features=(*(vector for _, vector in exits), feature),
            maps=maps or (feature,),
        )

    def logits_only(self) -> LogitsOnly:
        """The same network, returning the tuple of logits: what is exported."""
        return LogitsOnly(self)

    def _map(self, tap: Tap) -> Tensor:
        output = _kept(self.backbone, tap.name, _OUTPUT)
        return output.permute(0, 3, 1, 2) if tap.channels_last else output

    def _forget(self) -> None:
        for tap in self._maps:
            setattr(self.backbone.get_submodule(tap.name), _OUTPUT, None)
        setattr(self.backbone.get_submodule(self.classifier), _INPUT, None)


class LogitsOnly(nn.Module):
    """Every exit's logits as a plain tuple, shallow to deep.

    Args:
        net: the network; its weights are shared, not copied.
    """

    def __init__(self, net: MultiExit) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """E tensors [B, K] of float images [B, C, H, W]."""
        outputs: Outputs = self.net(images)
        return outputs.logits


def _keep_output(module: nn.Module, _inputs: Any, output: Tensor) -> None:
    setattr(module, _OUTPUT, output)


def _keep_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    setattr(module, _INPUT, inputs[0])


def _kept(backbone: nn.Module, name: str, attribute: str) -> Tensor:
    value = getattr(backbone.get_submodule(name), attribute)
    assert isinstance(value, Tensor), name
    return value


def _pooled(feature: Tensor) -> Tensor:
    """[B, D] of a classifier's input: a convolution's is [B, D, H, W], a token classifier's [B, N, D]."""
    if feature.dim() == 4:
        return feature.mean((2, 3))
    return feature.mean(1) if feature.dim() == 3 else feature
