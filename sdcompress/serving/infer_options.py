"""Read the parameters of an infer request: its exits, its deadline, the form of its outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sdcompress.errors import InputError, brief
from sdcompress.serving.protocol.request import Parameters, check_parameters

__all__ = ["InferOptions", "infer_options_of"]

_KNOWN = ("binary_data_output", "deadline_ms", "max_exit", "min_exit")


@dataclass(frozen=True)
class InferOptions:
    """The options of one infer request, beside its inputs.

    Attributes:
        min_exit: index of the first exit that a row may take.
        max_exit: index of the exit at which all rows are done.
        deadline_ms: after which rows take the deepest exit that they have reached; None: never.
        binary: whether outputs are sent as binary data.
        policy_decides: whether the exit policy alone decides, as its certificate presumes.
    """

    min_exit: int
    max_exit: int
    deadline_ms: float | None = None
    binary: bool = False
    policy_decides: bool = True


def infer_options_of(parameters: Parameters, exits: Sequence[str]) -> InferOptions:
    """Return the options that the parameters of a request give.

    Args:
        parameters: of the request.
        exits: names of the exits.

    Raises:
        InputError: names the first parameter that is unknown or has no meaning.
    """
    check_parameters(parameters, _KNOWN, "a request")
    last = len(exits) - 1
    first_exit = _exit_index(parameters, "min_exit", exits, 0)
    last_exit = _exit_index(parameters, "max_exit", exits, last)
    if first_exit > last_exit:
        raise InputError(
            f"min_exit is {exits[first_exit]}, which is behind max_exit, {exits[last_exit]}.",
            allowed=", ".join(exits),
            next_step="exchange them",
        )
    deadline = parameters.get("deadline_ms")
    if deadline is not None and (isinstance(deadline, bool | str) or not 0 < deadline < math.inf):
        raise _refused("deadline_ms", deadline, "a number of milliseconds above 0")
    binary = parameters.get("binary_data_output", False)
    if not isinstance(binary, bool):
        raise _refused("binary_data_output", binary, "true or false")
    decides = deadline is None and first_exit == 0 and last_exit == last
    return InferOptions(first_exit, last_exit, deadline, binary, decides)


def _exit_index(parameters: Parameters, name: str, exits: Sequence[str], default: int) -> int:
    value = parameters.get(name)
    if value is None:
        return default
    if isinstance(value, str) and value in exits:
        return exits.index(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(exits):
        return value
    raise _refused(name, value, ", ".join(f"'{exit_}' or {at}" for at, exit_ in enumerate(exits)))


def _refused(name: str, value: object, allowed: str) -> InputError:
    return InputError(
        f"The parameter {name} is {brief(value)}.", allowed=allowed, next_step="correct it, or leave it out"
    )
