"""FastBERT: the network is trained alone first; then the backbone is frozen and its last exit teaches the others.

    first:  L = CE(z_C, y)
    then:   L = sum_{i<C} T^2 KL(p_C || p_i),   p = softmax(z / T);   only heads learn

The second phase uses no labels. No gradient flows into p_C.

Source: Liu et al., "FastBERT: a Self-distilling BERT with Adaptive Inference Time", ACL 2020, arXiv 2004.02178.

Defaults: half of the epochs for each phase is ours. In the paper the phases are separate runs.

Differences from the authors' code (autoliuweijie/FastBERT): the frozen backbone is in evaluation mode, while there the
teacher's dropout is on. Weight decay does not move the frozen backbone, while there it does. The heads are those of the
recipe. Each phase has its own learning rate schedule. The divergence is the code's: the paper's equation has its
arguments in the other order.

Cost: heads in training. It has no state.

Published: for text only. On Douban reviews 86.64 to 86.98 % against 86.88 %, at a quarter of the FLOPs (README of that
repository).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from sdcompress.methods._base import Method, Part, Phase, Positive
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch
from sdcompress.objectives.exits import deepest, total
from sdcompress.objectives.supervised import supervised_losses

__all__ = ["FastBert"]


@dataclass(frozen=True, kw_only=True)
class FastBert(Method):
    """The trained network is the teacher of its exits.

    Attributes:
        backbone_share: share of the epochs for the network alone. 0 is allowed only where ``model.weights`` or
            published weights give a trained network.
        temperature: T; the paper has 1.
    """

    backbone_share: Part = 0.5
    temperature: Positive = 1.0

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The network, then its exits."""
        exits = Phase(1 - self.backbone_share, freeze_backbone=True)
        return (Phase(self.backbone_share), exits) if self.backbone_share else (exits,)

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002
        """The term ``ce``, then the term ``kd`` of the equation above."""
        *shallow, last = outputs.logits
        if not self.phases[batch.phase].freeze_backbone:
            return {"ce": total(supervised_losses((last,), batch))}
        divergence = batch.task.divergence
        teacher = deepest(outputs.logits)
        return {"kd": total(divergence(z, teacher, self.temperature) for z in shallow)}
