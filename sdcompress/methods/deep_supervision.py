"""Cross-entropy at every exit, without a teacher: the control of every method with exits.

    L = sum_i CE(z_i, y)

Source: Lee et al., "Deeply-Supervised Nets", AISTATS 2015, arXiv 1409.5185.

Differences: all exits weigh 1 until the end, where the paper fades its companion losses out. The exits have
cross-entropy, where the paper has squared-hinge SVMs.

Cost: heads in training. It has no state.

Published: no comparable figure.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from sdcompress.methods._base import Method
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch
from sdcompress.objectives.exits import total
from sdcompress.objectives.supervised import supervised_losses

__all__ = ["DeepSupervision"]


@dataclass(frozen=True, kw_only=True)
class DeepSupervision(Method):
    """Every exit learns from the labels."""

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002
        """The term ``ce`` of the equation above."""
        return {"ce": total(supervised_losses(outputs.logits, batch))}
