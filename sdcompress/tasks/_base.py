"""The contract of a task: what a network's outputs mean, and what it costs to be wrong."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, TypeAdapter

from sdcompress.errors import RecipeError
from sdcompress.schema.manifest import RegistryEntry
from sdcompress.tasks._signals import AGREEMENT, Array, Float, Signals

if TYPE_CHECKING:
    import onnx
    from torch import Tensor
    from typing_extensions import Self

    from sdcompress.schema import graphs

__all__ = ["Prediction", "Task", "metric_of", "standard_error"]

_OUTPUT_BYTES = 2**26


def metric_of(loss: npt.NDArray[np.floating]) -> float:
    """The metric of samples with these losses, [N]: 1 - mean. Of losses that are 0 or 1 it is an exact share."""
    return float(np.subtract(1, loss, dtype=np.float64).mean())


def standard_error(loss: npt.NDArray[np.floating]) -> float | None:
    """The standard error of the metric of losses [N]; None where all are 0 or 1, so that the metric is a proportion."""
    if bool(np.isin(loss, (0, 1)).all()) or len(loss) < 2:
        return None
    return float(loss.std(ddof=1, dtype=np.float64) / np.sqrt(len(loss)))


@dataclass(frozen=True)
class Task(ABC):
    """What the K outputs of a network mean. One subclass a file; its further fields are parameters of a recipe.

    A *target* is what a sample's outputs should say, a *decision* is what they do say; both have one form. A task's
    loss is a distance between them in [0, 1] that keeps the triangle inequality. Therefore the loss that early exit
    adds is never larger than its disagreement with the last exit, which needs no targets. Everything that is
    promised, compared or drawn speaks of this loss, or of its metric, which is ``1 - mean loss``.

    Importing a task needs numpy alone. Torch and ONNX are imported by the methods that take their types.

    Attributes:
        outputs: K names, such as those of classes.
    """

    outputs: tuple[str, ...]

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(allow_inf_nan=False)  # of parameters, wherever they are from
    metric: ClassVar[str]
    """Name of ``1 - mean loss`` in tables and messages, for example ``accuracy``."""
    signal_names: ClassVar[tuple[str, ...]]
    """Columns of ``Signals`` that it gives."""
    binary_loss: ClassVar[bool]
    """Whether a loss is 0 or 1, so that exact binomial tests apply."""
    scaled_by_temperature: ClassVar[bool]
    """Whether outputs are logits that a temperature may divide."""
    exits_agree: ClassVar[bool] = True
    """Whether two exits often decide the same, so that a policy can judge by it; masks differ in some pixel."""
    change_unit: ClassVar[str] = "samples"
    """What ``changes`` gives shares of: samples, or elements of decisions, for example ``pixels``."""
    single_label: ClassVar[bool] = False
    """Whether a target is the index of one of ``outputs``, int64 [N], so that a folder's name can stand for it."""
    stratum: ClassVar[str] = "stratum"
    """What messages and tables call one of its strata, for example ``class``."""
    prediction_class: ClassVar[type[Prediction] | None] = None
    """The subclass of ``Prediction`` that engines return, with the task's own words; None: ``Prediction`` itself."""

    @classmethod
    def parameters_for(cls, inputs: Sequence[graphs.Tensor]) -> dict[str, Any]:
        """Parameters that follow from the network's inputs, such as the size of masks; a recipe may set others."""
        del inputs
        return {}

    @property
    def parameters(self) -> dict[str, Any]:
        """Its fields besides ``outputs``, as recipes and manifests write them."""
        written: dict[str, Any] = TypeAdapter(type(self)).dump_python(self, mode="json")
        return {name: value for name, value in written.items() if name != "outputs"}

    @property
    def record(self) -> RegistryEntry:
        """What a manifest writes of it, besides its outputs; the name is that of its module."""
        return RegistryEntry(name=type(self).__module__.rpartition(".")[2], parameters=self.parameters)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one sample's outputs; float32 [K] unless a task says otherwise."""
        return (len(self.outputs),)

    def batch_size(self, most: int, exits: int = 1) -> int:
        """How many samples to compute at a time, so that the outputs of so many exits take no more than 64 MiB.

        Args:
            most: of samples that have few outputs.
            exits: whose outputs are held at once.
        """
        return max(1, min(most, _OUTPUT_BYTES // (4 * exits * math.prod(self.output_shape))))

    @property
    def decision_shape(self) -> tuple[int, ...]:
        """Shape of one sample's decision."""
        return self._no_decisions.shape[1:]

    @property
    def decision_dtype(self) -> np.dtype[Any]:
        """Dtype of decisions and targets."""
        return self._no_decisions.dtype

    @property
    def _no_decisions(self) -> Array:
        return self.decide(np.empty((0, *self.output_shape), np.float32))

    @property
    def strata_names(self) -> tuple[str, ...]:
        """Names of the strata 0, 1, ...; empty: there are none."""
        return ()

    @property
    def resolution(self) -> Float | None:
        """How far elements of two decisions may be apart and still be the same; None: only equal ones are the same.

        A task whose decisions are numbers gives it, [D]: the tolerance at which policies such as ``patience``, and
        counts of changed decisions, call two decisions equal.
        """
        return None

    def fitted(self, targets: Array) -> Self:
        """The task with what it takes from training targets [N, ...], such as their mean; a recipe may set others.

        Raises:
            DataError: if nothing can be learnt from them.
        """
        del targets
        return self

    @property
    def target_fill(self) -> int | None:
        """The value of a target where the input is unknown; None: targets are not spatially aligned with the input.

        Aligned targets, [N, H, W], are augmented together with their inputs [N, C, H, W].
        """
        return None

    @abstractmethod
    def check_targets(self, targets: Array) -> None:
        """Refuse targets that this task cannot have.

        Args:
            targets: [N, ...].

        Raises:
            DataError: names the first that does not fit.
        """

    def strata(self, targets: Array) -> npt.NDArray[np.int64] | None:
        """The stratum of each target, int64 [N], in which splits and certificates may hold; None: there are none."""
        del targets
        return None

    def class_counts(self, targets: Array) -> npt.NDArray[np.int64] | None:
        """How often each output is a target, int64 [K], for class weights; None: outputs are no classes."""
        strata = self.strata(targets)
        if strata is None or self.strata_names != self.outputs:
            return None
        return np.bincount(strata, minlength=len(self.outputs)).astype(np.int64)

    @abstractmethod
    def decide(self, outputs: Array) -> Array:
        """The decision of each sample, [B, ...], of outputs [B, ...]; dtype and shape are those of targets."""

    @abstractmethod
    def loss(self, decisions: Array, targets: Array) -> Float:
        """The loss of each sample, float32 [N] in [0, 1].

        Args:
            decisions: [N, ...], from ``decide``.
            targets: [N, ...]; decisions of another exit give the disagreement with it.
        """

    def flips(self, decisions: Array, others: Array) -> npt.NDArray[np.bool_]:
        """Which of N decisions are others than before, bool [N]; none of floats, which every rounding changes."""
        changed: npt.NDArray[np.bool_] = np.asarray(self.loss(decisions, others) > 0)
        return np.zeros_like(changed) if np.issubdtype(decisions.dtype, np.floating) else changed

    def changes(self, decisions: Array, others: Array) -> Float:
        """What share of each of N decisions is another than before, float32 [N] in [0, 1]; 0 or 1 by ``flips``.

        A task whose decisions have many elements counts these, and names them in ``change_unit``.
        """
        share: Float = self.flips(decisions, others).astype(np.float32)
        return share

    def nll(self, outputs: Array, targets: Array, temperature: float = 1.0) -> float:
        """Mean negative log-likelihood of the targets in nats, by which a temperature is fitted; else not needed.

        Args:
            outputs: [N, ...].
            targets: [N, ...].
            temperature: divides the outputs.
        """
        del outputs, targets, temperature
        raise NotImplementedError(f"{type(self).__name__} has no likelihood: scaled_by_temperature has to be False")

    def measures(self, outputs: Array, targets: Array) -> dict[str, Array]:
        """What ``summary`` needs of each sample, by name, [N, ...] each; batches are measured one after the other."""
        del outputs, targets
        return {}

    def summary(self, measures: Mapping[str, Array]) -> dict[str, float]:
        """Further figures for tables, by name, for example ``nll`` and ``ece``, of the measures of all samples."""
        del measures
        return {}

    def ensemble(self, outputs: Array) -> Array | None:
        """Outputs of the mean of several exits, [N, ...]; None: the task has no such mean.

        Args:
            outputs: [E, N, ...].
        """
        del outputs
        return None

    @abstractmethod
    def signals(self, outputs: Float, temperature: float = 1.0) -> Signals:
        """The signals of outputs.

        Args:
            outputs: float32 [B, ...].
            temperature: T > 0.
        """

    @abstractmethod
    def signal_nodes(
        self, outputs: str, values: str, decision: str, *, decided_by: str | None = None
    ) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """The ONNX nodes that compute the signals, and their constants; every other name begins with ``outputs``.

        Args:
            outputs: name of the outputs in the graph, over the temperature if there is one.
            values: name for float32 [batch, S], the columns in the order of ``signal_names``.
            decision: name for the decisions.
            decided_by: name of the outputs without a temperature, by which is decided; None: ``outputs``.
        """

    def signals_of(self, values: Float, decision: Array) -> Signals:
        """The signals as graphs give them: columns [B, S] in the order of ``signal_names``, and decisions [B, ...]."""
        columns = {name: values[:, at] for at, name in enumerate(self.signal_names)}
        return Signals(columns, decision, self.resolution)

    @abstractmethod
    def encode(self, targets: Tensor) -> Tensor:
        """Targets as what ``supervised_loss`` takes, float32 [B, ...]; mixed batches add these up by their shares."""

    def smoothed(self, encoded: Tensor, smoothing: float) -> Tensor:
        """Encoded targets with label smoothing.

        Raises:
            RecipeError: if the task has no labels to smooth, and smoothing is not 0.
        """
        if smoothing:
            raise RecipeError(
                f"The task '{self.record.name}' has no labels to smooth.",
                allowed="label smoothing of 0",
                next_step="--set train.label_smoothing=0, or choose another method: sdcompress list methods",
            )
        return encoded

    @abstractmethod
    def soft_targets(self, outputs: Tensor) -> Tensor:
        """Outputs [B, ...] in the form of ``encode``, such as probabilities, for a student to learn from."""

    def ensemble_terms(self, outputs: Tensor) -> Tensor | None:
        """Outputs [B, ...] in the form whose mean over exits is their geometric ensemble; None: the task has none."""
        del outputs
        return None

    @abstractmethod
    def supervised_loss(self, outputs: Tensor, encoded: Tensor) -> Tensor:
        """The loss that trains outputs [B, ...] towards encoded targets: a scalar, the mean over the batch."""

    @abstractmethod
    def divergence(self, student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
        """How far a student's outputs are from a teacher's: a scalar, the mean over the batch.

        Args:
            student: [B, ...].
            teacher: [B, ...], detached.
            temperature: T > 0; a task whose outputs are no logits ignores it.
        """

    def prediction(
        self,
        outputs: Float,
        exit_index: npt.NDArray[np.int64],
        exits: tuple[str, ...] = (),
        temperatures: tuple[float, ...] = (),
    ) -> Prediction:
        """Return what an engine returns: a ``prediction_class``.

        Args:
            outputs: float32 [B, ...].
            exit_index: int64 [B].
            exits: names of the exits.
            temperatures: of the exits.
        """
        return (self.prediction_class or Prediction)(outputs, exit_index, self, exits, temperatures)

    def drawn(self, decisions: Array) -> npt.NDArray[np.uint8] | None:
        """Decisions or targets [N, ...] as pictures, uint8 [N, H, W, 3]; None: they are none."""
        del decisions
        return None

    def legend(self) -> dict[str, tuple[int, int, int]]:
        """What the colours of ``drawn`` stand for: name -> R G B."""
        return {}

    def card_text(self) -> str:
        """What the outputs are, in words, for the artifact's card."""
        return f"{len(self.outputs)} outputs"

    def card_code(self) -> str:
        """Python source with numpy for the program in the artifact's card; empty: the card has no program.

        It defines ``decide(outputs)``, the decision in a form to print, and ``signals(outputs, temperature)``, a
        mapping of ``signal_names`` to numbers; the outputs are those of one sample.
        """
        return ""

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of what a policy needs that tell nothing of its samples, as a rule because it does not give them.

        Args:
            names: of signals, and ``AGREEMENT``.
        """
        given = (*self.signal_names, AGREEMENT) if self.exits_agree else self.signal_names
        return [name for name in names if name not in given]


@dataclass(frozen=True)
class Prediction:
    """What an engine predicts for B samples.

    Attributes:
        outputs: float32 [B, ...], of the exit at which each sample left.
        exit_index: int64 [B], the position of that exit.
        task: what the outputs mean.
        exits: names of the exits, shallow to deep; empty: they go by their positions.
        temperatures: of the exits, by which their outputs are divided; empty: none are.
    """

    outputs: Float
    exit_index: npt.NDArray[np.int64]
    task: Task
    exits: tuple[str, ...] = ()
    temperatures: tuple[float, ...] = ()

    kind: ClassVar[str] = "output"
    """What a name of ``stated`` is, for example ``class``."""
    unit: ClassVar[str] = "value"
    """What a number of ``stated`` is, for example ``probability``."""

    @property
    def decision(self) -> Array:
        """What is decided for each sample, [B, ...], in the form of the task's targets."""
        return self.task.decide(self.outputs)

    def top(self, count: int = 5) -> tuple[tuple[tuple[str, float], ...], ...]:
        """For each of the B samples what its outputs say, as (name, number), what matters most first.

        Args:
            count: how many names at most.
        """
        return tuple(tuple(zip(self.task.outputs, row.tolist(), strict=True))[:count] for row in self.outputs)

    def stated(self, count: int = 1) -> tuple[tuple[tuple[str, float], ...], ...]:
        """For each of the B samples what tables say of it, as (name, number); ``top`` unless a task says otherwise."""
        return self.top(count)

    def picture(self, at: int) -> bytes | None:
        """What is decided for one sample as a PNG file; None: the task decides nothing that can be drawn."""
        del at
        return None

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Names of the exits at which the B samples left."""
        return tuple(self.exits[at] if self.exits else str(at) for at in self.exit_index.tolist())
