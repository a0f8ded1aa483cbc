"""Texts, or pairs of texts: tokenised to input_ids and attention_mask, int64 [B, S], by the package tokenizers."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt, TypeAdapter

from sdcompress.errors import DataError, InputError, RecipeError
from sdcompress.modalities._base import Modality
from sdcompress.modalities._form import Form, FormField
from sdcompress.modalities._inputs import Inputs
from sdcompress.modalities._rows import SUFFIXES, rows_of
from sdcompress.modalities._settings import checked
from sdcompress.modalities._text_card import card_code
from sdcompress.modalities._text_settings import LONGEST, TextSettings
from sdcompress.modalities._tokenizer import (
    FILE,
    TokenLists,
    Tokens,
    first_unreadable,
    padding_id,
    parts_of,
    read_tokenizer,
)
from sdcompress.schema.graphs import FileEntry, Tensor

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Text"]

Raw = str | tuple[str, str]

_MASK = "attention_mask"
_NOTHING = -1  # fills an example behind its last token; no token's id
_BYTES_PER_CHARACTER = 512  # while it is tokenised; 441 were measured where every character is a token
_CHARACTERS_AT_ONCE = 2**19
_SEED = 0
_EDGE = 32  # tokens of most edge cases
_UNITS = {False: "a text (str)", True: "two texts: (str, str)"}


@dataclass(frozen=True)
class Text(Modality):
    """Texts, or pairs of texts, of any length up to a number of tokens; what is longer is cut.

    An example is int32 [1, max_length]: ids of tokens, -1 behind the last; with ``token_types`` [2, max_length], whose
    second row holds the types. Batches are padded on the right to their longest example.

    Attributes:
        tokenizer: the file tokenizer.json, which travels in checkpoints and artifacts.
        vocabulary: number of ids; every id is below it.
        padding: id that fills a batch.
        max_length: most tokens of an example, special ones included.
        token_types: whether the network also takes ``token_type_ids``.
        columns: names of the columns of files that hold the text, or the two texts.
    """

    tokenizer: FileEntry
    vocabulary: PositiveInt
    padding: Annotated[int, Field(ge=0)]
    max_length: Annotated[int, Field(ge=2, le=LONGEST)] = 128
    token_types: bool = False
    columns: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)] = ("text",)

    suffixes = SUFFIXES
    mask = _MASK

    @classmethod
    def of(
        cls,
        tokenizer: Path | str,
        *,
        max_length: int = 128,
        token_types: bool = False,
        columns: Sequence[str] = ("text",),
    ) -> Text:
        """The modality of a tokenizer's file.

        Args:
            tokenizer: tokenizer.json, or the folder that holds it.
            max_length: most tokens of an example.
            token_types: whether the network takes ``token_type_ids``.
            columns: names of the columns that hold the text, or the two texts.

        Raises:
            DataError: if there is no such file, it is no tokenizer, or its special tokens leave no room.
            MissingExtraError: if the package tokenizers is not installed.
        """
        path = Path(tokenizer)
        file = path / FILE if path.is_dir() else path
        if file.name != FILE or not file.is_file():
            raise DataError(
                f"There is no tokenizer at {path}.",
                allowed=f"a file {FILE} as the package tokenizers writes it, or the folder that holds it",
                next_step="name the folder of the pretrained encoder; a slow tokenizer becomes this file by "
                "transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(OTHER)",
            )
        content = file.read_bytes()
        entry = FileEntry(file=FILE, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        loaded = read_tokenizer(content, file)
        vocabulary = 1 + max(loaded.get_vocab(with_added_tokens=True).values(), default=-1)
        special = loaded.num_special_tokens_to_add(len(columns) == 2)
        if vocabulary == 0 or max_length <= special:
            raise DataError(
                f"The tokenizer {file} has {vocabulary} ids and adds {special} special tokens; max_length is "
                f"{max_length}.",
                allowed="a vocabulary, and room for tokens of the text",
                next_step="raise max_length, or name another tokenizer",
            )
        modality = cls(entry, vocabulary, padding_id(loaded), max_length, token_types, tuple(columns))
        return modality.located(file.parent)

    @classmethod
    def setting_names(cls) -> tuple[str, ...]:
        """The keys of ``TextSettings``; the columns are the data set's."""
        return tuple(name for name in TextSettings.model_fields if name != "columns")

    @classmethod
    def build(cls, parameters: Mapping[str, Any]) -> Text:
        """Make it of a tokenizer's file at least; see ``Modality``."""
        settings = checked(TypeAdapter(TextSettings), parameters, "modality")
        if settings.tokenizer is None:
            raise RecipeError(
                "The recipe names no tokenizer.",
                allowed=f"{FILE}, or the folder that holds it",
                next_step="--set modality.tokenizer=FOLDER, that of the pretrained encoder",
            )
        return cls.of(
            settings.tokenizer,
            max_length=settings.max_length,
            token_types=settings.token_types,
            columns=settings.columns,
        )

    def with_settings(self, parameters: Mapping[str, Any]) -> Text:
        """Change what is given; see ``Modality``."""
        own = {name: getattr(self, name) for name in TextSettings.model_fields}
        return self.build({**own, "tokenizer": str(self.path(self.tokenizer)), **parameters}) if parameters else self

    @cached_property  # every call asks for them
    def tensors(self) -> tuple[Tensor, ...]:
        """``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``: int64 [batch, sequence]."""
        return tuple(Tensor(name=name, dtype="int64", shape=("batch", "sequence")) for name in self._names)

    def prepare(self, raw: Any) -> Inputs:
        """Tokenise and pad; see ``Modality``.

        Args:
            raw: a list of B texts; of pairs of texts where the network takes pairs.
        """
        if isinstance(raw, str):
            raise InputError(
                "This is one text, not a batch of them.",
                allowed="a list of texts",
                next_step="put it into a list: engine.preprocess([text])",
            )
        if len(raw) == 0:
            return super().prepare(raw)
        for at, one in enumerate(raw):
            if problem := self._problem(one):
                raise self._refused(at, problem)
        ids, types = list[list[int]](), list[list[int]]()
        for part in parts_of(raw, _CHARACTERS_AT_ONCE):
            encodings = self.encode(raw[part], part.start)
            self._warn_if_cut(encodings)
            ids += [one.ids for one in encodings]
            types += [one.type_ids for one in encodings] if self.token_types else []
        return self._padded(ids, types)

    def example(self, raw: Any) -> Tokens:
        """One text, or one pair of texts: int32 [1 or 2, max_length]; see ``Modality``."""
        self.check_raw(raw)
        try:
            (encoding,) = self.encode([raw])
        except InputError as error:
            raise error.__cause__ or error from None  # without the position in a batch
        self._warn_if_cut([encoding])
        example: Tokens = self.blank(1)[0]
        example[0, : len(encoding.ids)] = encoding.ids
        if self.token_types:
            example[1, : len(encoding.ids)] = encoding.type_ids
        return example

    def examples(self, raw: Sequence[Any]) -> TokenLists:
        """The examples of texts that ``check_raw`` takes, held compactly; says how many were cut. See ``Modality``."""
        lists, types, cut = list[Tokens](), list[Tokens](), 0
        for part in parts_of(raw, _CHARACTERS_AT_ONCE):
            encodings = self.encode(raw[part], part.start)
            cut += self.cut(encodings)
            lists += [np.array(one.ids, np.int32) for one in encodings]
            types += [np.array(one.type_ids, np.int32) for one in encodings] if self.token_types else []
        if cut:
            warnings.warn(
                f"{cut:,} of {len(raw):,} texts have more than {self.max_length} tokens (modality.max_length) and were "
                "cut.",
                stacklevel=2,
            )
        return TokenLists(self.blank(1)[0], [lists, types] if self.token_types else [lists])

    def blank(self, count: int) -> Tokens:
        """Examples without a token, int32 [count, 1 or 2, max_length]."""
        return np.full((count, 1 + self.token_types, self.max_length), _NOTHING, np.int32)

    def raw_examples(self, file: Path) -> Iterable[tuple[str, Raw]]:
        """The texts of a file: one a line, or those in ``columns``; see ``Modality`` and ``rows_of``."""
        for name, values in rows_of(file, self.columns):
            yield name, values if len(values) == 2 else values[0]

    def labelled_rows(self, file: Path, label: str) -> Iterable[tuple[str, Raw, Any]]:
        """The texts of a table with their labels; see ``Modality``."""
        for name, (*texts, given) in rows_of(file, (*self.columns, label)):
            yield name, (texts[0], texts[1]) if len(texts) == 2 else texts[0], given

    def raw_from_bytes(self, content: bytes, *, most_bytes: int) -> Raw:
        """A text in UTF-8; of two texts a JSON list of both. See ``Modality``."""
        if len(content) > (most := most_bytes // _BYTES_PER_CHARACTER):
            raise InputError(
                f"The text has {len(content):,} bytes.",
                allowed=f"at most {most:,} bytes",
                next_step=f"send its beginning: the network reads at most {self.max_length:,} tokens",
            )
        try:
            text = content.decode()
            pair = json.loads(text) if self._pairs else text
        except (ValueError, RecursionError) as error:
            raise InputError(
                "The text is not in UTF-8." if isinstance(error, UnicodeDecodeError) else "The two texts are no JSON.",
                allowed='a JSON list: ["first text", "second text"]' if self._pairs else "a text in UTF-8",
                next_step="encode it again",
            ) from error
        self.check_raw(pair)
        return (pair[0], pair[1]) if self._pairs else text

    @property
    def form(self) -> Form:
        """The text, or both texts."""
        return Form("list" if self._pairs else "text", tuple(map(FormField, self.columns)))

    def entered(self, example: Tokens) -> tuple[str, ...] | None:
        """The text of the tokens as the tokenizer decodes them; special tokens tell two texts apart."""
        special = set(self._tokenizer.encode("").ids)
        ids = [token for token in example[0].tolist() if token >= 0]
        parts = [list(part) for kept, part in groupby(ids, lambda token: token not in special) if kept]
        if len(parts) != len(self.columns):
            return None
        return tuple(self._tokenizer.decode(part) for part in parts)

    def padded(self, inputs: Inputs, length: int) -> Inputs:
        """Token ids padded with the id for that, what belongs to them with 0; see ``Modality``."""
        missing = length - inputs.arrays[_MASK].shape[1]
        if missing <= 0:
            return inputs
        fill = {"input_ids": self.padding}
        arrays = {
            name: np.pad(array, ((0, 0), (0, missing)), constant_values=fill.get(name, 0))
            for name, array in inputs.arrays.items()
        }
        return Inputs(arrays, mask=inputs.mask)

    def preparation_text(self, raw: Sequence[Any] | None) -> str:
        """Whether tokenising is included; see ``Modality``."""
        return (
            "from token ids, padded to the longest"
            if raw is None
            else "from texts, tokenised and padded to the longest"
        )

    def collate(self, examples: Any) -> Inputs:
        """Pad int32 [B, 1 or 2, max_length] to the longest of the batch; see ``Modality``."""
        shape = (1 + self.token_types, self.max_length)
        if examples.dtype != np.int32 or examples.shape[1:] != shape:
            raise DataError(
                f"The examples are {examples.dtype} of shape {list(examples.shape)}.",
                allowed=f"int32 of shape [B, {shape[0]}, {shape[1]}]: token ids, -1 behind the last",
                next_step="load the data set with the recipe of the network",
            )
        ids = examples[:, 0]
        there = ids >= 0
        if len(ids) and (int(ids.max()) >= self.vocabulary or not there[:, 0].all()):
            raise DataError(
                f"An example has the token id {ids.max()}, or no token at all.",
                allowed=f"one token or more, ids from 0 to {self.vocabulary - 1}",
                next_step="load the data set with the tokenizer of the network",
            )
        there = there[:, : max(1, int(there.sum(axis=1).max(initial=0)))]
        longest = there.shape[1]
        arrays = [np.where(there, ids[:, :longest], self.padding), there]
        if self.token_types:
            arrays.append(np.where(there, examples[:, 1, :longest], 0))
        return self._inputs(arrays)

    def lengths(self, examples: Any) -> npt.NDArray[np.int64]:
        """Tokens of each example; see ``Modality``."""
        return np.asarray((examples[:, 0] >= 0).sum(axis=1), np.int64)

    def edge_cases(self) -> Mapping[str, Tokens]:
        """Random tokens, one token repeated, one alone, the last of the vocabulary, and the longest text."""
        rng = np.random.default_rng(_SEED)
        some = min(_EDGE, self.max_length)
        cases = {
            "random tokens": rng.integers(0, self.vocabulary, some),
            "a token repeated": np.full(some, rng.integers(0, self.vocabulary)),
            "one token": rng.integers(0, self.vocabulary, 1),
            "the last token of the vocabulary": np.full(2, self.vocabulary - 1),
            "the longest text": rng.integers(0, self.vocabulary, self.max_length),
        }
        examples = self.blank(len(cases))
        for example, ids in zip(examples, cases.values(), strict=True):
            example[:, : len(ids)] = 0
            example[0, : len(ids)] = ids
        return dict(zip(cases, examples, strict=True))

    @property
    def limits_text(self) -> str:
        """Number of ids and of positions; see ``Modality``."""
        return (
            f"the {self.vocabulary:,} ids of the tokenizer (modality.tokenizer) and {self.max_length} positions "
            "(modality.max_length)"
        )

    def card_text(self) -> str:
        """The tokenizer's file, the longest text, padding."""
        pairs = f"pairs of texts (columns {', '.join(self.columns)})" if self._pairs else "texts"
        return (
            f"{pairs}, tokenised by `{self.tokenizer.file}` to at most {self.max_length} tokens, padded on the right "
            f"with the id {self.padding} to the longest of the batch"
        )

    def card_code(self) -> str:
        """With numpy and tokenizers; see ``Modality``."""
        return card_code(self.tokenizer.file, self.max_length, pairs=self._pairs, token_types=self.token_types)

    @property
    def card_argument(self) -> str:
        """The text itself; the texts of a pair with a tab between them."""
        return r"$'TEXT\tTEXT'" if self._pairs else "TEXT"

    @property
    def _names(self) -> tuple[str, ...]:
        return ("input_ids", _MASK, "token_type_ids") if self.token_types else ("input_ids", _MASK)

    @property
    def _pairs(self) -> bool:
        return len(self.columns) == 2

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        file = self.path(self.tokenizer)
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != self.tokenizer.sha256:
            raise InputError(
                f"The tokenizer {file} is not the one that the network was trained with: its SHA-256 differs.",
                allowed=f"{self.tokenizer.sha256[:12]}…",
                next_step="restore the file, or copy the artifact again",
            )
        tokenizer = read_tokenizer(content, file)
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_length)
        return tokenizer

    def encode(self, raw: Sequence[Any], first: int = 0) -> list[Any]:
        """Encodings of the package tokenizers, cut but not padded, of texts that ``check_raw`` takes.

        Args:
            raw: the texts.
            first: position of the first one in its batch, for messages.

        Raises:
            InputError: if the tokenizer cannot read one, or finds no token in it; names the first.
        """
        tokenizer = self._tokenizer
        try:
            encodings: list[Any] = tokenizer.encode_batch_fast([*raw])  # without offsets, which take time
        except Exception:  # noqa: BLE001 - tokenizers raises plain ones
            at, why = first_unreadable(tokenizer, raw)
            raise self._refused(first + at, f"The tokenizer cannot read it: {why}.")  # noqa: B904 - it has a cause
        for at, one in enumerate(encodings):
            if len(one) == 0:
                raise self._refused(first + at, "The tokenizer finds no token in it.")
        return encodings

    def cut(self, encodings: Sequence[Any]) -> int:
        """How many texts were longer than ``max_length`` tokens."""
        return sum(len(one.ids) == self.max_length and bool(one.overflowing) for one in encodings)

    def check_raw(self, raw: Any) -> None:
        """Refuse an empty text, and what is no text; see ``Modality``."""
        if problem := self._problem(raw):
            allowed = f"{_UNITS[self._pairs]} with more than white space"
            raise InputError(problem, allowed=allowed, next_step="leave it out")

    def _problem(self, raw: Any) -> str:
        """Why a raw example cannot be used; empty if it can."""
        if not self._pairs:
            if isinstance(raw, str):
                return "" if raw and not raw.isspace() else "The text is empty."
        elif isinstance(raw, tuple | list) and len(raw) == 2 and all(isinstance(text, str) for text in raw):
            return "" if all(text.strip() for text in raw) else "One of the two texts is empty."
        return f"This is {type(raw).__name__}, not {_UNITS[self._pairs]}."

    def _refused(self, at: int, problem: str) -> InputError:
        """The error of one text of a batch; its cause is that of the text alone."""
        allowed = f"{_UNITS[self._pairs]} with more than white space, in Unicode without lone surrogates"
        error = InputError(
            f"Text {at} cannot be used: {problem}", allowed=allowed, next_step="leave it out of the batch"
        )
        error.__cause__ = InputError(problem, allowed=allowed, next_step="leave it out")
        return error

    def _warn_if_cut(self, encodings: Sequence[Any]) -> None:
        if "_said" not in self.__dict__ and (count := self.cut(encodings)):
            self.__dict__["_said"] = True
            warnings.warn(
                f"{count} of {len(encodings)} texts have more than {self.max_length} tokens and were cut; of later "
                "ones nothing is said.",
                stacklevel=4,
            )

    def _padded(self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]]) -> Inputs:
        """Inputs of B lists of ids."""
        longest = max(map(len, ids))
        arrays = [np.full((len(ids), longest), self.padding, np.int64), np.zeros((len(ids), longest), np.int64)]
        for row, one in enumerate(ids):
            arrays[0][row, : len(one)] = one
            arrays[1][row, : len(one)] = 1
        if self.token_types:
            arrays.append(np.zeros_like(arrays[0]))
            for row, one in enumerate(types):
                arrays[2][row, : len(one)] = one
        return self._inputs(arrays)

    def _inputs(self, arrays: Sequence[npt.NDArray[Any]]) -> Inputs:
        return Inputs(
            {name: np.ascontiguousarray(array, np.int64) for name, array in zip(self._names, arrays, strict=True)},
            self.mask,
        )
