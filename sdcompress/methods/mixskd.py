"""MixSKD, its interpolation of logits: predictions of mixtures and mixtures of predictions teach each other.

    L = sum_i [ CE(z_i(x), y) + CE(z_i(m), y_m) + lambda T^2 ( KL(r_i || p_i(m)) + KL(p_i(m) || r_i) ) ]

m = w x_a + (1 - w) x_b has the label y_m = w y_a + (1 - w) y_b. x_b is another sample of the batch, and w is drawn from
Beta(alpha, alpha). r_i = softmax((w z_i(x_a) + (1 - w) z_i(x_b)) / T), and p_i(m) = softmax(z_i(m) / T). No gradient
flows into the first argument of a KL.

Source: Yang et al., "MixSKD: Self-Knowledge Distillation from Mixup for Image Recognition", ECCV 2022, arXiv
2208.05768.

Defaults: T = 3 and alpha = 0.4 of the authors' code for CIFAR-100 (winycg/Self-KD-Lib).

Differences: only the paper's terms on labels and logits are here. Left out are the interpolated feature maps, the
adversarial discriminator, and the self-teacher on all maps, which there teaches the last exit alone. The cross-entropy
of the mixture is the paper's: the authors' CIFAR script computes it and never adds it. The heads are those of the
recipe. Its control is deep supervision with mixup.

Cost: heads and a second view of the samples, **twice the compute of every step**. It has no state.

Published: for the whole method, PreAct-ResNet-18, CIFAR-100: 80.32 % against 76.24 % without, 78.68 % with mixup and
80.17 % with CutMix alone (README of that repository; best epoch on the test set).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from sdcompress.methods._base import Method, Needs, Positive, Weight
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch, View
from sdcompress.objectives.exits import total
from sdcompress.objectives.supervised import supervised_losses

__all__ = ["MixSkd"]


@dataclass(frozen=True, kw_only=True)
class MixSkd(Method):
    """Mixed predictions and predictions of mixtures teach each other.

    Attributes:
        kd_weight: lambda.
        temperature: T.
        alpha: parameter of the Beta distribution that the mixture's weight is drawn from.
    """

    kd_weight: Weight = 1.0
    temperature: Positive = 3.0
    alpha: Positive = 0.4

    @property
    def needs(self) -> Needs:
        """Return the very inputs of the step again, mixed."""
        return Needs(mixing=False, view=View(augmented=False, mixed=self.alpha))

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002
        """The terms ``ce``, ``mixed`` and ``kd`` of the equation above."""
        second = batch.second_view
        mix = second.samples.mix
        assert mix is not None
        mixtures = [mix.blend(z, z[mix.partner]) for z in outputs.logits]
        pairs = [*zip(mixtures, second.outputs.logits, strict=True)]
        divergence, t = batch.task.divergence, self.temperature
        return {
            "ce": total(supervised_losses(outputs.logits, batch)),
            "mixed": total(supervised_losses(second.outputs.logits, batch.with_samples(second.samples))),
            "kd": self.kd_weight * total(divergence(m, r.detach(), t) + divergence(r, m.detach(), t) for r, m in pairs),
        }
