"""The contract of a method: a frozen set of numbers, optional state, one call that returns named loss terms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from torch import Tensor, nn

from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch, View
from sdcompress.tasks import Task

__all__ = [
    "Context",
    "Count",
    "Decay",
    "Factor",
    "LabelMethod",
    "Method",
    "Needs",
    "Part",
    "Phase",
    "Positive",
    "Presets",
    "Several",
    "Share",
    "Weight",
]


Presets = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Context:
    """What a method's state is sized by.

    Attributes:
        samples: number of training samples.
        batch: samples of a batch, over all processes.
        task: gives the shape of outputs.
        features: D_i of each exit, shallow to deep.
        maps: shape of each exit's map without the batch axis, shallow to deep: (C, H, W) or (N, C).
    """

    samples: int
    batch: int
    task: Task
    features: tuple[int, ...]
    maps: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Needs:
    """What a method needs of the network, the data and the loop, so that the loop never tells methods apart.

    Attributes:
        tasks: names of the tasks that it can serve; None: every task, because it only uses the task's losses.
        exits: the network is trained with exits.
        maps: the method uses the backbone's maps, where exits are or would be; a frozen backbone refuses it.
        mixing: mixup and CutMix may be on; a memory of each sample forbids it.
        dropout: the network must have dropout or stochastic depth.
        view: further samples that the network sees in each step.
        average: decay of the EMA teacher's weights; 0: there is no such teacher.
        teacher: the network of another training teaches, which ``method.teacher`` names; not with an average or a
            restart, which have a teacher of their own.
    """

    tasks: tuple[str, ...] | None = None
    exits: bool = True
    maps: bool = False
    mixing: bool = True
    dropout: bool = False
    view: View | None = None
    average: float = 0.0
    teacher: bool = False


@dataclass(frozen=True)
class Phase:
    """A part of the training, with a learning rate schedule of its own.

    Attributes:
        share: of the epochs.
        freeze_backbone: the backbone learns nothing and keeps its running statistics; only heads learn.
        restart: the network starts from other random weights, and the network before is the teacher.
    """

    share: float = 1.0
    freeze_backbone: bool = False
    restart: bool = False


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A published method: fields are its hyper-parameters, the call is its loss.

    Attributes:
        default_needs: what it needs, unless its parameters decide that; then it overrides ``needs``.
        presets: name -> parameters that a recipe chooses together; ``paper`` holds those of the paper, or else of
            public code for it. Numbers alone: ``sdcompress list`` reads them from the file without importing it.
    """

    default_needs: ClassVar[Needs] = Needs()
    presets: ClassVar[Presets] = MappingProxyType({})
    # pydantic checks the numbers of a recipe against the fields; no method has a use for inf or nan
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(allow_inf_nan=False)

    @property
    def needs(self) -> Needs:
        """Return what it needs with these parameters."""
        return self.default_needs

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Return the parts of the training, whose shares add up to 1."""
        return (Phase(),)

    def state(self, context: Context) -> nn.Module:  # noqa: ARG002 - most methods need none
        """Adapters that are trained, tables that are remembered: kept in the checkpoint, never exported."""
        return nn.Module()

    @abstractmethod
    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:
        """The loss as named, already weighted scalar terms; their sum is minimised.

        Args:
            outputs: all exits of this step (one exit if ``needs.exits`` is False).
            batch: this step's samples.
            state: what ``state`` built, in training mode.
        """


@dataclass(frozen=True, kw_only=True)
class LabelMethod(Method):
    """A method that is nothing but a better label for the last exit, so that any method with exits can learn from it.

    ``eed+ps_kd`` in a recipe is the loss of the one on the labels of the other.
    """

    default_needs: ClassVar[Needs] = Needs(exits=False)

    @abstractmethod
    def label(self, logits: Tensor, batch: Batch, state: nn.Module) -> Tensor:
        """Return the encoded target of the last exit, [B, ...], through which no gradient flows.

        Args:
            logits: of the last exit, [B, ...].
            batch: this step's samples.
            state: what ``state`` built.
        """

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:
        """The term ``ce``: the task's supervised loss of the only exit with that label."""
        (z,) = outputs.logits
        return {"ce": batch.task.supervised_loss(z, self.label(z, batch, state))}


Count = Annotated[int, Field(ge=1)]
Decay = Annotated[float, Field(gt=0.0, lt=1.0)]
Factor = Annotated[float, Field(ge=1.0, allow_inf_nan=False)]
Part = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Several = Annotated[int, Field(ge=2)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
