"""Tokenizers of the package tokenizers: read from their file; and the tokens of many texts, held without padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sdcompress.errors import DataError, requires_extra
from sdcompress.printable import has_surrogates

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["FILE", "TokenLists", "Tokens", "first_unreadable", "padding_id", "parts_of", "read_tokenizer"]

Tokens = npt.NDArray[np.int32]

FILE = "tokenizer.json"
_MAX_FILE_BYTES = 2**28
_PADDING_TOKENS = ("[PAD]", "<pad>", "<|padding|>", "<|pad|>")


class TokenLists:
    """The examples of many texts without their padding: ``lists[indices]`` are examples, int32 [b, 1 or 2, L].

    Args:
        blank: an example without tokens, [1 or 2, L].
        rows: ids of each text, and the types of its tokens where the network takes them.
    """

    def __init__(self, blank: Tokens, rows: Sequence[Sequence[Tokens]]) -> None:
        self._blank = blank
        self._values = [np.concatenate(lists) for lists in rows]
        self._ends = np.cumsum([0, *map(len, rows[0])])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, indices: npt.NDArray[np.integer]) -> Tokens:
        examples = np.repeat(self._blank[None], len(indices), axis=0)
        for example, index in zip(examples, indices, strict=True):
            start, end = self._ends[index], self._ends[index + 1]
            for row, values in zip(example, self._values, strict=True):
                row[: end - start] = values[start:end]
        return examples


def parts_of(raw: Sequence[Any], most: int) -> Iterator[slice]:
    """Yield which texts to tokenise at once, in their order, so that memory depends on no more of them.

    Args:
        raw: texts, or pairs of texts.
        most: characters of the texts of a part, unless it is a single one.
    """
    start, characters = 0, 0
    for at, one in enumerate(raw):
        length = len(one) if isinstance(one, str) else sum(map(len, one))
        if start < at and characters + length > most:
            yield slice(start, at)
            start, characters = at, 0
        characters += length
    if len(raw):
        yield slice(start, len(raw))


def first_unreadable(tokenizer: Tokenizer, raw: Sequence[Any]) -> tuple[int, str]:
    """Return the first text that cannot be tokenised, and why."""
    problems = ((at, _tokenizing_problem(tokenizer, one)) for at, one in enumerate(raw))
    return next((at, problem) for at, problem in problems if problem)


def _tokenizing_problem(tokenizer: Tokenizer, raw: Any) -> str:
    try:
        tokenizer.encode_batch_fast([raw])
    except Exception as error:  # noqa: BLE001 - tokenizers raises plain ones
        half = has_surrogates("".join(raw))
        return "it holds half of a surrogate pair, which is no character" if half else str(error)
    return ""


def read_tokenizer(content: bytes, file: Path) -> Tokenizer:
    """Return the tokenizer of a file's content.

    Args:
        content: of the file.
        file: for messages.

    Raises:
        DataError: if it is no tokenizer.
        MissingExtraError: if the package tokenizers is not installed.
    """
    with requires_extra("text"):
        from tokenizers import Tokenizer
    try:
        if len(content) > _MAX_FILE_BYTES:
            raise ValueError(f"it has {len(content)} bytes, and {_MAX_FILE_BYTES} are allowed")
        return Tokenizer.from_buffer(content)
    except Exception as error:
        raise DataError(
            f"{file} is no tokenizer: {error}.",
            allowed=f"{FILE} as the package tokenizers writes it",
            next_step="copy it again from the folder of the pretrained encoder",
        ) from error


def padding_id(tokenizer: Tokenizer) -> int:
    """Return the id of the padding token: as the file says, else of a token that is usually it, else 0."""
    if tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"])
    known = (tokenizer.token_to_id(token) for token in _PADDING_TOKENS)
    return next((id_ for id_ in known if id_ is not None), 0)
