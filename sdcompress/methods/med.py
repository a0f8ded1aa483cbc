"""Multi-exit distillation: the last exit teaches the others at a temperature that rises with its confidence.

    L = CE(z_C, y) + sum_{i<C} [ (1 - c) CE(z_i, y) + c T^2 KL(p_C || p_i) ],   p_i = softmax(z_i / T)

T starts at 1. A step multiplies it by 1.05 if the softened teacher's mean largest probability was above 1/2. No
gradient flows into p_C.

Source: Phuong and Lampert, "Distillation-Based Training for Multi-Exit Architectures", ICCV 2019, doi
10.1109/ICCV.2019.00144.

Defaults: of the authors' code (mary-phuong/multiexit-distillation).

Differences from that code: the last exit's labels weigh 1. There they weigh 1 - c, because it is its own teacher too.
The code's factor of 10 / C on the whole loss only rescales the learning rate and is left out.

Cost: heads in training. The temperature is in the checkpoint.

Published: no figure could be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from sdcompress.errors import RecipeError
from sdcompress.methods._base import Context, Factor, Method, Needs, Presets, Share
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch
from sdcompress.objectives.exits import deepest, total
from sdcompress.objectives.memory import RisingTemperature
from sdcompress.objectives.supervised import supervised_losses

__all__ = ["Med"]


@dataclass(frozen=True, kw_only=True)
class Med(Method):
    """The deepest exit is the teacher; its temperature follows its confidence.

    Attributes:
        kd_weight: c, share of the distillation; the labels of the shallower exits keep 1 - c.
        rise: factor by which T is multiplied.
        confidence: mean largest probability above which T rises; must be above 1 / K.
    """

    default_needs: ClassVar[Needs] = Needs(tasks=("classification",))
    presets: ClassVar[Presets] = {"paper": {"kd_weight": 0.5, "rise": 1.05, "confidence": 0.5}}

    kd_weight: Share = 0.5
    rise: Factor = 1.05
    confidence: Share = 0.5

    def state(self, context: Context) -> nn.Module:
        """Return the temperature.

        Raises:
            RecipeError: if the teacher would always be sure, so that the temperature never stopped rising.
        """
        classes = len(context.task.outputs)
        if self.confidence <= 1 / classes:
            raise RecipeError(
                f"method.confidence is {self.confidence:g}, and no largest probability of {classes} classes is "
                "lower: the temperature would rise for ever.",
                allowed=f"above {1 / classes:.3g} with {classes} classes",
                next_step=f"--set method.confidence={(1 + 1 / classes) / 2:.3g}",
            )
        return RisingTemperature(self.rise, self.confidence)

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:
        """The terms ``ce`` and ``kd`` of the equation above."""
        *shallow_ce, last_ce = supervised_losses(outputs.logits, batch)
        teacher = deepest(outputs.logits)
        temperature = state(teacher, batch.step)
        divergence = batch.task.divergence
        return {
            "ce": (1 - self.kd_weight) * total(shallow_ce) + last_ce,
            "kd": self.kd_weight * total(divergence(z, teacher, temperature) for z in outputs.logits[:-1]),
        }
