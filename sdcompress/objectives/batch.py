"""What a loss may know of a step besides the network's outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from sdcompress.models.outputs import Outputs
    from sdcompress.objectives.views import Second

__all__ = ["Batch", "Mix"]


class Mix(NamedTuple):
    """The other half of a mixed batch (mixup, CutMix): image i holds ``weight[i]`` of its own label.

    Attributes:
        labels: int64 [B], labels of the images that were mixed in.
        weight: float32 [B] in [0, 1], share of the image's own label.
        partner: int64 [B], where in the batch those images stand.
    """

    labels: Tensor
    weight: Tensor
    partner: Tensor


@dataclass(frozen=True)
class Batch:
    """One training step's samples.

    Attributes:
        images: float [B, C, H, W], augmented and normalised.
        labels: int64 [B].
        index: int64 [B], position of each sample in the training split: the key of per-sample state.
        step: steps done before this one; the parts of a step that adds gradients up share it.
        epoch: whole epochs done before this step.
        progress: share of the training done before this step, in [0, 1).
        phase: which of the method's phases this step belongs to, from 0.
        smoothing: label smoothing of the recipe, 0 = off.
        class_weights: float32 [K], of the labels' cross-entropy; None: all 1.
        mix: set when the images are mixed.
        final: [B, K], the label of the last exit where that is another than the other exits' (``eed+ps_kd``).
        second: what the network says of the method's further view.
        teacher: what the method's teacher network says of the images: the averaged weights, or the generation before.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    step: int = 0
    epoch: int = 0
    progress: float = 0.0
    phase: int = 0
    smoothing: float = 0.0
    class_weights: Tensor | None = None
    mix: Mix | None = None
    final: Tensor | None = None
    second: Second | None = None
    teacher: Outputs | None = None

    def further(self) -> Second:
        """What the network says of the further view, for a method that asks for one."""
        assert self.second is not None
        return self.second

    def of(self, second: Second) -> Batch:
        """The same step with the further view's samples in the place of its own."""
        return replace(self, labels=second.labels, index=second.index, mix=second.mix, final=None)

    def taught(self) -> Outputs:
        """What the teacher network says, for a method that asks for one."""
        assert self.teacher is not None
        return self.teacher
