"""One class a sample: accuracy, softmax, cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from sdcompress.errors import DataError
from sdcompress.tasks._base import Task
from sdcompress.tasks._probabilities import LogitPrediction, calibration_error, log_softmax, softmax
from sdcompress.tasks._signals import Array, Float, Signals

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

__all__ = ["Classification"]


@dataclass(frozen=True)
class ClassPrediction(LogitPrediction):
    """Classes of B samples."""

    kind: ClassVar[str] = "class"

    @property
    def labels(self) -> tuple[str, ...]:
        """Return names of the B predicted classes."""
        return tuple(self.task.outputs[k] for k in self.decision.tolist())

    @property
    def probabilities(self) -> Float:
        """float32 [B, K]: softmax of the logits, divided by the temperature of the exit where it has one."""
        probabilities: Float = softmax(self.scaled_logits).astype(np.float32)
        return probabilities


_CARD_CODE = """

def decide(logits):
    \"\"\"The number of the class.\"\"\"
    return int(logits.argmax())


def signals(logits, temperature):
    \"\"\"What exit policies judge by: the two largest probabilities, and the entropy in nats.\"\"\"
    z = logits / np.float32(temperature)
    p = np.exp(z - z.max())
    p /= p.sum()
    entropy = -(p * np.log(np.maximum(p, np.float32(1e-38)))).sum()
    return {"max_prob": p.max(), "second_prob": np.sort(np.append(p, p[:1] * 0))[-2], "entropy": entropy}
"""


@dataclass(frozen=True)
class Classification(Task):
    """Targets are int64 [N] in 0..K-1, outputs are logits [B, K], the decision is the largest; the loss is 0 or 1.

    Signals, of p = softmax(logits / T): ``max_prob`` and ``second_prob``, its two largest values, and ``entropy``,
    -sum p ln p in nats.
    """

    metric: ClassVar[str] = "accuracy"
    signal_names: ClassVar[tuple[str, ...]] = ("max_prob", "second_prob", "entropy")
    binary_loss: ClassVar[bool] = True
    scaled_by_temperature: ClassVar[bool] = True
    prediction_class: ClassVar[type[ClassPrediction]] = ClassPrediction
    single_label: ClassVar[bool] = True
    stratum: ClassVar[str] = "class"

    @property
    def strata_names(self) -> tuple[str, ...]:
        """Of the classes."""
        return self.outputs

    def check_targets(self, targets: Array) -> None:
        """Integers in 0..K-1, of two classes or more; see ``Task``."""
        if len(self.outputs) < 2:
            raise DataError(
                f"There is {len(self.outputs)} class: there is nothing to tell apart.",
                allowed="2 classes or more",
                next_step="check the folder that the data lie in",
            )
        low, high = (int(targets.min()), int(targets.max())) if len(targets) else (0, 0)
        if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer) or low < 0 or high >= len(self.outputs):
            raise DataError(
                f"The labels are {targets.dtype} of shape {list(targets.shape)}, from {low} to {high}.",
                allowed=f"one integer a sample, 0 to {len(self.outputs) - 1}: there are {len(self.outputs)} classes",
                next_step="check the file that holds the labels, or use the data that the network was trained on",
            )

    def strata(self, targets: Array) -> npt.NDArray[np.int64]:
        """Return the classes."""
        return targets.astype(np.int64)

    def decide(self, outputs: Array) -> npt.NDArray[np.int64]:
        """Return the class of the largest logit, int64 [B]; the first of equal ones."""
        classes: npt.NDArray[np.int64] = outputs.argmax(axis=-1)
        return classes

    def loss(self, decisions: Array, targets: Array) -> Float:
        """1 where the class is another, else 0."""
        wrong: Float = np.not_equal(decisions, targets).astype(np.float32)
        return wrong

    def nll(self, outputs: Array, targets: Array, temperature: float = 1.0) -> float:
        """Of softmax(logits / T)."""
        return float(-log_softmax(outputs, temperature)[np.arange(len(targets)), targets].mean())

    def measures(self, outputs: Array, targets: Array) -> dict[str, Array]:
        """Log-likelihood of the target, largest probability, and whether the class is right."""
        log_probabilities = log_softmax(outputs)
        return {
            "log_likelihood": log_probabilities[np.arange(len(targets)), targets],
            "confidence": np.exp(log_probabilities.max(axis=-1)),
            "correct": self.decide(outputs) == targets,
        }

    def summary(self, measures: Mapping[str, Array]) -> dict[str, float]:
        """``nll`` and ``ece``, the expected calibration error over 15 bins of the largest probability."""
        return {
            "nll": float(-measures["log_likelihood"].mean()),
            "ece": calibration_error(measures["confidence"], measures["correct"]),
        }

    def ensemble(self, outputs: Array) -> npt.NDArray[np.float64]:
        """Logarithms of the exits' mean probabilities."""
        return np.asarray(np.logaddexp.reduce(log_softmax(outputs), axis=0) - np.log(len(outputs)))

    def signals(self, outputs: Float, temperature: float = 1.0) -> Signals:
        """See ``Task``; the logits decide, not the probabilities, which may round to equal ones."""
        # ufuncs, in place: at batch 1 numpy's methods and temporaries cost more than the arithmetic
        decision = outputs.argmax(axis=1)
        shifted = outputs - np.maximum.reduce(outputs, axis=1, keepdims=True)
        shifted *= np.float32(1 / temperature)
        powers = np.exp(shifted)
        total = np.add.reduce(powers, axis=1)  # holds exp(0) = 1, so that no rounding takes 1 / total above 1
        shifted *= powers
        entropy = np.log(total) - np.add.reduce(shifted, axis=1) / total
        if outputs.shape[1] == 1:
            second = np.zeros_like(total) * total
        else:
            powers[np.arange(len(powers)), decision] = -1
            second = np.maximum.reduce(powers, axis=1) / total
        return Signals({"max_prob": np.reciprocal(total), "second_prob": second, "entropy": entropy}, decision)

    def signal_nodes(
        self, outputs: str, values: str, decision: str, *, decided_by: str | None = None
    ) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """See ``Task``; the logarithm of the softmax is taken as a whole, so that p = 0 adds 0 to the entropy."""
        from onnx import helper, numpy_helper

        def of(part: str) -> str:
            return f"{outputs}/{part}"

        constants = {"two": np.array([2]), "classes": np.array([1])}
        nodes = [
            helper.make_node("LogSoftmax", [outputs], [of("log")], axis=1),
            helper.make_node("Exp", [of("log")], [of("p")]),
            helper.make_node("TopK", [of("p"), of("two")], [of("top"), of("order")], axis=1),
            helper.make_node("Mul", [of("p"), of("log")], [of("terms")]),
            helper.make_node("ReduceSum", [of("terms"), of("classes")], [of("sum")], keepdims=1),
            helper.make_node("Neg", [of("sum")], [of("entropy")]),
            helper.make_node("Concat", [of("top"), of("entropy")], [values], axis=1),
            helper.make_node("ArgMax", [decided_by or outputs], [decision], axis=1, keepdims=0),
        ]
        return nodes, [numpy_helper.from_array(value.astype(np.int64), of(name)) for name, value in constants.items()]

    def card_text(self) -> str:
        """Return the number of classes."""
        return f"{len(self.outputs)} classes"

    def card_code(self) -> str:
        """See ``Task``."""
        return _CARD_CODE

    def encode(self, targets: Tensor) -> Tensor:
        """One-hot, float32 [B, K]."""
        import torch.nn.functional as F

        return F.one_hot(targets, len(self.outputs)).float()

    def smoothed(self, encoded: Tensor, smoothing: float) -> Tensor:
        """``(1 - s) * encoded + s / K`` (Szegedy et al., arXiv 1512.00567, section 7)."""
        return (1 - smoothing) * encoded + smoothing / len(self.outputs)

    def soft_targets(self, outputs: Tensor) -> Tensor:
        """Their softmax."""
        return outputs.softmax(dim=1)

    def ensemble_terms(self, outputs: Tensor) -> Tensor:
        """Logarithms of the probabilities."""
        return outputs.log_softmax(dim=1)

    def supervised_loss(self, outputs: Tensor, encoded: Tensor) -> Tensor:
        """Cross-entropy."""
        import torch.nn.functional as F

        return F.cross_entropy(outputs, encoded)

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
        """``T^2 KL(softmax(teacher / T) || softmax(student / T))``: summed over classes, mean over the batch."""
        import torch.nn.functional as F

        log_student = F.log_softmax(student / temperature, dim=1)
        log_teacher = F.log_softmax(teacher / temperature, dim=1)
        return temperature**2 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
