"""Born-again networks: each generation learns from the finished generation before it.

    first generation:   L = CE(z, y)
    later generations:  L = (1 - lambda) CE(z, y) + lambda T^2 KL(p' || p),   p = softmax(z / T)

p' is the prediction of the generation before. No gradient flows into it. Each generation starts from new random
weights.

Source: Furlanello et al., "Born-Again Neural Networks", ICML 2018, arXiv 1805.04770.

Defaults: ours. The paper's student learns from the teacher and the labels alike, at T = 1.

Differences: there is no ensemble of the generations. **train.epochs counts all generations together**: three
generations of 200 epochs are 600, and the fair control is one network trained for 600. Two generations are the variant
"self" of Tf-KD (arXiv 1909.11723).

Cost: a forward pass of the teacher in each step from the second generation on, about a third more compute. The
checkpoint also holds the weights of the generation before.

Published: ResNet-18, CIFAR-100, one seed: 78.34 / 79.34 / 79.42 % in the first three generations, against 78.01 %
(README of amir4javar's rerun).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from sdcompress.methods._base import Method, Needs, Phase, Positive, Several, Share
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch
from sdcompress.objectives.exits import deepest
from sdcompress.objectives.supervised import supervised_loss

__all__ = ["BornAgain"]


@dataclass(frozen=True, kw_only=True)
class BornAgain(Method):
    """The previous generation is the teacher; no exits.

    Attributes:
        generations: how many networks are trained, one after the other; train.epochs is for all of them.
        kd_weight: lambda, share of the distillation from the second generation on.
        temperature: T.
    """

    default_needs: ClassVar[Needs] = Needs(exits=False)

    generations: Several = 3
    kd_weight: Share = 0.5
    temperature: Positive = 1.0

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Return one for each generation."""
        share = 1 / self.generations
        return Phase(share), *(Phase(share, restart=True) for _ in range(self.generations - 1))

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002
        """The terms ``ce`` and, from the second generation on, ``kd`` of the equation above."""
        (z,) = outputs.logits
        ce = supervised_loss(z, batch)
        if batch.phase == 0:
            return {"ce": ce}
        teacher = deepest(batch.teacher_outputs.logits)
        kd = batch.task.divergence(z, teacher, self.temperature)
        return {"ce": (1 - self.kd_weight) * ce, "kd": self.kd_weight * kd}
