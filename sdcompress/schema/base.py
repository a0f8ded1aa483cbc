"""What all stored types share: frozen, unknown keys are errors, user-readable validation errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sdcompress.errors import SdcompressError, brief, nearest

__all__ = ["Fraction", "Frozen", "Interval", "Sha256", "explain"]

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Sha256 = Annotated[str, Field(pattern=re.compile(r"^[0-9a-f]{64}$").pattern)]


_MOST = 8  # problems that one message names


class Frozen(BaseModel):
    """Base of every stored type: immutable, every number finite, and an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, protected_namespaces=(), allow_inf_nan=False
    )


class Interval(Frozen):
    """A figure and the ends of its interval."""

    value: float
    low: float
    high: float


def explain(
    error: ValidationError, root: type[Any], what: str, make: Callable[..., SdcompressError]
) -> SdcompressError:
    """Turn pydantic's list of errors into one of ours, with the nearest allowed key for each unknown one.

    Args:
        error: what pydantic raised.
        root: the type that was validated.
        what: what the user gave, e.g. "the recipe runs/a.yaml".
        make: the error class to build.
    """
    problems, allowed = [], []
    for detail in islice(error.errors(include_url=False, include_context=False), _MOST):
        path = [str(part) for part in detail["loc"]]
        where = brief(".".join(path)) or "(top level)"
        if detail["type"] == "extra_forbidden":
            fields = _fields_at(root, path[:-1])
            guess = nearest(path[-1], fields)
            problems.append(f"unknown key '{where}'" + (f" (did you mean '{guess}'?)" if guess else ""))
            allowed.append(f"{'.'.join(path[:-1]) or 'top level'}: {', '.join(fields)}")
        else:
            value = detail.get("input")
            shown = ascii(brief(value)) if isinstance(value, str) else brief(value)
            problems.append(f"'{where}' is {shown}: {detail['msg'].removeprefix('Value error, ')}")
    if (more := error.error_count() - len(problems)) > 0:
        problems.append(f"and {more} more")
    return make(
        f"There is a problem in {what}: " + "; ".join(problems) + ".",
        allowed="; ".join(dict.fromkeys(allowed)),
        next_step="correct the key; 'sdcompress list keys' shows every key, its meaning and its default",
    )


def _fields_at(model: Any, path: list[str]) -> list[str]:
    for part in path:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            continue  # an index of a list, or the tag of a union
        model = _model_in(field.annotation)
    return sorted(getattr(model, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if (model := _model_in(inner)) is not None:
            return model
    return None
