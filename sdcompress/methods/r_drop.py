"""R-Drop: two passes of the same samples with different dropout learn to agree.

    L = mean over both passes CE(z, y) + alpha [ KL(p_1 || p_2) + KL(p_2 || p_1) ] / 2,   p = softmax(z)

Gradients flow through both arguments of both divergences, as in the paper: neither pass is the teacher.

Source: Liang et al., "R-Drop: Regularized Dropout for Neural Networks", NeurIPS 2021, arXiv 2106.14448.

Defaults: alpha = 1 is the authors' value for most of GLUE. Their values range from 0.5 for GLUE to 5 for translation.

Differences from the authors' code (dropreg/R-Drop): the divergence is a mean over the batch. Their classification code
sums it, so that the effect of alpha grows with the batch. The cross-entropies are averaged, as in the README there. The
paper's equation adds them up: an alpha of 1 in it is 0.5 here. A network without dropout or stochastic depth is
refused; ``model.options`` can switch them on.

Cost: a second view of the samples, **twice the compute of every step**. It has no state.

Published: WMT14 English-German 30.91 BLEU (abstract). Its figures for vision transformers were not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from sdcompress.methods._base import Method, Needs, Presets, Weight
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch, View
from sdcompress.objectives.supervised import supervised_loss

__all__ = ["RDrop"]


@dataclass(frozen=True, kw_only=True)
class RDrop(Method):
    """Two passes of one network agree; no exits.

    Attributes:
        consistency_weight: alpha.
    """

    default_needs: ClassVar[Needs] = Needs(exits=False, dropout=True, view=View(augmented=False))
    presets: ClassVar[Presets] = {"paper": {"consistency_weight": 1.0}}

    consistency_weight: Weight = 1.0

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002
        """The terms ``ce`` and ``consistency`` of the equation above."""
        (one,), (two,) = outputs.logits, batch.second_view.outputs.logits
        divergence = batch.task.divergence
        return {
            "ce": (supervised_loss(one, batch) + supervised_loss(two, batch)) / 2,
            "consistency": self.consistency_weight * (divergence(one, two, 1.0) + divergence(two, one, 1.0)) / 2,
        }
