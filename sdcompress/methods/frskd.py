"""FRSKD: a pyramid on the network's own maps teaches the logits and where the maps are active.

    L = CE(z, y) + CE(z', y) + alpha T^2 KL(p' || p) + beta sum_i |A(f_i) - A(t_i)|^2 / (H_i W_i)

t_i are maps that a pyramid refines from the backbone's maps f_i. z' are the logits of the pyramid's classifier, and p =
softmax(z / T). A(f) = a / |a|, where a is the mean over channels of f^2. No gradient flows into p' and A(t_i). The
pyramid learns from its labels alone, and the backbone learns through it.

Source: Ji et al., "Refine Myself by Teaching Myself: Feature Refinement via Self-Knowledge Distillation", CVPR 2021,
arXiv 2103.08273.

Defaults: of the authors' code (MingiJi/FRSKD) for ResNet-18 on CIFAR-100.

Differences from that code: every level of the pyramid has the same width, while there a level has twice the width of
its map. A level has one separable convolution, while there it has two, and norms after every sampling. The norms are
group norms, so that the loss does not depend on how a batch is split. The maps are taken where exits would be
(``exits.count``, ``exits.modules``), in any backbone whose maps are [C, H, W].

Cost: the pyramid in training. It is in the checkpoint and is never exported.

Measured: the terms and their units are those of the code. With ResNet-8 on CIFAR-100 at 16x16 and a width of 32 it ends
11.2 points below label smoothing (benchmarks/cpu). The feature term is too large there: in the backbone its gradient is
4.8 times that of the labels at the first step, 2.0 times at the 20th, 0.9 times at the 60th and 0.5 times at the 120th.
The labels' loss is then 4.22, and 4.00 with a hundredth of the weight. Besides, the pyramid learns no faster than the
network that it teaches: its loss is 4.28. Whether the end differs is a row of benchmarks/ablations, not yet measured.

Published: PreAct-ResNet-18, CIFAR-100: 76.60 % against 76.24 % without and 78.72 % with label smoothing (README of
winycg/Self-KD-Lib; best epoch on the test set).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from sdcompress.methods._base import Context, Count, Method, Needs, Positive, Presets, Weight
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch
from sdcompress.objectives.exits import total
from sdcompress.objectives.features import attention, l2
from sdcompress.objectives.pyramid import Pyramid
from sdcompress.objectives.supervised import supervised_loss

__all__ = ["Frskd"]


@dataclass(frozen=True, kw_only=True)
class Frskd(Method):
    """A pyramid over the network's maps is the teacher; no exits.

    Attributes:
        kd_weight: alpha.
        temperature: T.
        feature_weight: beta.
        width: channels of the pyramid.
    """

    default_needs: ClassVar[Needs] = Needs(exits=False, maps=True)
    presets: ClassVar[Presets] = {"paper": {"kd_weight": 2.0, "temperature": 4.0, "feature_weight": 100.0}}

    kd_weight: Weight = 2.0
    temperature: Positive = 4.0
    feature_weight: Weight = 100.0
    width: Count = 128

    def state(self, context: Context) -> nn.Module:
        """The pyramid and its classifier.

        Raises:
            RecipeError: if a map is no picture, or a sample's outputs are no vector.
        """
        return Pyramid(context.maps, context.task.output_shape, width=self.width)

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:
        """The terms ``ce``, ``teacher``, ``kd`` and ``feature`` of the equation above."""
        (z,) = outputs.logits
        refined, taught = state(outputs.maps)
        pairs = zip(outputs.maps, refined, strict=True)
        return {
            "ce": supervised_loss(z, batch),
            "teacher": supervised_loss(taught, batch),
            "kd": self.kd_weight * batch.task.divergence(z, taught.detach(), self.temperature),
            "feature": self.feature_weight * total(l2(attention(f), attention(t.detach())) for f, t in pairs),
        }
