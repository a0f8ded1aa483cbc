"""Self-Feature Regularization (experimental, after a withdrawn paper): deep maps teach shallow ones by transport.

    L = sum_{i<C} [ CE(z_i, y) + beta OT(f_i, G_i f_C) ] + CE(z_C, (1 - lambda) y + lambda S_y)

f_i is the backbone's map at exit i as cells: at most 7 x 7 averaged positions of a map, or at most 49 tokens. G_i
averages groups of neighbouring channels of the deep map down to as many as f_i has. Where f_i has more, its channels
are grouped instead. OT = sum_uv P_uv (2 - 2 cos(s_u, t_v)): cells are compared by their directions, so that the scale
of a layer does not matter. P is the entropic transport plan between uniform weights, by Sinkhorn's iteration on
logarithms. S_y is the mean correct prediction for class y in the epoch before, and y itself where there is none. No
gradient flows into f_C, P and S.

Source: Fan and Hou, "Self-Feature Regularization: Self-Feature Distillation Without Teacher Models", arXiv 2103.07350.
**The authors withdrew the paper for "significant errors in experimental data".** None of its figures is used, and
nothing here claims to reproduce it. Only the three ideas of its abstract are taken: an earth mover's distance from
shallow to deep features, several deep channels that teach one, and dynamic label smoothing at the output. The formulas
are ours: the transport of Cuturi (arXiv 1306.0895), and online label smoothing (Zhang et al., TIP 2021, arXiv
2011.12562).

Defaults: ours. The code of online label smoothing has lambda = 0.5.

Differences: the paper's formulas could not be read. The exits have their own classifiers. The cost of a pair of cells
is that of the only public code after this paper (openvinotoolkit/mmaction2), times 2. In the code of online label
smoothing the first epoch has no soft label, as here. Later a class without a correct prediction has a uniform one
there.

Cost: heads and the transport in training. The checkpoint holds 8 K^2 bytes for K classes.

Measured: before 2026-11-29 cells were compared unscaled, a class without a correct prediction had a uniform label, and
both weights were 1 and 0.5. With those ResNet-8 on CIFAR-100 at 16x16 ended 4.0 points below deep supervision
(benchmarks/cpu). The gradient of the transport was 2.3 times that of the labels at the first step. As it is now, with a
weight of 1, it is 0.7 times at the first step, 0.2 times at the 120th and 0.07 times in a trained network, at right
angles to it. The label probably cost most: the last exit, which alone has it, ended at 27.5 % and the second at
27.6 %. benchmarks/ablations has the rows, not yet measured. As it is now, ResNet-18 of quarter width on 1,000 images of
Fashion-MNIST ends at 85.8 %, deep supervision at 85.8 % and the baseline at 84.5 %: three seeds
(benchmarks/few_labels).

Published: none that may be used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from sdcompress.methods._base import Context, Count, Method, Needs, Positive, Share, Weight
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch
from sdcompress.objectives.exits import deepest, total
from sdcompress.objectives.features import cells, pool
from sdcompress.objectives.memory import ClassMemory
from sdcompress.objectives.supervised import encoded_targets, last_target, weighted
from sdcompress.objectives.transport import transport

__all__ = ["Sfr"]

_NO_DIRECTION = 1e-3  # length of a cell below which its gradient grows no more


@dataclass(frozen=True, kw_only=True)
class Sfr(Method):
    """The deepest map is the teacher of the shallower maps, the last epoch's mean prediction that of the last exit.

    Attributes:
        transport_weight: beta; 0 leaves the transport out.
        label_weight: lambda, share of the soft label S at the last exit.
        epsilon: entropy of the transport plan, relative to each sample's mean cost.
        iterations: Sinkhorn steps. At the default epsilon the plan's row sums are close to uniform, not equal to it.
    """

    default_needs: ClassVar[Needs] = Needs(tasks=("classification",), maps=True, mixing=False)

    transport_weight: Weight = 0.1
    label_weight: Share = 0.1
    epsilon: Positive = 0.05
    iterations: Count = 20

    def state(self, context: Context) -> nn.Module:
        """The soft label of every class."""
        return ClassMemory(len(context.task.outputs))

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:
        """The terms ``ce`` and ``transport`` of the equation above."""
        *shallow, last = outputs.logits
        y = encoded_targets(batch)
        soft = state(batch.samples.targets, batch.task.soft_targets(last), batch.epoch)
        label = (1 - self.label_weight) * last_target(batch, y) + self.label_weight * weighted(soft, batch)
        loss = batch.task.supervised_loss
        terms = {"ce": total(loss(z, y) for z in shallow) + loss(last, label)}
        if self.transport_weight:
            teacher = cells(deepest(outputs.maps))
            terms["transport"] = self.transport_weight * total(self._distance(f, teacher) for f in outputs.maps[:-1])
        return terms

    def _distance(self, shallow: Tensor, teacher: Tensor) -> Tensor:
        student = cells(shallow)
        channels = min(student.shape[2], teacher.shape[2])
        one, other = (
            # of length sqrt(channels), so that the cost, a mean over channels, is 2 - 2 cos
            channels**0.5 * F.normalize(pool(values, 2, channels), dim=2, eps=_NO_DIRECTION)
            for values in (student, teacher)
        )
        return transport(one, other, epsilon=self.epsilon, iterations=self.iterations)
