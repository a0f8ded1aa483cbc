"""Record an exit policy's score: call it with symbols in place of arrays, which see every ufunc of numpy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from sdcompress.errors import UsageError
from sdcompress.policies._base import ExitPolicy, Signals

__all__ = ["Symbol", "symbolic_score"]

S = TypeVar("S", bound="Symbol")


class Symbol(NDArrayOperatorsMixin):
    """Stands for an array [rows, ...] in a score.

    Args:
        ndim: of the array.
    """

    def __init__(self, ndim: int) -> None:
        self.ndim = ndim

    @abstractmethod
    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Symbol:
        """Record a call of a ufunc, and return the symbol of its result."""

    def __bool__(self) -> bool:
        # else every comparison would be true, and only one branch recorded
        raise TypeError("it branches on a signal")


def symbolic_score(
    policy: ExitPolicy,
    exit_index: int,
    exits: Sequence[Signals],
    symbol: type[S],
    refused: Callable[[str], UsageError],
) -> S:
    """Return the score of an exit as a symbol.

    Args:
        policy: with its fitted parameters.
        exit_index: of the exit.
        exits: signals as symbols, as ``ExitPolicy.score`` has them.
        symbol: class of the symbols.
        refused: returns the error for a reason.

    Raises:
        UsageError: if the score cannot be recorded, or is not one number for each row.
    """
    try:
        score: object = policy.score(exit_index, exits)
    except (TypeError, AttributeError, ValueError) as error:  # a symbol where numpy needs an array
        raise refused(f"it cannot be recorded: {error}") from error
    if not isinstance(score, symbol):
        raise refused(f"its score is a {type(score).__name__} that does not depend on the signals")
    if score.ndim != 1:
        raise refused(f"its score has {score.ndim} axes instead of one")
    return score
