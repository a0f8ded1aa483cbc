"""Turn the tensors of a request into inputs of the network: prepared ones, or raw examples by the modality."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Mapping

import numpy as np

from sdcompress.errors import InputError, brief
from sdcompress.modalities import Inputs, Modality
from sdcompress.serving.errors import TooLargeError
from sdcompress.serving.protocol.datatypes import BYTES, datatype_of
from sdcompress.serving.protocol.tensors import Tensor

__all__ = ["RAW", "InputReader"]

RAW = "raw"
"""The input that takes raw examples: BYTES, or pixels as UINT8."""

_SMALLEST_STEP = 8


class InputReader:
    """What one model takes.

    Args:
        modality: of the model.
        most_rows: of one request.
        decoded_bytes: most memory of one raw example once it is decoded.
    """

    def __init__(self, modality: Modality, *, most_rows: int, decoded_bytes: int) -> None:
        self._modality, self._most_rows, self._decoded_bytes = modality, most_rows, decoded_bytes
        self._tensors = {tensor.name: tensor for tensor in modality.tensors}
        self.longest = self._longest()

    def warm_up(self) -> None:
        """Load what prepares raw examples, such as a tokenizer.

        Raises:
            MissingExtraError: if a package for that is not installed.
        """
        with contextlib.suppress(InputError):  # what is a text, or two, is no image
            self._prepared(Tensor(BYTES, (1,), (b'["a", "a"]',)))

    def metadata(self) -> list[dict[str, object]]:
        """Return the inputs as the protocol lists them; either ``raw`` or all others are given."""
        optional = {"optional": True}
        listed: list[dict[str, object]] = [{"name": RAW, "datatype": BYTES, "shape": [-1], "parameters": optional}]
        for name, tensor in self._tensors.items():
            shape = [size if isinstance(size, int) else -1 for size in tensor.shape]
            listed.append({"name": name, "datatype": datatype_of(tensor.dtype), "shape": shape, "parameters": optional})
        return listed

    def is_raw(self, tensors: Mapping[str, Tensor]) -> bool:
        """Return whether raw examples are given, whose preparation takes time.

        Raises:
            InputError: if the names are neither ``raw`` nor those of the network's inputs, or there are too many rows.
        """
        raw = tensors.keys() == {RAW}
        if not raw and tensors.keys() != self._tensors.keys():
            raise InputError(
                f"The inputs are {brief(', '.join(sorted(tensors)))}.",
                allowed=f"{RAW} alone, or {' and '.join(self._tensors)}",
                next_step="see the model's metadata: GET /v2/models/NAME",
            )
        rows = next(iter(tensors.values())).shape[0]
        if not 1 <= rows <= self._most_rows:
            error = InputError if rows == 0 else TooLargeError
            raise error(
                f"The request has {rows} rows.",
                allowed=f"1 to {self._most_rows}",
                next_step="send the examples in several requests" if rows else "send at least one example",
            )
        return raw

    def read(self, tensors: Mapping[str, Tensor]) -> Inputs:
        """Return the checked inputs of the network.

        Raises:
            InputError: says which tensor or example cannot be used, and why.
        """
        if RAW in tensors and RAW not in self._tensors:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a client does not see them
                inputs = self._prepared(tensors[RAW])
        else:
            inputs = self._given(tensors)
        checked = self._modality.check(inputs)
        return self._joinable(checked)

    def _prepared(self, tensor: Tensor) -> Inputs:
        data = tensor.data
        if isinstance(data, np.ndarray):
            if tensor.datatype != "UINT8" or data.ndim < 3:
                raise InputError(
                    f"The input '{RAW}' is {tensor.datatype} of shape {list(tensor.shape)}.",
                    allowed="BYTES of shape [B], or pixels: UINT8 of shape [B, height, width, channels]",
                    next_step="send files or texts as BYTES",
                )
            return self._modality.prepare(data)
        if len(tensor.shape) != 1:
            raise InputError(
                f"The input '{RAW}' has the shape {list(tensor.shape)}.",
                allowed="[B]: one element for each example",
                next_step="send a flat list",
            )
        return self._modality.prepare([self._raw(content, at) for at, content in enumerate(data)])

    def _raw(self, content: bytes, at: int) -> object:
        try:
            return self._modality.raw_from_bytes(content, most_bytes=self._decoded_bytes)
        except InputError as error:
            raise InputError(
                f"The raw example {at} cannot be used: {error.problem}",
                allowed=error.allowed,
                next_step=error.next_step,
            ) from error

    def _given(self, tensors: Mapping[str, Tensor]) -> Inputs:
        arrays = {}
        for name, expected in self._tensors.items():
            tensor = tensors[name]
            if tensor.datatype != (datatype := datatype_of(expected.dtype)):
                raise InputError(
                    f"The input '{name}' is {tensor.datatype}.",
                    allowed=f"{datatype}, or raw examples as the input '{RAW}'",
                    next_step="convert it",
                )
            assert isinstance(tensor.data, np.ndarray), "only BYTES are none"
            array = tensor.data.astype(expected.dtype, copy=False)
            if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
                raise InputError(
                    f"The input '{name}' holds a value that is not finite.",
                    allowed="finite numbers within the range of the datatype",
                    next_step="correct the values",
                )
            arrays[name] = array
        return Inputs(arrays)

    def _joinable(self, inputs: Inputs) -> Inputs:
        """Pad to one of few lengths, so that requests of like lengths share batches."""
        if self.longest is None:
            return inputs
        length = self._length(inputs)
        if not 1 <= length <= self.longest:
            raise InputError(
                f"The inputs have a length of {length}.",
                allowed=f"1 to {self.longest}",
                next_step="shorten them, or send raw examples, which are cut",
            )
        # steps of an eighth to a quarter of the length: little padding, and few lengths
        step = max(_SMALLEST_STEP, 2 ** (math.floor(math.log2(length)) - 2))
        return self._modality.padded(inputs, min(self.longest, -(-length // step) * step))

    def _length(self, inputs: Inputs) -> int:
        """Return the size of the longest axis that varies."""
        sizes: list[int] = [
            size
            for name, tensor in self._tensors.items()
            for axis, size in zip(tensor.shape[1:], inputs.arrays[name].shape[1:], strict=True)
            if isinstance(axis, str)
        ]
        return max(sizes)

    def _longest(self) -> int | None:
        """Return the longest axis that the network takes, which its edge cases reach; None: no axis varies."""
        if not self._modality.varies:
            return None
        return self._length(self._modality.collate(np.stack(list(self._modality.edge_cases().values()))))
