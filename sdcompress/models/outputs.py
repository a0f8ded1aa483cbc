"""Define the outputs of a network with exits in training, and the letters of the package's shapes.

B batch, K outputs, E exits, D features of a pooled vector, C H W channels and pixels, N tokens.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Outputs"]


class Outputs(NamedTuple):
    """All exits of one forward pass, shallow to deep; the last is the backbone's own classifier.

    Attributes:
        logits: E tensors of shape [B, K].
        features: E tensors of shape [B, D_i], the input of each exit's classifier.
        maps: E tensors, the backbone's map at each tap: [B, C_i, H_i, W_i], or [B, N, C_i] for token models;
            the last is the deepest map before pooling. Maps that the backbone has as [B, H, W, C] are turned. Without
            exits before the last nothing is tapped, and the only map is the feature itself, [B, D].
    """

    logits: tuple[Tensor, ...]
    features: tuple[Tensor, ...]
    maps: tuple[Tensor, ...]
