"""One class a pixel: mean IoU, softmax and cross-entropy of each pixel, void pixels left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from sdcompress.errors import DataError
from sdcompress.tasks._base import Prediction, Task
from sdcompress.tasks._palette import colours, indexed_png
from sdcompress.tasks._signals import Array, Float, Signals

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

    from sdcompress.schema import graphs

__all__ = ["Segmentation"]

_LEAST_WEIGHT = 1e-9  # of all pixels of a batch; below it there is nothing to learn
_VOID_COLOUR = (224, 224, 224)
_Side = Annotated[int, Field(gt=0, le=8192)]  # pixels
_Counts = npt.NDArray[np.int64]

_CARD_CODE = """

def decide(logits):
    \"\"\"Class number -> share of the pixels, for classes that are there; the mask is logits.argmax(axis=0).\"\"\"
    counts = np.bincount(logits.argmax(axis=0).ravel(), minlength=len(logits))
    return {{int(k): round(float(counts[k] / counts.sum()), 4) for k in np.flatnonzero(counts)}}


def signals(logits, temperature):
    \"\"\"What exit policies judge by: means over pixels of the two largest probabilities, and of the entropy.\"\"\"
    z = logits[:, ::{stride}, ::{stride}] / np.float32(temperature)
    p = np.exp(z - z.max(axis=0))
    p /= p.sum(axis=0)
    entropy = -(p * np.log(np.maximum(p, np.float32(1e-38)))).sum(axis=0)
    ranked = np.sort(np.concatenate([p, 0 * p[:1]]), axis=0)
    return {{"max_prob": ranked[-1].mean(), "second_prob": ranked[-2].mean(), "entropy": entropy.mean()}}
"""


@dataclass(frozen=True)
class Masks(Prediction):
    """Masks of B samples, uint8 [B, H, W]."""

    kind: ClassVar[str] = "class"
    unit: ClassVar[str] = "share"

    def top(self, count: int = 5) -> tuple[tuple[tuple[str, float], ...], ...]:
        """For each of the B samples the classes with most pixels, as (name, share of the pixels)."""
        outputs = self.task.outputs
        shares = [np.bincount(mask.ravel(), minlength=len(outputs)) / mask.size for mask in self.decision]
        orders = [np.argsort(-share, kind="stable")[:count] for share in shares]
        return tuple(
            tuple((outputs[k], float(share[k])) for k in order.tolist() if share[k])
            for share, order in zip(shares, orders, strict=True)
        )

    def picture(self, at: int) -> bytes:
        """The mask of one sample as a PNG file: class numbers, with the colours of PASCAL VOC as its palette."""
        return indexed_png(self.task.decide(self.outputs[at : at + 1])[0])


@dataclass(frozen=True)
class Segmentation(Task):
    """Targets are masks uint8 [N, H, W] of class numbers and ``ignore_index``; outputs are logits [B, K, H, W].

    The decision of a pixel is its largest logit. The loss of a sample is ``1 - mean IoU`` of the two masks, over the
    classes that are in either. It is a metric: of each class it is the Jaccard distance of two sets of pixels, which is
    one (Lipkus, J. Math. Chem. 26, 1999). A mask between two others whose classes are all in one of them has means over
    no more classes than those two have, so that its two distances add up to theirs at least; and each further class in
    it adds 1 to the sum and 1 to the number of classes, which makes a mean of at most 1 no smaller.

    A void pixel of a target may be any class. The loss is the distance to the nearest mask that the target allows,
    which has the decision in the place of void. The distance to a set changes by no more than the point moves, so that
    the loss that early exit adds is never larger than its disagreement with the last exit. Decisions hold no void.

    Further scores are of all pixels of a split that are not void: ``miou``, the mean over the classes that occur there
    of the IoU of summed counts, as benchmarks report it; ``pixel_accuracy``; ``nll`` of a pixel in nats.

    Signals are means over pixels, of p = softmax(logits / T): ``max_prob`` and ``second_prob``, the two largest
    probabilities, and ``entropy`` in nats. Neighbouring pixels say much the same, above all where logits are
    upsampled: one pixel of ``signal_stride`` squared is looked at, as softmax of all would cost as much as a stage.

    Attributes:
        size: height and width of masks and outputs, that of the network's input; a data set gives it.
        ignore_index: value of void pixels in targets, not below K.
        signal_stride: signals are of every so many rows and columns; 1 takes all.
    """

    size: tuple[_Side, _Side] = (1, 1)
    ignore_index: Annotated[int, Field(ge=1, le=255)] = 255
    signal_stride: Annotated[int, Field(ge=1, le=64)] = 4

    metric: ClassVar[str] = "image_iou"
    signal_names: ClassVar[tuple[str, ...]] = ("max_prob", "second_prob", "entropy")
    binary_loss: ClassVar[bool] = False
    scaled_by_temperature: ClassVar[bool] = True
    exits_agree: ClassVar[bool] = False
    change_unit: ClassVar[str] = "pixels"
    prediction_class: ClassVar[type[Masks]] = Masks

    def __post_init__(self) -> None:
        """Refuse an ignore index that is a class."""
        if len(self.outputs) > self.ignore_index:
            raise ValueError(
                f"ignore_index is {self.ignore_index}, and there are {len(self.outputs)} classes from 0 on"
            )

    @classmethod
    def parameters_for(cls, inputs: Sequence[graphs.Tensor]) -> dict[str, Any]:
        """The height and width of the first input that has them; see ``Task``."""
        sizes = [tensor.shape[2:] for tensor in inputs if len(tensor.shape) == 4]
        return {"size": list(sizes[0])} if sizes else {}

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """K, H, W."""
        return (len(self.outputs), *self.size)

    @property
    def target_fill(self) -> int:
        """Void; see ``Task``."""
        return self.ignore_index

    def check_targets(self, targets: Array) -> None:
        """uint8 [N, H, W] of classes and void, in each sample a pixel that is not void; see ``Task``."""
        allowed = (
            f"uint8 [N, {self.size[0]}, {self.size[1]}], 0 to {len(self.outputs) - 1}, {self.ignore_index} for void"
        )
        if len(self.outputs) < 2 or targets.dtype != np.uint8 or targets.shape[1:] != self.size:
            raise DataError(
                f"The masks are {targets.dtype} of shape {list(targets.shape)}, of {len(self.outputs)} class(es).",
                allowed=f"{allowed}, of 2 classes or more",
                next_step="load the data set with the recipe of the network (image_size)",
            )
        for at, mask in enumerate(targets):
            known = mask[mask != self.ignore_index]
            if known.size == 0 or known.max() >= len(self.outputs):
                raise DataError(
                    f"The mask of sample {at} "
                    + (f"holds the value {known.max()}." if known.size else "is void everywhere."),
                    allowed=f"{allowed}; not void alone",
                    next_step="correct the mask, or leave the sample out",
                )

    def class_counts(self, targets: Array) -> _Counts:
        """Pixels of each class; see ``Task``."""
        counts = sum((np.bincount(mask.ravel(), minlength=256) for mask in targets), np.zeros(256, np.int64))
        return np.asarray(counts[: len(self.outputs)], np.int64)

    def decide(self, outputs: Array) -> npt.NDArray[np.uint8]:
        """The class of the largest logit of each pixel, uint8 [B, H, W]; the first of equal ones."""
        classes = np.zeros((len(outputs), *outputs.shape[2:]), np.uint8)
        best = np.array(outputs[:, 0])
        # numpy's argmax over an axis that is not the last is several times slower than one pass for each class
        for k in range(1, outputs.shape[1]):
            larger = outputs[:, k] > best
            np.putmask(classes, larger, k)
            np.maximum(best, outputs[:, k], out=best)
        return classes

    def loss(self, decisions: Array, targets: Array) -> Float:
        """``1 - mean IoU`` of each sample; see the class. Only targets may hold void."""
        void = np.equal(targets, self.ignore_index)
        both, either = self._overlaps(decisions, np.where(void, decisions, targets), None)
        iou = (both / np.maximum(either, 1)).sum(axis=1) / (either > 0).sum(axis=1)
        loss: Float = (1 - iou).astype(np.float32)
        return loss

    def changes(self, decisions: Array, others: Array) -> Float:
        """The share of the pixels that have another class; see ``Task``."""
        return _mean(np.not_equal(decisions, others))

    def nll(self, outputs: Array, targets: Array, temperature: float = 1.0) -> float:
        """Of a pixel: the mean over all pixels of all samples that are not void."""
        total, known = 0.0, np.not_equal(targets, self.ignore_index)
        for row in range(len(outputs)):  # one at a time: masks are large
            total += float(self._log_likelihood(outputs[row : row + 1], targets[row : row + 1], temperature)[0])
        return -total / max(1, int(known.sum()))

    def measures(self, outputs: Array, targets: Array) -> dict[str, Array]:
        """Pixels of each class that are right, and that are in decision or target, [N, K]; the sum of log-likelihoods.

        Void pixels are left out.
        """
        known = np.not_equal(targets, self.ignore_index)
        decisions = self.decide(outputs)
        both, either = self._overlaps(decisions, np.where(known, targets, 0), known)
        return {
            "both": both,
            "either": either,
            "pixels": known.sum(axis=(1, 2)),
            "log_likelihood": self._log_likelihood(outputs, targets),
        }

    def summary(self, measures: Mapping[str, Array]) -> dict[str, float]:
        """``miou``, ``pixel_accuracy`` and ``nll``; see the class."""
        both, either = measures["both"].sum(axis=0), measures["either"].sum(axis=0)
        pixels, used = max(1, int(measures["pixels"].sum())), either > 0
        return {
            "miou": float((both[used] / either[used]).mean()) if used.any() else 1.0,
            "pixel_accuracy": float(both.sum() / pixels),
            "nll": float(-measures["log_likelihood"].sum() / pixels),
        }

    def ensemble(self, outputs: Array) -> Float:
        """Logarithms of the exits' mean probabilities."""
        total = _log_softmax(outputs[0])
        for each in outputs[1:]:
            np.logaddexp(total, _log_softmax(each), out=total)
        total -= np.float32(np.log(len(outputs)))
        return total

    def signals(self, outputs: Float, temperature: float = 1.0) -> Signals:
        """See the class; the logits decide, not the probabilities, which may round to equal ones."""
        step = self.signal_stride
        seen = outputs[:, :, ::step, ::step]
        shifted = seen - np.maximum.reduce(seen, axis=1, keepdims=True)
        shifted *= np.float32(1 / temperature)
        powers = np.exp(shifted)
        total = np.add.reduce(powers, axis=1)  # holds exp(0) = 1
        shifted *= powers
        entropy = np.log(total) - np.add.reduce(shifted, axis=1) / total
        largest = seen.argmax(axis=1, keepdims=True)
        np.put_along_axis(powers, largest, np.float32(-1), axis=1)
        second = np.maximum.reduce(powers, axis=1) / total
        columns = {"max_prob": np.reciprocal(total), "second_prob": second, "entropy": entropy}
        return Signals({name: _mean(values) for name, values in columns.items()}, self.decide(outputs))

    def signal_nodes(
        self, outputs: str, values: str, decision: str, *, decided_by: str | None = None
    ) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """See ``Task``; classes are brought to the last axis, where runtimes reduce fastest."""
        from onnx import TensorProto, helper, numpy_helper

        def of(*parts: str) -> list[str]:
            return [f"{outputs}/{part}" for part in parts]

        constants = {
            "two": np.array([2], np.int64),
            "classes": np.array([3], np.int64),
            "columns": np.array([2], np.int64),
            "rows": np.array([1], np.int64),
            "share": np.array(1 / np.prod([-(-side // self.signal_stride) for side in self.size]), np.float32),
            "from": np.array([0, 0], np.int64),
            "to": np.array(self.size, np.int64),
            "axes": np.array([2, 3], np.int64),
            "steps": np.array([self.signal_stride] * 2, np.int64),
        }
        nodes = [
            helper.make_node("Slice", [outputs, *of("from", "to", "axes", "steps")], of("seen")),
            helper.make_node("Transpose", of("seen"), of("last"), perm=[0, 2, 3, 1]),
            helper.make_node("LogSoftmax", of("last"), of("log"), axis=3),
            helper.make_node("Exp", of("log"), of("p")),
            helper.make_node("TopK", of("p", "two"), of("top", "order"), axis=3),
            helper.make_node("Mul", of("p", "log"), of("terms")),
            helper.make_node("ReduceSum", of("terms", "classes"), of("negative"), keepdims=1),
            helper.make_node("Neg", of("negative"), of("entropy")),
            helper.make_node("Concat", of("top", "entropy"), of("pixels"), axis=3),
            # one axis after the other: a sum of all pixels at once would round too much
            helper.make_node("ReduceSum", of("pixels", "columns"), of("row_sums"), keepdims=0),
            helper.make_node("ReduceSum", of("row_sums", "rows"), of("sums"), keepdims=0),
            helper.make_node("Mul", of("sums", "share"), [values]),
            helper.make_node("ArgMax", [decided_by or outputs], of("index"), axis=1, keepdims=0),
            helper.make_node("Cast", of("index"), [decision], to=TensorProto.UINT8),
        ]
        return nodes, [numpy_helper.from_array(value, *of(name)) for name, value in constants.items()]

    def drawn(self, decisions: Array) -> npt.NDArray[np.uint8]:
        """Masks in the colours of PASCAL VOC, uint8 [N, H, W, 3]; void is light grey."""
        return self._colours[decisions]

    def legend(self) -> dict[str, tuple[int, int, int]]:
        """The colour of each class, and of void."""
        red_green_blue = {name: self._colours[k].tolist() for k, name in enumerate(self.outputs)}
        return {**{name: tuple(rgb) for name, rgb in red_green_blue.items()}, "void": _VOID_COLOUR}

    @property
    def _colours(self) -> npt.NDArray[np.uint8]:
        palette = colours()
        palette[self.ignore_index] = _VOID_COLOUR
        return palette

    def card_text(self) -> str:
        """The number of classes, and the size of the masks."""
        return f"{len(self.outputs)} classes, a logit of each for every pixel of {self.size[0]}x{self.size[1]}"

    def card_code(self) -> str:
        """See ``Task``."""
        return _CARD_CODE.format(stride=self.signal_stride)

    def encode(self, targets: Tensor) -> Tensor:
        """One-hot, float32 [B, K, H, W]; zeros where a pixel is void."""
        import torch

        known = (targets != self.ignore_index).unsqueeze(1)
        classes = targets.unsqueeze(1).long() * known
        shape = (len(targets), len(self.outputs), *targets.shape[1:])
        return torch.zeros(shape, device=targets.device).scatter_(1, classes, known.float())

    def smoothed(self, encoded: Tensor, smoothing: float) -> Tensor:
        """``(1 - s) * encoded + s / K`` where a pixel is not void."""
        return (1 - smoothing) * encoded + smoothing / len(self.outputs) * encoded.sum(1, keepdim=True)

    def soft_targets(self, outputs: Tensor) -> Tensor:
        """Their softmax."""
        return outputs.softmax(dim=1)

    def ensemble_terms(self, outputs: Tensor) -> Tensor:
        """Logarithms of the probabilities."""
        return outputs.log_softmax(dim=1)

    def supervised_loss(self, outputs: Tensor, encoded: Tensor) -> Tensor:
        """Cross-entropy: the mean over the pixels, each weighed by the sum of its encoded target; 0 without any.

        So void pixels weigh nothing, and with class weights it is torch's ``cross_entropy`` with ``weight=`` and
        ``ignore_index=``.
        """
        lost = (encoded * outputs.log_softmax(dim=1)).sum().neg()
        return lost / encoded.sum().clamp_min(_LEAST_WEIGHT)

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
        """``T^2 KL(softmax(teacher / T) || softmax(student / T))``: summed over classes, mean over all pixels."""
        import torch.nn.functional as F

        log_student = F.log_softmax(student / temperature, dim=1)
        log_teacher = F.log_softmax(teacher / temperature, dim=1)
        pixels = student.numel() / student.shape[1]
        return temperature**2 * F.kl_div(log_student, log_teacher, reduction="sum", log_target=True) / pixels

    def _overlaps(self, ours: Array, theirs: Array, known: Array | None) -> tuple[_Counts, _Counts]:
        """Pixels of each class in both masks, and in either, int64 [N, K] each; None: every pixel is known."""
        count = len(self.outputs)
        both, either = (np.zeros((len(ours), count), np.int64) for _ in range(2))
        for row, (mask, other) in enumerate(zip(ours, theirs, strict=True)):
            pairs = mask.astype(np.int32) * count + other
            kept = pairs.ravel() if known is None else pairs[known[row]]
            table = np.bincount(kept, minlength=count * count).reshape(count, count)
            both[row] = table.diagonal()
            either[row] = table.sum(axis=0) + table.sum(axis=1) - both[row]
        return both, either

    def _log_likelihood(self, outputs: Array, targets: Array, temperature: float = 1.0) -> npt.NDArray[np.float64]:
        """The sum over the pixels that are not void, float64 [N]."""
        known = np.not_equal(targets, self.ignore_index)
        classes = np.where(known, targets, 0)[:, None].astype(np.intp)
        of_target = np.take_along_axis(_log_softmax(outputs, temperature), classes, axis=1)[:, 0]
        return np.asarray((of_target * known).sum(axis=(1, 2), dtype=np.float64))


def _log_softmax(outputs: Array, temperature: float = 1.0) -> Float:
    """Over the classes of logits [B, K, H, W] / temperature."""
    scaled = outputs.astype(np.float32)
    scaled *= np.float32(1 / temperature)
    scaled -= np.maximum.reduce(scaled, axis=1, keepdims=True)
    scaled -= np.log(np.add.reduce(np.exp(scaled), axis=1, keepdims=True))
    return scaled


def _mean(values: Array) -> Float:
    """Over the pixels of [B, H, W], float32 [B]."""
    mean: Float = values.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
    return mean
