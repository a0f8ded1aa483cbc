"""The parameters that a recipe sets of a modality: their names and values, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from sdcompress.errors import RecipeError, brief, nearest
from sdcompress.schema.base import explain

__all__ = ["check_names", "checked"]

Checked = TypeVar("Checked")


def check_names(given: Iterable[str], known: Iterable[str], section: str, modality: str, *general: str) -> None:
    """Refuse parameters that a section of the recipe does not have for a modality.

    Raises:
        RecipeError: names the first, and all that are allowed.
    """
    allowed = (*general, *known)
    for name in given:
        if name not in allowed:
            guess = nearest(name, allowed)
            raise RecipeError(
                f"{section}.{brief(name)} is set, and the modality '{modality}' has no such parameter."
                + (f" Did you mean '{guess}'?" if guess else ""),
                allowed=", ".join(allowed) or "none",
                next_step=f"leave {section}.{brief(name)} out, or correct it; see 'sdcompress list modalities'",
            )


def checked(kind: TypeAdapter[Checked], parameters: Mapping[str, Any], section: str) -> Checked:
    """Return parameters of a section of the recipe as their type.

    Raises:
        RecipeError: if one is missing, or a value cannot be used.
    """
    try:
        return kind.validate_python(dict(parameters))
    except ValidationError as error:
        raise explain(error, object, f"the recipe's {section}", _refused) from error


def _refused(problem: str, *, allowed: str, next_step: str) -> RecipeError:  # noqa: ARG001 - explain's is for closed sections
    return RecipeError(problem, allowed=allowed, next_step="correct it; see 'sdcompress list modalities'")
