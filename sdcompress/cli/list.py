"""list: list the entries of the registry."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from sdcompress.cli.console import say, write_json
from sdcompress.cli.options import Json

__all__ = ["list_"]

Kind = Literal[
    "methods",
    "models",
    "heads",
    "data",
    "tasks",
    "modalities",
    "policies",
    "precisions",
    "backends",
    "targets",
    "recipes",
    "keys",
]


def list_(
    kind: Annotated[Kind | None, typer.Argument(help="what to list; default: everything")] = None, json: Json = False
) -> None:
    """List methods, models, heads, data sets, tasks, modalities, policies, precisions, backends, targets, recipes.

    And the keys of a recipe, which --set sets.

    Example: sdcompress list methods
    """
    from sdcompress.verbs.list_entries import list_entries

    chosen = list_entries(kind)
    if json:
        write_json(chosen)
        return
    width = max(len(entry) for entries in chosen.values() for entry in entries)
    for name, entries in chosen.items():
        say(f"{name}:")
        for entry, text in entries.items():
            say(f"  {entry:<{width}}  {text}")
