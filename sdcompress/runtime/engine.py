"""Define the interface of all engines, and check the arguments of their calls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from sdcompress.errors import InputError
from sdcompress.modalities import Array, Inputs, Modality
from sdcompress.policies._base import Float, Signals
from sdcompress.schema.manifest import Policy
from sdcompress.tasks import Prediction, Task

__all__ = ["AnyInputs", "Engine", "ExitCost", "Float", "Prediction", "checked_exit_index", "checked_temperatures"]

AnyInputs = Inputs | Mapping[str, Array] | Array
"""Inputs of a call: the result of ``preprocess``, arrays by name, or the array alone where there is one input."""


class ExitCost(NamedTuple):
    """The cost of one sample that exits at an exit, the heads that it passes included.

    Attributes:
        macs: multiply-accumulates.
        parameters: parameters of all that runs.
    """

    macs: int
    parameters: int


class Engine(Protocol):
    """An opened network. Calls may come from several threads at once; an engine keeps nothing between them.

    A batch is only faster: the result of a row does not depend on the rows beside it, but for the last bits of a sum,
    which the backend may round differently at another batch size. Inputs are not searched for NaN and infinity, which
    give outputs that are not finite. A sample with a score of NaN does not exit early.

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
            inputs: as ``preprocess`` returns them; B may be 0.
            deadline_ms: from the call on; None: no deadline. Active samples take the deepest exit that can be reached
                in this time, by the measured stages; the first exit always runs. No certificate covers such
                predictions.

        Raises:
            InputError: if an input has another dtype or shape.
        """

    def exits(self, inputs: AnyInputs) -> Float:
        """Return the outputs of every exit, float32 [E, B, ...]; no sample exits early.

        Raises:
            InputError: if an input has another dtype or shape.
        """

    def signals(self, inputs: AnyInputs, temperatures: Sequence[float] | None = None) -> tuple[Signals, ...]:
        """Return the signals of every exit, from which the exit policy computes scores; no sample exits early.

        They are the numbers that the policy gets when it runs; calibration uses them.

        Args:
            inputs: as ``preprocess`` returns them.
            temperatures: one for each exit, above 0; None: those of the artifact.

        Raises:
            InputError: if an input has another dtype or shape, or the temperatures are invalid.
        """

    def forced(self, inputs: AnyInputs, exit: int) -> Prediction:  # noqa: A002 - the field's word
        """Predict with all samples at one exit; no signals are computed.

        Args:
            inputs: as ``preprocess`` returns them.
            exit: index in ``exit_names``; negative counts from the last.

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


def checked_temperatures(temperatures: Sequence[float], exits: int) -> tuple[float, ...]:
    """Return one temperature for each exit.

    Args:
        temperatures: of the caller.
        exits: their number.

    Raises:
        InputError: if there are more or fewer, or one is no finite number above 0.
    """
    if len(temperatures) == exits and all(0 < temperature < math.inf for temperature in temperatures):
        return tuple(temperatures)
    raise InputError(
        f"The temperatures are {list(temperatures)}.",
        allowed=f"{exits} finite numbers above 0, one for each exit",
        next_step="leave them out to take those of the artifact",
    )


def checked_exit_index(exit: int, names: tuple[str, ...]) -> int:  # noqa: A002 - the field's word
    """Return an exit index from the front, 0 to E - 1.

    Args:
        exit: index; negative counts from the last.
        names: of the exits.

    Raises:
        InputError: if there is no such exit.
    """
    if not -len(names) <= exit < len(names):
        raise InputError(
            f"There is no exit {exit}.",
            allowed=", ".join(f"{exit_index} ({name})" for exit_index, name in enumerate(names)),
            next_step="choose one of them",
        )
    return exit % len(names)
