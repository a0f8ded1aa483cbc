"""What every engine does, whatever computes underneath."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from sdcompress.policies._base import Float, Signals
from sdcompress.schema.manifest import Policy, Preprocess

__all__ = ["Engine", "ExitCost", "Float", "Images", "Prediction"]

Images = npt.NDArray[np.uint8] | Sequence["Image.Image | npt.NDArray[np.uint8]"]


@dataclass(frozen=True)
class Prediction:
    """The answers for one batch.

    Attributes:
        logits: float32 [B, K], of the exit at which each sample left.
        exit_index: int64 [B], that exit's position in ``exit_names``.
    """

    logits: Float
    exit_index: npt.NDArray[np.int64]


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
            images: a list of Pillow images or uint8 arrays [H, W, C] of any size, which are resized and cropped; or
                uint8 [B, H, W, C], resized and cropped too unless it has the network's H, W and C already.

        Raises:
            InputError: if an image has another dtype, shape or depth, or is too small to be cropped.
        """
