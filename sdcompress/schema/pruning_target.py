"""The target of pruning as recipes write it: macs=50%, parameters=1.2M, ms=0.8."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["PruningTarget", "Quantity", "checked_target"]

Quantity = Literal["macs", "parameters", "ms"]
_FORMS = "macs=50%, parameters=1.2M or ms=0.8"
_FACTORS = {"": 1.0, "%": 0.01, "k": 1e3, "M": 1e6, "G": 1e9}
_TEXT = re.compile(r"(?P<quantity>[a-z]+)=(?P<number>[0-9]+(?:\.[0-9]+)?(?:e[0-9]+)?) ?(?P<unit>[%kMG]?)")


@dataclass(frozen=True)
class PruningTarget:
    """The most that a network may cost.

    Attributes:
        quantity: what is limited.
        limit: multiply-accumulates, numbers, or milliseconds; with ``relative`` a share of the present cost.
        relative: whether the limit is a share.
    """

    quantity: Quantity
    limit: float
    relative: bool

    @classmethod
    def parse(cls, text: str) -> PruningTarget:
        """Read a target as recipes write it.

        Raises:
            ValueError: if it is none.
        """
        match = _TEXT.fullmatch(text)
        if match is None or (quantity := match["quantity"]) not in get_args(Quantity):
            raise ValueError(f"'{text}' is no target; write {_FORMS}")
        limit, relative = float(match["number"]) * _FACTORS[match["unit"]], match["unit"] == "%"
        if not 0 < limit < math.inf or (relative and limit >= 1):
            raise ValueError(f"'{text}' needs a share between 0 and 100 %, or a number above 0")
        return cls(quantity, limit, relative)  # type: ignore[arg-type]

    def absolute(self, present: float) -> float:
        """Return the limit as a cost.

        Args:
            present: of the network as it is.
        """
        return self.limit * present if self.relative else self.limit


def checked_target(text: str) -> str:
    """Return the text of a target; ValueError if it is none."""
    PruningTarget.parse(text)
    return text
