"""What a search for better settings tried and found: the record of ``tune``. docs/tune.md explains it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from sdcompress.schema.base import Fraction, Frozen
from sdcompress.schema.report import Machine
from sdcompress.schema.search import Tune, Value

__all__ = ["Trial", "Tuning"]


class Trial(Frozen):
    """One training of the search."""

    number: NonNegativeInt = Field(description="from 0, whose values are those of the recipe")
    values: dict[str, Value] = Field(description="of the searched keys")
    state: Literal["complete", "pruned", "diverged", "refused"] = Field(
        description="pruned: it ended early, by the pruner; refused: these values do not go together, or need more "
        "memory than there is"
    )
    metric: Fraction = Field(description="that the search maximises, of the last epoch; 0: it diverged or was refused")
    exits: dict[str, Fraction] = Field({}, description="the validation metric of each exit")
    epochs: NonNegativeInt = Field(description="that it was trained")
    seconds: NonNegativeFloat = Field(description="that they took")


class Tuning(Frozen):
    """All trials of a search, and which was best."""

    schema_version: Literal[1] = 1
    created: str
    command: str
    data: str
    method: str
    metric_name: str
    binary_loss: bool = Field(description="every loss is 0 or 1, so that the metric is a proportion")
    samples: PositiveInt = Field(description="of the validation split, on which trials were compared")
    settings: Tune = Field(description="of the search, its ranges filled in")
    seed: NonNegativeInt
    trials: tuple[Trial, ...]
    best: NonNegativeInt = Field(description="number of the best trial")
    recipe: dict[str, Any] = Field(description="with the values of the best trial")
    threads: PositiveInt
    machine: Machine

    @property
    def winner(self) -> Trial:
        """Return the best trial."""
        return next(trial for trial in self.trials if trial.number == self.best)

    @property
    def first(self) -> Trial:
        """Return the trial with the values of the recipe."""
        return self.trials[0]
