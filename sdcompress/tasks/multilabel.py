"""Any number of K labels a sample: Jaccard index of label sets, sigmoids, binary cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from sdcompress.errors import DataError
from sdcompress.tasks._base import Task
from sdcompress.tasks._probabilities import LogitPrediction
from sdcompress.tasks._signals import Array, Float, Signals

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

__all__ = ["MultiLabel"]

_CARD_CODE = """

def decide(logits):
    \"\"\"The numbers of the labels.\"\"\"
    return np.flatnonzero(logits > np.float32({boundary})).tolist()


def signals(logits, temperature):
    \"\"\"What exit policies judge by: probabilities of the two likeliest label sets, and the entropy in nats.\"\"\"
    sizes = np.abs(logits) / np.float32(temperature)
    powers = np.exp(-sizes)
    best = np.exp(-np.log1p(powers).sum())
    entropy = (np.log1p(powers) + sizes * powers / (1 + powers)).sum()
    return {{"max_prob": best, "second_prob": best * np.exp(-sizes.min()), "entropy": entropy}}
"""
_Share = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class LabelSets(LogitPrediction):
    """Label sets of B samples."""

    kind: ClassVar[str] = "label"

    @property
    def labels(self) -> tuple[tuple[str, ...], ...]:
        """For each of the B samples the names of its labels; none where no label is above its threshold."""
        names = np.array(self.task.outputs, object)
        return tuple(tuple(names[row.astype(bool)]) for row in self.decision)

    @property
    def probabilities(self) -> Float:
        """float32 [B, K]: sigmoid of the logits, divided by the temperature of the exit where it has one."""
        probabilities: Float = np.exp(-np.logaddexp(0, -self.scaled_logits)).astype(np.float32)
        return probabilities

    def stated(self, count: int = 1) -> tuple[tuple[tuple[str, float], ...], ...]:
        """For each of the B samples all labels that it has and their probabilities, the most probable first."""
        del count  # a set is stated whole
        every = self.top(len(self.task.outputs))
        return tuple(
            tuple(pair for pair in row if pair[0] in labels) for row, labels in zip(every, self.labels, strict=True)
        )


@dataclass(frozen=True)
class MultiLabel(Task):
    """Targets are uint8 [N, K], 1 where a sample has a label; outputs are logits [B, K] of independent labels.

    The decision is the set of labels whose sigmoid is above the threshold. The loss is 1 - Jaccard index of two label
    sets, which is a metric (Lipkus, J. Math. Chem. 26, 1999); two empty sets are equal.

    Signals, of the distribution over the 2^K label sets that independent p_k = sigmoid(z_k / T) make: ``max_prob`` and
    ``second_prob``, its two largest values, and ``entropy`` in nats. With a_k = |z_k| / T they are
    prod 1 / (1 + exp(-a_k)), the same times exp(-min a_k), and the sum of the K binary entropies.

    Attributes:
        threshold: a probability, for every label alike or one for each.
    """

    threshold: _Share | tuple[_Share, ...] = 0.5

    metric: ClassVar[str] = "jaccard"
    signal_names: ClassVar[tuple[str, ...]] = ("max_prob", "second_prob", "entropy")
    binary_loss: ClassVar[bool] = False
    scaled_by_temperature: ClassVar[bool] = True
    prediction_class: ClassVar[type[LabelSets]] = LabelSets

    def __post_init__(self) -> None:
        """Refuse another number of thresholds than labels."""
        if isinstance(self.threshold, tuple) and len(self.threshold) != len(self.outputs):
            raise ValueError(f"there are {len(self.threshold)} thresholds for {len(self.outputs)} labels")

    @cached_property
    def _boundary(self) -> Float:
        """Return the logits of the thresholds, float32 [K]."""
        thresholds = np.broadcast_to(np.asarray(self.threshold, np.float64), len(self.outputs))
        boundary: Float = (np.log(thresholds) - np.log1p(-thresholds)).astype(np.float32)
        return boundary

    def check_targets(self, targets: Array) -> None:
        """uint8 [N, K] of zeros and ones; see ``Task``."""
        if targets.dtype == np.uint8 and targets.shape[1:] == self.output_shape and not (targets > 1).any():
            return
        high = np.flatnonzero((targets > 1).reshape(len(targets), -1).any(axis=1)).tolist() if targets.ndim else []
        raise DataError(
            f"The labels are {targets.dtype} of shape {list(targets.shape)}"
            + (f"; sample {high[0]} has values above 1." if high else "."),
            allowed=f"uint8 of shape [N, {len(self.outputs)}]: 1 where a sample has a label, else 0",
            next_step="check the file that holds the labels, or use the data that the network was trained on",
        )

    def decide(self, outputs: Array) -> npt.NDArray[np.uint8]:
        """1 where the sigmoid is above the label's threshold, uint8 [B, K]; a temperature changes nothing."""
        return np.greater(outputs, self._boundary).view(np.uint8)

    def loss(self, decisions: Array, targets: Array) -> Float:
        """``1 - |A and B| / |A or B|``, and 0 where both sets are empty."""
        either = np.logical_or(decisions, targets).sum(axis=-1)
        differing = np.not_equal(decisions, targets).sum(axis=-1)
        loss: Float = (differing / np.maximum(either, 1)).astype(np.float32)
        return loss

    def nll(self, outputs: Array, targets: Array, temperature: float = 1.0) -> float:
        """Of the label set: the sum over the labels, the mean over the samples."""
        return float(-_log_likelihood(outputs, targets, temperature).mean())

    def best_thresholds(self, outputs: Array, targets: Array) -> tuple[float, ...]:
        """The probability for each label above which its F1 is largest, to be the parameter ``threshold``.

        A label that no sample has keeps its threshold. Give validation data: test data would flatter the figures.

        Args:
            outputs: [N, K].
            targets: uint8 [N, K].
        """
        logits = np.asarray(outputs, np.float64)
        boundaries = self._boundary.astype(np.float64)
        for label in np.flatnonzero(np.any(targets, axis=0)):
            boundaries[label] = _best_boundary(logits[:, label], targets[:, label])
        probabilities = 1 / (1 + np.exp(-boundaries))
        return tuple(np.clip(probabilities, 1e-6, 1 - 1e-6).tolist())

    def measures(self, outputs: Array, targets: Array) -> dict[str, Array]:
        """Log-likelihood of the label set [N]; logits, decisions and targets [N, K]."""
        return {
            "log_likelihood": _log_likelihood(outputs, targets),
            "logits": np.asarray(outputs, np.float32),
            "decisions": self.decide(outputs),
            "targets": targets,
        }

    def summary(self, measures: Mapping[str, Array]) -> dict[str, float]:
        """``nll``; ``map``, mean average precision; ``micro_f1``, ``macro_f1``; ``subset_accuracy``.

        The mean average precision asks no threshold and leaves out labels that no sample has. The macro F1 leaves out
        labels that no sample has and none gets. The last is the share of samples whose set is exactly right.
        """
        decisions, targets, logits = measures["decisions"], measures["targets"], measures["logits"]
        hits = np.logical_and(decisions, targets).sum(axis=0)
        sizes = decisions.sum(axis=0, dtype=np.int64) + targets.sum(axis=0, dtype=np.int64)
        used, present = sizes > 0, np.flatnonzero(targets.any(axis=0))
        precisions = [_average_precision(logits[:, label], targets[:, label]) for label in present]
        return {
            "nll": float(-measures["log_likelihood"].mean()),
            "map": float(np.mean(precisions)) if precisions else 1.0,
            "micro_f1": float(2 * hits.sum() / sizes.sum()) if used.any() else 1.0,
            "macro_f1": float((2 * hits[used] / sizes[used]).mean()) if used.any() else 1.0,
            "subset_accuracy": float((decisions == targets).all(axis=1).mean()),
        }

    def ensemble(self, outputs: Array) -> npt.NDArray[np.float64]:
        """Return logits of the exits' mean probabilities of each label."""
        logits = np.asarray(outputs, np.float64)
        present, absent = (np.logaddexp.reduce(-np.logaddexp(0, sign * logits), axis=0) for sign in (-1, 1))
        return np.asarray(present - absent)

    def signals(self, outputs: Float, temperature: float = 1.0) -> Signals:
        """See ``Task``; a logit that is not finite makes every signal NaN."""
        # ufuncs, in place: at batch 1 numpy's methods and temporaries cost more than the arithmetic
        sizes = np.abs(outputs)
        sizes *= np.float32(1 / temperature)
        powers = np.exp(np.negative(sizes))
        smallest = np.minimum.reduce(sizes, axis=1)
        totals = np.add(powers, np.float32(1))
        sizes *= powers
        sizes /= totals
        expected = np.add.reduce(sizes, axis=1)
        entropy = np.add.reduce(np.log(totals), axis=1)
        entropy += expected
        # the sum of ln(1 + exp(-a)) once more, and NaN where a logit is infinite; rounding keeps it at 0 or above
        cost = np.subtract(entropy, expected)
        best = np.exp(np.negative(cost))
        cost += smallest
        return Signals(
            {"max_prob": best, "second_prob": np.exp(np.negative(cost)), "entropy": entropy}, self.decide(outputs)
        )

    def signal_nodes(
        self, outputs: str, values: str, decision: str, *, decided_by: str | None = None
    ) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """See ``Task``; the same steps as ``signals``, and no Sigmoid, which runtimes approximate."""
        from onnx import TensorProto, helper, numpy_helper

        def of(*parts: str) -> list[str]:
            return [f"{outputs}/{part}" for part in parts]

        constants = {
            "one": np.ones(1, np.float32),
            "boundary": self._boundary,
            "labels": np.array([1], np.int64),
            "least": np.array([1], np.int64),
        }
        nodes = [
            helper.make_node("Abs", [outputs], of("size")),
            helper.make_node("Neg", of("size"), of("minus")),
            helper.make_node("Exp", of("minus"), of("power")),
            helper.make_node("Add", of("power", "one"), of("total")),
            helper.make_node("Mul", of("size", "power"), of("product")),
            helper.make_node("Div", of("product", "total"), of("term")),
            helper.make_node("ReduceSum", of("term", "labels"), of("expected"), keepdims=1),
            helper.make_node("Log", of("total"), of("log")),
            helper.make_node("ReduceSum", of("log", "labels"), of("logs"), keepdims=1),
            helper.make_node("Add", of("logs", "expected"), of("entropy")),
            helper.make_node("Sub", of("expected", "entropy"), of("best_log")),
            helper.make_node("Exp", of("best_log"), of("best")),
            helper.make_node("TopK", of("size", "least"), of("smallest", "order"), axis=1, largest=0),
            helper.make_node("Sub", of("best_log", "smallest"), of("second_log")),
            helper.make_node("Exp", of("second_log"), of("second")),
            helper.make_node("Concat", of("best", "second", "entropy"), [values], axis=1),
            helper.make_node("Greater", [decided_by or outputs, *of("boundary")], of("above")),
            helper.make_node("Cast", of("above"), [decision], to=TensorProto.UINT8),
        ]
        return nodes, [numpy_helper.from_array(value, *of(name)) for name, value in constants.items()]

    def card_text(self) -> str:
        """Return the number of labels, and above which logits they are decided."""
        boundary = ", ".join(f"{logit:.4g}" for logit in sorted(set(self._boundary.tolist())))
        return f"{len(self.outputs)} labels, each decided where its logit is above {boundary}"

    def card_code(self) -> str:
        """See ``Task``."""
        return _CARD_CODE.format(boundary=self._boundary.tolist())

    def encode(self, targets: Tensor) -> Tensor:
        """Return the same numbers, float32 [B, K]."""
        return targets.float()

    def smoothed(self, encoded: Tensor, smoothing: float) -> Tensor:
        """``(1 - s) * encoded + s / 2``: each label is one of two classes."""
        return (1 - smoothing) * encoded + smoothing / 2

    def soft_targets(self, outputs: Tensor) -> Tensor:
        """Their sigmoid."""
        return outputs.sigmoid()

    def ensemble_terms(self, outputs: Tensor) -> Tensor:
        """Return the logits: their mean is the logit of the normalised geometric mean of a label's probabilities."""
        return outputs

    def supervised_loss(self, outputs: Tensor, encoded: Tensor) -> Tensor:
        """Binary cross-entropy, summed over the labels: the negative log-likelihood of the label set."""
        import torch.nn.functional as F

        return F.binary_cross_entropy_with_logits(outputs, encoded, reduction="sum") / len(outputs)

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
        """``T^2 KL`` of the distributions over label sets: summed over the labels, mean over the batch."""
        import torch.nn.functional as F

        student, teacher = student / temperature, teacher / temperature
        there, not_there = F.logsigmoid(teacher), F.logsigmoid(-teacher)
        terms = there.exp() * (there - F.logsigmoid(student)) + not_there.exp() * (not_there - F.logsigmoid(-student))
        return temperature**2 * terms.sum() / len(student)


def _log_likelihood(outputs: Array, targets: Array, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Of each label set, [N]."""
    logits = np.asarray(outputs, np.float64) / temperature
    return np.asarray(-np.logaddexp(0, np.where(targets, -logits, logits)).sum(axis=1))


def _best_boundary(logits: Array, targets: Array) -> float:
    """The middle between the two logits of a label at whose border its F1 is largest."""
    order = np.argsort(-logits, kind="stable")
    ranked, hits = logits[order], np.cumsum(targets[order], dtype=np.int64)
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + hits[-1])
    f1[np.flatnonzero(np.diff(ranked) == 0)] = -1.0  # equal logits are on one side
    best = int(f1.argmax())
    below = ranked[best + 1] if best + 1 < len(ranked) else ranked[best] - 1.0
    return float((ranked[best] + below) / 2)


def _average_precision(logits: Array, targets: Array) -> float:
    """The sum over thresholds of precision times gain in recall, of one label of N samples; equal logits are one."""
    order = np.argsort(-logits, kind="stable")
    hits, sizes = np.cumsum(targets[order], dtype=np.int64), np.arange(1, len(order) + 1)
    last = np.append(np.diff(logits[order]) != 0, True)  # of equal logits
    gains = np.diff(hits[last], prepend=0)
    return float((gains * hits[last] / sizes[last]).sum() / hits[-1])
