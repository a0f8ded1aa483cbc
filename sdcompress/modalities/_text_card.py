"""The preparation of texts in an artifact's card, as a program without sdcompress."""

from __future__ import annotations

__all__ = ["card_code"]

_CODE = """\
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file({file!r})
tokenizer.no_padding()
tokenizer.enable_truncation({max_length})  # tokens, special ones included


def inputs_of(text):
    \"\"\"The inputs of the network, by name, of {what}.\"\"\"
    encoding = tokenizer.encode({call})
    names = {{
        "input_ids": encoding.ids,
        "attention_mask": encoding.attention_mask,{types}
    }}
    return {{name: np.array([values], np.int64) for name, values in names.items()}}
"""

_TYPES = """
        "token_type_ids": encoding.type_ids,"""


def card_code(file: str, max_length: int, *, pairs: bool, token_types: bool) -> str:
    """Python source with numpy and tokenizers: ``inputs_of(text)``.

    Args:
        file: of the tokenizer.
        max_length: most tokens.
        pairs: whether ``text`` is two texts with a tab between them.
        token_types: whether the network takes ``token_type_ids``.
    """
    return _CODE.format(
        file=file,
        max_length=max_length,
        what="two texts with a tab between them" if pairs else "a text",
        call='*text.split("\\t")' if pairs else "text",
        types=_TYPES if token_types else "",
    )
