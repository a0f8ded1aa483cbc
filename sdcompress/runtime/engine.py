"""What every engine does, whatever computes underneath."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from sdcompress.modalities import Array, Inputs, Modality
from sdcompress.policies._base import Float, Signals
from sdcompress.schema.manifest import Policy
from sdcompress.tasks import Prediction, Task

__all__ = ["AnyInputs", "Engine", "ExitCost", "Float", "Prediction"]

AnyInputs = Inputs | Mapping[str, Array] | Array
"""What calls take: what ``preprocess`` gives, arrays by name, or the array alone where there is one input."""


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

    A batch is only faster: what a row gets does not depend on the rows beside it, but for the last
    bits of a sum, which the backend may round differently at another batch size. NaN and infinity are not looked for
    in inputs; they come out as outputs that are not finite, and a score that is NaN never lets a sample leave.

    Where the backend keeps tensors on a GPU, an input may also be an array of another library that lies there (DLPack
    or ``__cuda_array_interface__``); predictions are arrays of the host.
    """

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Return the names of the E exits, shallow to deep."""

    @property
    def task(self) -> Task:
        """Return the task, the meaning of the outputs."""

    @property
    def modality(self) -> Modality:
        """Return the modality of the inputs."""

    @property
    def policy(self) -> Policy | None:
        """Return the exit policy; None: all samples run to the last exit."""

    @property
    def exit_costs(self) -> tuple[ExitCost, ...]:
        """Return the cost of a sample that exits at each exit."""

    def __call__(self, inputs: AnyInputs, *, deadline_ms: float | None = None) -> Prediction:
        """Predict; samples exit by the policy.

        Args:
            inputs: as ``preprocess`` makes them; B may be 0.
            deadline_ms: from the call on. Samples that are left then take the deepest exit that is reached in this
                time, by the measured stages; the first exit always runs. No certificate covers such predictions.
                None: no deadline.

        Raises:
            InputError: if an input has another dtype or shape.
        """

    def exits(self, inputs: AnyInputs) -> Float:
        """Return the outputs of every exit, float32 [E, B, ...]; no sample leaves early.

        Raises:
            InputError: if an input has another dtype or shape.
        """

    def signals(self, inputs: AnyInputs, temperatures: Sequence[float] | None = None) -> tuple[Signals, ...]:
        """What the exit policy judges every exit by, one for each exit; no sample leaves early.

        The very numbers that the policy sees when it runs: calibration takes them from here.

        Args:
            inputs: as ``preprocess`` makes them.
            temperatures: one for each exit, above 0; None: those of the artifact.

        Raises:
            InputError: if an input has another dtype or shape, or the temperatures are other than that.
        """

    def forced(self, inputs: AnyInputs, exit: int) -> Prediction:  # noqa: A002 - the field's word
        """Predict with all samples leaving at one exit; no signals are computed.

        Args:
            inputs: as ``preprocess`` makes them.
            exit: position in ``exit_names``; negative counts from the last.

        Raises:
            InputError: if an input has another dtype or shape, or there is no such exit.
        """

    def preprocess(self, raw: Any) -> Inputs:
        """Turn raw examples into inputs; see the modality's ``prepare``.

        Args:
            raw: a sequence of B raw examples, such as images of any size, files or their bytes.

        Raises:
            InputError: names the first that cannot be used, and why.
        """
