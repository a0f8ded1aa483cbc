"""What a recipe may set of texts: how they are tokenised."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sdcompress.modalities._tokenizer import FILE
from sdcompress.schema.base import Frozen

__all__ = ["LONGEST", "TextSettings"]

LONGEST = 2**16  # tokens


class TextSettings(Frozen):
    """The parameters of ``modality`` for texts; the columns are the data set's."""

    tokenizer: str | None = Field(None, description=f"{FILE} of the encoder, or the folder that holds it")
    max_length: Annotated[int, Field(ge=2, le=LONGEST)] = Field(
        128, description="most tokens of a text, special ones included; what is longer is cut"
    )
    token_types: bool = Field(
        False, description="whether the encoder takes token_type_ids, as BERT does for pairs of texts"
    )
    columns: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)] = ("text",)
