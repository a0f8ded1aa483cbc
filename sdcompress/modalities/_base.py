"""The contract of a modality: what a network is given, and how raw examples become that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from sdcompress.schema.graphs import Tensor

__all__ = ["Array", "Inputs", "Modality"]

Array = npt.NDArray[Any]


class Inputs:
    """The arrays of one batch by the names of a graph's inputs; ``inputs[:8]`` takes rows of all of them.

    Where there is one input it is also an array to numpy: ``np.asarray(inputs)``.

    Args:
        arrays: name -> array [B, ...], all of one B.
    """

    __slots__ = ("arrays",)

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self.arrays = arrays

    @classmethod
    def joined(cls, parts: Sequence[Inputs]) -> Inputs:
        """The rows of several batches, one after the other."""
        return cls({name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays})

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, rows: slice | npt.NDArray[np.integer] | Sequence[int]) -> Inputs:
        return Inputs({name: array[rows] for name, array in self.arrays.items()})

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        (array,) = self.arrays.values()
        return np.array(array, dtype, copy=True) if copy else np.asarray(array, dtype)


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
            inputs: ``Inputs``, or arrays by name; the array alone where there is one input.

        Raises:
            InputError: if a name, a dtype or a shape is another.
        """

    @abstractmethod
    def unusual(self) -> Mapping[str, Any]:
        """Examples that real data rarely holds, by what they are: blank, saturated, noise. Parity gates see them."""
