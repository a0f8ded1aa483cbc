"""list and doctor."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from sdcompress.cli.options import Json
from sdcompress.cli.screen import say, write_json

__all__ = ["VERBS"]

Kind = Literal[
    "methods", "models", "heads", "data", "tasks", "modalities", "policies", "precisions", "backends", "recipes"
]
_ROOMS = {
    "methods": "sdcompress.methods",
    "models": "sdcompress.models.backbones",
    "heads": "sdcompress.models.heads",
    "data": "sdcompress.data.sources",
    "tasks": "sdcompress.tasks",
    "modalities": "sdcompress.modalities",
    "policies": "sdcompress.policies",
    "precisions": "sdcompress.quantizing.precisions",
    "backends": "sdcompress.runtime.backends",
}


def list_(
    kind: Annotated[Kind | None, typer.Argument(help="what to list; default: everything")] = None, json: Json = False
) -> None:
    """List methods, models, data sets, tasks, modalities, exit policies, precisions, backends and shipped recipes.

    Example: sdcompress list methods
    """
    from sdcompress import recipes, registry

    found: dict[str, dict[str, str]] = {
        name: {entry: registry.describe(room, entry) for entry in registry.names(room)} for name, room in _ROOMS.items()
    }
    found["recipes"] = {name: recipes.describe(name) for name in recipes.names()}
    chosen = {kind: found[kind]} if kind else found
    if json:
        write_json(chosen)
        return
    width = max(len(entry) for entries in chosen.values() for entry in entries)
    for name, entries in chosen.items():
        say(f"{name}:")
        for entry, text in entries.items():
            say(f"  {entry:<{width}}  {text}")


def doctor(json: Json = False) -> None:
    """Show what is installed, what each missing piece would need, and what would spoil a measurement here.

    Example: sdcompress doctor --json
    """
    from sdcompress.cli.tables import show_diagnosis
    from sdcompress.doctor import diagnose

    found = diagnose()
    if json:
        write_json(found.model_dump(mode="json"))
    else:
        show_diagnosis(found)


VERBS = (list_, doctor)
