"""What every engine does, whatever computes underneath."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from sdcompress.modalities import Modality
from sdcompress.modalities._geometry import RawImage
from sdcompress.policies._base import Float, Signals
from sdcompress.schema.manifest import Policy, Preprocess
from sdcompress.tasks import Task

__all__ = ["Engine", "ExitCost", "Float", "Images", "Names", "Prediction"]

Images = npt.NDArray[np.uint8] | Sequence[RawImage | Path | str | bytes]


class Names(NamedTuple):
    """What an engine calls its outputs, so that a prediction can be read without the engine.

    Attributes:
        classes: names of the K classes.
        exits: names of the E exits, shallow to deep.
        temperatures: of the E exits, by which their logits are divided.
    """

    classes: tuple[str, ...]
    exits: tuple[str, ...]
    temperatures: tuple[float, ...]


@dataclass(frozen=True)
class Prediction:
    """What an engine predicts for one batch.

    Attributes:
        logits: float32 [B, K], of the exit at which each sample left.
        exit_index: int64 [B], that exit's position in ``exit_names``.
        names: of the engine that made it; None: classes and exits go by their numbers.
    """

    logits: Float
    exit_index: npt.NDArray[np.int64]
    names: Names | None = None

    @property
    def class_index(self) -> npt.NDArray[np.int64]:
        """The predicted classes, int64 [B]; the first of equal logits counts."""
        classes: npt.NDArray[np.int64] = self.logits.argmax(axis=1)
        return classes

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the B predicted classes."""
        return tuple(map(self._class_name, self.class_index.tolist()))

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Names of the exits at which the B samples left."""
        exits = self.names.exits if self.names else None
        return tuple(exits[at] if exits else str(at) for at in self.exit_index.tolist())

    @property
    def probabilities(self) -> Float:
        """float32 [B, K]: softmax of the logits, divided by the temperature of the exit where it has one."""
        logits = self.logits.astype(np.float64)
        if self.names is not None:
            logits /= np.asarray(self.names.temperatures)[self.exit_index][:, None]
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: Float = (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
        return shares

    def top(self, count: int = 5) -> tuple[tuple[tuple[str, float], ...], ...]:
        """For each of the B samples its most probable classes, as (name, probability), the most probable first.

        Args:
            count: how many; at most all K are given.
        """
        probabilities = self.probabilities
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
        return tuple(
            tuple((self._class_name(k), float(row[k])) for k in best.tolist())
            for row, best in zip(probabilities, order, strict=True)
        )

    def _class_name(self, position: int) -> str:
        return self.names.classes[position] if self.names else str(position)


class ExitCost(NamedTuple):
    """What is computed for one image that leaves at an exit, the heads that it passes included.

    Attributes:
        macs: multiply-accumulates.
        parameters: parameters of all that runs.
    """

    macs: int
    parameters: int


class Engine(Protocol):
    """An opened network. Calls may come from several threads at once; an engine keeps nothing between them.

    A batch is only a faster way of asking: what a row gets does not depend on the rows beside it, but for the last
    bits of a sum, which the backend may round differently at another batch size. NaN and infinity are not looked for
    in inputs; they come out as logits that are not finite, and a confidence that is NaN never lets a sample leave.

    Where the backend keeps tensors on a GPU, inputs may also be an array of another library that lies there (DLPack or
    ``__cuda_array_interface__``); answers are arrays of the host.
    """

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Names of the E exits, shallow to deep."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes."""

    @property
    def image(self) -> tuple[int, int, int]:
        """C, H, W of the inputs."""

    @property
    def preprocess_spec(self) -> Preprocess:
        """From any image to an input."""

    @property
    def task(self) -> Task:
        """What its outputs mean."""

    @property
    def modality(self) -> Modality:
        """What it is given."""

    @property
    def policy(self) -> Policy | None:
        """When samples leave; None: nobody leaves before the last exit."""

    @property
    def exit_costs(self) -> tuple[ExitCost, ...]:
        """The cost of leaving at each exit."""

    def __call__(self, inputs: Float, *, deadline_ms: float | None = None) -> Prediction:
        """Predict; samples leave as the policy says.

        Args:
            inputs: float32 [B, C, H, W], as ``preprocess`` makes them; B may be 0.
            deadline_ms: from the call on: whoever is left answers at the deepest exit that is reached in this time,
                by the measured stages; the first exit always runs. No certificate covers such answers. None: no hurry.

        Raises:
            InputError: if the array has another dtype or shape.
        """

    def exits(self, inputs: Float) -> Float:
        """The logits of every exit, float32 [E, B, K]; nobody leaves.

        Raises:
            InputError: if the array has another dtype or shape.
        """

    def signals(self, inputs: Float, temperatures: Sequence[float] | None = None) -> tuple[Signals, ...]:
        """What the exit policy judges every exit by, one for each exit; nobody leaves.

        The very numbers that the policy sees when it runs: calibration takes them from here.

        Args:
            inputs: float32 [B, C, H, W].
            temperatures: one for each exit, above 0; None: those of the artifact.

        Raises:
            InputError: if the array has another dtype or shape, or the temperatures are other than that.
        """

    def forced(self, inputs: Float, exit: int) -> Prediction:  # noqa: A002 - the field's word
        """Predict with everybody leaving at one exit; no confidence is computed.

        Args:
            inputs: float32 [B, C, H, W].
            exit: position in ``exit_names``; negative counts from the last.

        Raises:
            InputError: if the array has another dtype or shape, or there is no such exit.
        """

    def preprocess(self, images: Images) -> Float:
        """Turn images into inputs, float32 [B, C, H, W].

        Args:
            images: a list of images of any size, which are resized and cropped: Pillow images, arrays (uint8 [H, W, C],
                or uint16 [H, W] for grey of 16 bits), paths of image files, or their bytes; or one array, uint8
                [B, H, W, C], resized and cropped too unless it has the network's H, W and C already.

        Raises:
            InputError: if an image has another dtype, shape or depth, its file is broken, or it is too small to be
                cropped.
        """
