"""How a person enters a raw example: a file, a text, or named fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Form", "FormField"]


@dataclass(frozen=True)
class FormField:
    """A field of a form.

    Attributes:
        name: shown beside it; of a table its column.
        kind: ``text``, ``number``, or ``choice`` of one of the choices.
        choices: of a ``choice``.
        optional: whether it may stay empty.
    """

    name: str
    kind: Literal["text", "number", "choice"] = "text"
    choices: tuple[str, ...] = ()
    optional: bool = False


@dataclass(frozen=True)
class Form:
    """What a person enters, and how that becomes the bytes that ``Modality.raw_from_bytes`` takes.

    Attributes:
        encoding: ``file``: the bytes of a chosen file. ``text``: the one field in UTF-8. ``list`` and ``object``: all
            fields as JSON, in their order or by their names.
        fields: to fill in; none of a ``file``.
        suffixes: endings of files that may be chosen.
    """

    encoding: Literal["file", "text", "list", "object"]
    fields: tuple[FormField, ...] = ()
    suffixes: tuple[str, ...] = ()
