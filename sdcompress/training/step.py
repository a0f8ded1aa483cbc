"""One training step as one module: the network, the method's loss and the method's own parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sdcompress.methods._base import Method
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch, Mix

__all__ = ["TrainingStep"]


class TrainingStep(nn.Module):
    """From a batch to the named terms of the loss; a single module, so that DDP sees all that is trained.

    Args:
        net: the network, compiled or not.
        method: the loss.
        state: what ``method.state`` built.
        smoothing: label smoothing of the recipe.
    """

    def __init__(self, net: nn.Module, method: Method, state: nn.Module, smoothing: float) -> None:
        super().__init__()
        self.net, self.state = net, state
        self._method, self._smoothing = method, smoothing

    def forward(
        self, images: Tensor, labels: Tensor, index: Tensor, mix: tuple[Tensor, Tensor] | None, clock: tuple[int, float]
    ) -> dict[str, Tensor]:
        """The weighted terms of the loss, scalars in float32.

        Args:
            images: float [B, C, H, W].
            labels: int64 [B].
            index: int64 [B], positions in the training split.
            mix: the fields of ``Mix``, or None. Tensors, because DDP looks for them in tuples, not in our types.
            clock: whole epochs done, and the share of the training done.
        """
        outputs = self.net(images)
        # a sum of exponentials or a transport plan in half precision is not the loss that the papers mean
        with torch.autocast(images.device.type, enabled=False):
            outputs = Outputs(*(tuple(tensor.float() for tensor in group) for group in outputs))
            batch = Batch(images, labels, index, *clock, self._smoothing, Mix(*mix) if mix else None)
            return self._method(outputs, batch, self.state)
