"""The contract of a modality: what a network is given, and how raw examples become that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from sdcompress.schema.graphs import Tensor

__all__ = ["Array", "Inputs", "Modality", "batch_size", "rows_of"]

Array = npt.NDArray[Any]
Inputs = Mapping[str, Array]
"""Name of a graph's input -> array [B, ...]."""


@dataclass(frozen=True)
class Modality(ABC):
    """What goes into a network. One subclass a file; its fields are what a manifest records of it.

    An *example* is one sample as a data set holds it once it fits the network: for images uint8 [H, W, C]. A *raw*
    example is what users have: a file, its bytes, an image of any size. *Inputs* are the arrays that graphs take.

    Importing a modality needs numpy and what prepares inputs at inference, never torch.
    """

    @property
    def parameters(self) -> dict[str, Any]:
        """Its fields, as manifests write them."""
        written: dict[str, Any] = TypeAdapter(type(self)).dump_python(self, mode="json")
        return written

    @property
    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """The inputs of a graph: names, dtypes, shapes; axes that vary are names, the first of them ``batch``."""

    @abstractmethod
    def prepare(self, raw: Any) -> Inputs:
        """Raw examples as inputs, at inference.

        Args:
            raw: a sequence of B of them.

        Raises:
            InputError: names the first that cannot be used, and why.
        """

    @abstractmethod
    def collate(self, examples: Any) -> Inputs:
        """Examples as inputs: what training, export and evaluation feed.

        Args:
            examples: B of them, as ``Samples.examples`` gives them.

        Raises:
            InputError: if they do not fit the network.
        """

    @abstractmethod
    def check(self, inputs: Any) -> Inputs:
        """The inputs of a call, C-contiguous.

        Args:
            inputs: by name; the array alone where there is one input.

        Raises:
            InputError: if a name, a dtype or a shape is another.
        """

    @abstractmethod
    def unusual(self) -> Mapping[str, Any]:
        """Examples that real data rarely holds, by what they are: blank, saturated, noise. Parity gates see them."""


def batch_size(inputs: Inputs) -> int:
    """B: the rows of every input."""
    return len(next(iter(inputs.values())))


def rows_of(inputs: Inputs, rows: slice | npt.NDArray[np.integer]) -> Inputs:
    """Some of the rows of every input."""
    return {name: array[rows] for name, array in inputs.items()}
