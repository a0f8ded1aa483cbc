"""One or several numbers a sample: clipped absolute error; squared, absolute, Huber or Gaussian training loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import e, log, pi
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from sdcompress.errors import DataError
from sdcompress.tasks._base import Prediction, Task
from sdcompress.tasks._signals import AGREEMENT, Array, Float, Signals

if TYPE_CHECKING:
    import onnx
    from torch import Tensor
    from typing_extensions import Self

__all__ = ["Regression"]

_LEAST = -7.0  # log-deviation; below it rounding decides
_ENTROPY = log(2 * pi * e) / 2  # of a normal distribution of deviation 1, in nats
_BOUND, _STEP = 2.0, 0.1  # in deviations of the training targets
_CARD_CODE = """

def decide(outputs):
    \"\"\"The numbers.\"\"\"
    return (outputs[:{count}] * np.float32({std}) + np.float32({mean})).tolist()


def signals(outputs, temperature):
    \"\"\"What exit policies judge by: the entropy of the estimate in steps of {steps}, in nats.\"\"\"
    return {{"entropy": {entropy}}}
"""
_Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Estimates(Prediction):
    """Numbers of B samples."""

    kind: ClassVar[str] = "number"

    @property
    def values(self) -> Float:
        """float32 [B, D], in the units of the targets."""
        values: Float = self.decision
        return values

    def top(self, count: int = 5) -> tuple[tuple[tuple[str, float], ...], ...]:
        """For each of the B samples its numbers by their names, in the order of the task."""
        return tuple(tuple(zip(self.task.outputs, row, strict=True))[:count] for row in self.values.tolist())

    def stated(self, count: int = 1) -> tuple[tuple[tuple[str, float], ...], ...]:
        """For each of the B samples all its numbers."""
        del count  # an estimate is stated whole
        return self.top(len(self.task.outputs))


@dataclass(frozen=True)
class Regression(Task):
    """Targets are float32 [N, D]; outputs are D standardised estimates, [B, D], and D log-deviations with ``gaussian``.

    The decision is the estimate in the units of the targets. The loss is the absolute error over ``bound``, clipped to
    1, the mean over the D numbers. It is a metric, so that a certificate bounds the mean clipped error. The metric
    ``closeness`` is 1 less this loss.

    A network that estimates its own deviation (``gaussian``) gives the signal ``entropy``: of the D normal
    distributions in steps of ``step``, ``sum max(0, ln(deviation * sqrt(2 pi e) / step))`` nats. Other networks do not
    say how sure they are: ``entropy`` is then the same for all samples, and policies that need it are refused.

    Attributes:
        criterion: what trains: mean squared, absolute or Huber's error of the standardised numbers, or the negative
            log-likelihood of normal distributions, for which the network also gives a deviation of each number.
        mean: of each number over the training targets, which give it.
        std: their standard deviations, likewise.
        bound: an absolute error from which on a number is wholly wrong, in units of the targets; default: 2 deviations.
        step: two estimates that are no further apart are the same for ``patience`` and in comparisons, in units of the
            targets; default: 0.1 deviations.
        huber_delta: where Huber's loss becomes linear, in deviations.
    """

    criterion: Literal["mse", "mae", "huber", "gaussian"] = "mse"
    mean: tuple[float, ...] | None = None
    std: tuple[_Positive, ...] | None = None
    bound: _Positive | tuple[_Positive, ...] | None = None
    step: _Positive | tuple[_Positive, ...] | None = None
    huber_delta: _Positive = 1.0

    metric: ClassVar[str] = "closeness"
    signal_names: ClassVar[tuple[str, ...]] = ("entropy",)
    binary_loss: ClassVar[bool] = False
    scaled_by_temperature: ClassVar[bool] = False
    prediction_class: ClassVar[type[Estimates]] = Estimates

    def __post_init__(self) -> None:
        """Refuse another number of values than of outputs."""
        for name in ("mean", "std", "bound", "step"):
            values = getattr(self, name)
            if isinstance(values, tuple) and len(values) != len(self.outputs):
                raise ValueError(f"{name} has {len(values)} values for {len(self.outputs)} numbers")

    @property
    def output_shape(self) -> tuple[int]:
        """D, or 2 D with deviations."""
        return (len(self.outputs) * (2 if self.criterion == "gaussian" else 1),)

    def fitted(self, targets: Array) -> Self:
        """With mean and deviation of the training targets, and with ``bound`` and ``step`` of these; see ``Task``."""
        mean, std = targets.mean(axis=0, dtype=np.float64), targets.std(axis=0, dtype=np.float64)
        # not by their deviation, which rounds to something tiny
        same = targets.min(axis=0) == targets.max(axis=0)
        constant = [name for name, equal in zip(self.outputs, same, strict=True) if equal]
        if constant and self.std is None:
            raise DataError(
                f"The training targets '{constant[0]}' are all the same number.",
                allowed="targets of which some differ",
                next_step="leave this column out, or set task.std",
            )
        scale = np.asarray(self.std or std)
        return replace(
            self,
            mean=self.mean or tuple(mean.tolist()),
            std=self.std or tuple(std.tolist()),
            bound=self.bound or tuple((_BOUND * scale).tolist()),
            step=self.step or tuple((_STEP * scale).tolist()),
        )

    def check_targets(self, targets: Array) -> None:
        """float32 [N, D], finite; see ``Task``."""
        shape = (len(self.outputs),)
        fits = targets.dtype == np.float32 and targets.shape[1:] == shape
        broken = np.flatnonzero(~np.isfinite(targets).all(axis=1)).tolist() if fits else []
        if not fits or broken:
            raise DataError(
                f"The targets are {targets.dtype} of shape {list(targets.shape)}"
                + (f"; {len(broken)} are NaN or infinite, the first of sample {broken[0]}." if broken else "."),
                allowed=f"finite float32 of shape [N, {shape[0]}]",
                next_step="fill the missing targets, or leave these samples out"
                if broken
                else "use the data that the network was trained on",
            )

    def decide(self, outputs: Array) -> Float:
        """The estimates in the units of the targets, float32 [B, D]."""
        decision: Float = outputs[:, : len(self.outputs)].astype(np.float32) * self._scale + self._centre
        return decision

    def loss(self, decisions: Array, targets: Array) -> Float:
        """``mean min(|a - b| / bound, 1)``; 1 for a number that is not finite."""
        with np.errstate(invalid="ignore"):
            errors = np.abs(np.subtract(decisions, targets, dtype=np.float64)) / self._each(self.bound, _BOUND)
        loss: Float = np.fmin(errors, 1).mean(axis=1).astype(np.float32)
        return loss

    def flips(self, decisions: Array, others: Array) -> npt.NDArray[np.bool_]:
        """Whether a number moved by more than ``step``, bool [N]; also where it is not finite."""
        with np.errstate(invalid="ignore"):
            return np.asarray(~(np.abs(np.subtract(decisions, others)) <= self.resolution).all(axis=1))

    def measures(self, outputs: Array, targets: Array) -> dict[str, Array]:
        """Errors and targets, [N, D]; with deviations the negative log-likelihood [N]."""
        measured: dict[str, Array] = {
            "error": self.decide(outputs).astype(np.float64) - targets,
            "target": np.asarray(targets, np.float64),
        }
        if self.criterion == "gaussian":
            log_deviation = self._log_deviation(outputs).astype(np.float64) + np.log(self._scale)
            squares = (measured["error"] * np.exp(-log_deviation)) ** 2
            measured["nll"] = (squares / 2 + log_deviation + log(2 * pi) / 2).sum(axis=1)
        return measured

    def summary(self, measures: Mapping[str, Array]) -> dict[str, float]:
        """``r2``, ``mae``, ``rmse``, means over the D numbers as scikit-learn has them; ``nll`` with deviations.

        R2 of targets that are all the same is 1 if there is no error, else 0.
        """
        squares = (measures["error"] ** 2).mean(axis=0)
        spread = measures["target"].var(axis=0)
        r2 = np.where(spread > 0, 1 - squares / np.where(spread > 0, spread, 1), squares == 0)
        summary = {
            "r2": float(r2.mean()),
            "mae": float(np.abs(measures["error"]).mean()),
            "rmse": float(np.sqrt(squares).mean()),
        }
        return summary | ({"nll": float(measures["nll"].mean())} if "nll" in measures else {})

    def ensemble(self, outputs: Array) -> Array:
        """The mean over the exits, of log-deviations too."""
        return np.asarray(np.mean(outputs, axis=0))

    @property
    def resolution(self) -> Float:
        """``step`` of each number, float32 [D]; see ``Task``."""
        return self._resolution

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those that it does not give; without deviations no signal tells samples apart."""
        if self.criterion == "gaussian":
            return super().missing(names)
        return [name for name in names if name != AGREEMENT]

    def signals(self, outputs: Float, temperature: float = 1.0) -> Signals:
        """See the class; no temperature."""
        del temperature
        with np.errstate(invalid="ignore"):
            entropy = np.maximum(self._log_deviation(outputs) + self._unit, np.float32(0)).sum(axis=1, dtype=np.float32)
        return Signals({"entropy": entropy}, self.decide(outputs), self.resolution)

    def signal_nodes(
        self, outputs: str, values: str, decision: str, *, decided_by: str | None = None
    ) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """See ``Task``."""
        from onnx import helper, numpy_helper

        def of(*parts: str) -> list[str]:
            return [f"{outputs}/{part}" for part in parts]

        count = len(self.outputs)
        deviations = np.arange(count) + (count if self.criterion == "gaussian" else 0)
        constants = {
            "numbers": np.arange(count),
            "deviations": deviations,
            "unit": self._unit,
            "least": np.float32(_LEAST),
            "none": np.float32(0),
            "axis": np.array([1]),
            "std": self._scale,
            "mean": self._centre,
        }
        silent = [] if self.criterion == "gaussian" else [helper.make_node("Mul", of("raw", "none"), of("log"))]
        nodes = [
            helper.make_node("Gather", [outputs, *of("deviations")], of("raw" if silent else "log"), axis=1),
            *silent,
            helper.make_node("Max", of("log", "least"), of("clipped")),
            helper.make_node("Add", of("clipped", "unit"), of("entropies")),
            helper.make_node("Max", of("entropies", "none"), of("positive")),
            helper.make_node("ReduceSum", of("positive", "axis"), [values], keepdims=1),
            helper.make_node("Gather", [decided_by or outputs, *of("numbers")], of("estimate"), axis=1),
            helper.make_node("Mul", of("estimate", "std"), of("scaled")),
            helper.make_node("Add", of("scaled", "mean"), [decision]),
        ]
        return nodes, [numpy_helper.from_array(value, *of(name)) for name, value in constants.items()]

    def card_text(self) -> str:
        """The numbers, their units, and what the loss is."""
        pairs = zip(self.outputs, self._each(self.bound, _BOUND), strict=True)
        bounds = ", ".join(f"{name} {bound:.4g}" for name, bound in pairs)
        return (
            f"{len(self.outputs)} standardised number(s): {', '.join(self.outputs)}. The loss is the absolute error, "
            f"clipped at and divided by: {bounds}"
        )

    def card_code(self) -> str:
        """See ``Task``."""
        count = len(self.outputs)
        entropy = "0.0 * outputs[0]"
        if self.criterion == "gaussian":
            deviations = f"np.maximum(outputs[{count}:], {_LEAST})"
            entropy = f"np.maximum({deviations} + np.float32({self._unit.tolist()}), 0).sum()"
        return _CARD_CODE.format(
            count=count,
            std=self._scale.tolist(),
            mean=self._centre.tolist(),
            steps=self.resolution.tolist(),
            entropy=entropy,
        )

    def encode(self, targets: Tensor) -> Tensor:
        """Standardised numbers, float32 [B, D]."""
        return (targets - targets.new_tensor(self._centre)) / targets.new_tensor(self._scale)

    def soft_targets(self, outputs: Tensor) -> Tensor:
        """The standardised estimates."""
        return outputs[:, : len(self.outputs)]

    def ensemble_terms(self, outputs: Tensor) -> Tensor:
        """The outputs: their mean is that of the estimates, and the geometric one of the deviations."""
        return outputs

    def supervised_loss(self, outputs: Tensor, encoded: Tensor) -> Tensor:
        """The criterion, as torch's functions of that name compute it: the mean over samples and numbers."""
        import torch.nn.functional as F

        if self.criterion == "gaussian":
            estimate, log_deviation = outputs.chunk(2, dim=1)
            log_deviation = log_deviation.clamp(min=_LEAST)
            return (((encoded - estimate) * (-log_deviation).exp()).square() / 2 + log_deviation).mean()
        if self.criterion == "huber":
            return F.huber_loss(outputs, encoded, delta=self.huber_delta)
        return (F.mse_loss if self.criterion == "mse" else F.l1_loss)(outputs, encoded)

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
        """The criterion towards the teacher's estimates; with deviations KL of the normal distributions."""
        del temperature
        if self.criterion != "gaussian":
            return self.supervised_loss(student, teacher)
        (estimate, ours), (taught, theirs) = student.chunk(2, dim=1), teacher.chunk(2, dim=1)
        ours, theirs = ours.clamp(min=_LEAST), theirs.clamp(min=_LEAST)
        squares = (2 * theirs).exp() + (taught - estimate).square()
        return (ours - theirs + squares * (-2 * ours).exp() / 2 - 0.5).mean()

    @cached_property
    def _scale(self) -> Float:
        return np.asarray(self.std or np.ones(len(self.outputs)), np.float32)

    @cached_property
    def _centre(self) -> Float:
        return np.asarray(self.mean or np.zeros(len(self.outputs)), np.float32)

    @cached_property
    def _resolution(self) -> Float:
        return self._each(self.step, _STEP).astype(np.float32)

    @cached_property
    def _unit(self) -> Float:
        """Added to a log-deviation it is the entropy in steps, float32 [D]."""
        unit: Float = np.asarray(_ENTROPY + np.log(self._scale / self.resolution), np.float32)
        return unit

    def _each(self, values: float | tuple[float, ...] | None, deviations: float) -> npt.NDArray[np.float64]:
        given = deviations * self._scale.astype(np.float64) if values is None else np.asarray(values, np.float64)
        return np.broadcast_to(given, len(self.outputs))

    def _log_deviation(self, outputs: Array) -> Float:
        """Of the standardised estimates, float32 [B, D]; without deviations 0, and NaN where one is not finite."""
        count = len(self.outputs)
        raw = outputs[:, count:] if self.criterion == "gaussian" else outputs * np.float32(0)
        clipped: Float = np.maximum(raw, np.float32(_LEAST)).astype(np.float32)
        return clipped
