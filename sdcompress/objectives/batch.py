"""What a loss may know of a training step besides the network's outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import Tensor

from sdcompress.models.outputs import Outputs

if TYPE_CHECKING:
    from sdcompress.tasks import Task

__all__ = ["Batch", "Minibatch", "Mix", "SecondView", "View"]


class Mix(NamedTuple):
    """The other half of a mixed batch (mixup, CutMix): sample i holds ``weight[i]`` of its own target.

    Attributes:
        targets: [B, ...], of the samples that were mixed in.
        weight: float32 [B] in [0, 1], share of the sample's own target.
        partner: int64 [B], where in the batch those samples stand.
    """

    targets: Tensor
    weight: Tensor
    partner: Tensor

    def blend(self, own: Tensor, other: Tensor) -> Tensor:
        """``weight * own + (1 - weight) * other`` of tensors [B, ...]."""
        weight = self.weight.view(-1, *[1] * (own.dim() - 1))
        return weight * own + (1 - weight) * other


class Minibatch(NamedTuple):
    """Samples that the network sees in one pass; a tuple, because DDP looks for tensors in tuples, not in our types.

    Attributes:
        inputs: of the network, each [B, ...], in the order of the modality's tensors; for images float32 [B, C, H, W].
            Before the augmentation these are the examples, as the data set holds them.
        targets: [B, ...], as the task has them.
        positions: int64 [B], of the samples in the training split: the keys of per-sample state.
        mix: set when the samples are mixed; targets and positions are those before.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor
    positions: Tensor
    mix: Mix | None = None


@dataclass(frozen=True)
class View:
    """Which samples the network sees in a step besides the step's own; as many as those.

    Attributes:
        samples: ``same``, the step's samples; ``same_stratum``, for each sample another one of its stratum, such as its
            class; ``previous``, the samples of the step before (in the first step its own).
        augmented: drawn anew; False: the very inputs of the step again, which only dropout tells apart.
        mixed: alpha of the Beta distribution with which they are mixed among themselves (mixup), 0 = off.
        gradient: whether gradients flow through their outputs. If so both halves are one batch to the network; if not
            they are a batch of their own, which still moves the running statistics of batch norms.
    """

    samples: Literal["same", "same_stratum", "previous"] = "same"
    augmented: bool = True
    mixed: float = 0.0
    gradient: bool = True


class SecondView(NamedTuple):
    """The samples of a ``View``, and the network's outputs for them."""

    outputs: Outputs
    samples: Minibatch


@dataclass(frozen=True)
class Batch:
    """One training step.

    Attributes:
        samples: what the network has seen.
        task: what targets and outputs mean.
        step: steps done before this one; the parts of a step that adds gradients up share it.
        epoch: whole epochs done before this step.
        progress: share of the training done before this step, in [0, 1).
        phase: which of the method's phases this step belongs to, from 0.
        smoothing: label smoothing of the recipe, 0 = off.
        class_weights: float32 [K], which multiply the encoded targets; None: all 1.
        last_target: [B, ...], the encoded target of the last exit where it differs from the others' (``eed+ps_kd``).
        second: the method's further view.
        teacher: outputs of the method's teacher network: the averaged weights, the generation before, or another
            training.
    """

    samples: Minibatch
    task: Task
    step: int = 0
    epoch: int = 0
    progress: float = 0.0
    phase: int = 0
    smoothing: float = 0.0
    class_weights: Tensor | None = None
    last_target: Tensor | None = None
    second: SecondView | None = None
    teacher: Outputs | None = None

    @property
    def second_view(self) -> SecondView:
        """Return the further view, for a method that needs one."""
        assert self.second is not None
        return self.second

    @property
    def teacher_outputs(self) -> Outputs:
        """Return outputs of the teacher network, for a method that needs one."""
        assert self.teacher is not None
        return self.teacher

    def with_samples(self, samples: Minibatch) -> Batch:
        """Return the same step with other samples, such as those of the further view."""
        return replace(self, samples=samples, last_target=None)
