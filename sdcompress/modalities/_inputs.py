"""The inputs of a batch: named arrays, of which rows can be taken, and the check of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress.errors import InputError
from sdcompress.schema.graphs import Tensor

__all__ = ["Array", "Inputs", "checked_inputs"]

Array = npt.NDArray[Any]


class Inputs:
    """The arrays of one batch by the names of a graph's inputs; ``inputs[:8]`` takes rows of all of them.

    Where there is one input it is also an array to numpy: ``np.asarray(inputs)``. Of padded inputs, rows lose what is
    padding in all of them, so that any rows are what these alone would have been padded to.

    Args:
        arrays: name -> array [B, ...], all of one B.
        mask: name of the array that is 0 where there is padding, int64 [B, S]; all others have these two axes first.
            None: nothing is padded.
    """

    __slots__ = ("arrays", "mask")

    def __init__(self, arrays: Mapping[str, Any], mask: str | None = None) -> None:
        self.arrays, self.mask = arrays, mask

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, rows: slice | npt.NDArray[np.integer] | Sequence[int]) -> Inputs:
        chosen = Inputs({name: array[rows] for name, array in self.arrays.items()}, self.mask)
        if self.mask is None:
            return chosen
        longest = max(1, int(chosen.lengths.max(initial=0)))
        return Inputs(
            {name: np.ascontiguousarray(array[:, :longest]) for name, array in chosen.arrays.items()}, self.mask
        )

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Return the length of each row without the padding on its right, int64 [B]; 0 where nothing is padded.

        A row of padding alone has the length of the batch: what a network computes of it may depend on that.
        """
        if self.mask is None or (mask := self.arrays[self.mask]).shape[1] == 0:
            return np.zeros(len(self), np.int64)
        return np.asarray(mask.shape[1] - (mask[:, ::-1] != 0).argmax(axis=1), np.int64)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        (array,) = self.arrays.values()
        return np.array(array, dtype, copy=True) if copy else np.asarray(array, dtype)


def checked_inputs(inputs: Any, tensors: Sequence[Tensor], mask: str | None) -> Inputs:
    """Return the inputs of a call, C-contiguous; see ``Modality.check``.

    Args:
        inputs: ``Inputs``, or arrays by name; the array alone where there is one input.
        tensors: that the network takes.
        mask: see ``Inputs``.

    Raises:
        InputError: if a name, a dtype or a shape is another.
    """
    named = inputs.arrays if isinstance(inputs, Inputs) else inputs
    if not isinstance(named, Mapping):
        named = {tensors[0].name: named}
    arrays = {tensor.name: _checked(named.get(tensor.name), tensor) for tensor in tensors}
    if len({len(array) for array in arrays.values()}) > 1:
        raise InputError(
            "The inputs have " + ", ".join(f"{len(array)} rows of '{name}'" for name, array in arrays.items()) + ".",
            allowed="one batch size for all inputs",
            next_step="make them with engine.preprocess",
        )
    return Inputs(arrays, mask)


def _checked(array: Any, tensor: Tensor) -> Array:
    sizes = tensor.shape[1:]
    if not isinstance(array, np.ndarray):
        problem, step = f"is a {type(array).__name__}, not an array.", "make it with engine.preprocess"
    elif array.dtype != tensor.dtype and array.dtype.kind == np.dtype(tensor.dtype).kind:
        problem, step = f"is {array.dtype}.", f"convert it: inputs.astype(numpy.{tensor.dtype})"
    elif array.dtype != tensor.dtype:
        problem, step = f"is {array.dtype}.", "make it with engine.preprocess, which takes raw examples"
    elif array.ndim == len(sizes):
        problem, step = f"has the shape {list(array.shape)}: one sample, no batch.", "give inputs[None]"
    elif array.ndim != len(tensor.shape) or any(
        isinstance(size, int) and size != given for size, given in zip(sizes, array.shape[1:], strict=True)
    ):
        problem, step = f"has the shape {list(array.shape)}.", "make it with engine.preprocess"
    else:
        return np.ascontiguousarray(array)
    raise InputError(
        f"The input '{tensor.name}' {problem}",
        allowed=f"{tensor.dtype} of shape [B, {', '.join(map(str, sizes))}]",
        next_step=step,
    )
