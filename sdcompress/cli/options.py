"""Options that several verbs share, and how flags become settings of the recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "DataDir",
    "Device",
    "Json",
    "Out",
    "Overwrite",
    "PrintConfig",
    "RecipeFile",
    "Set",
    "Threads",
    "as_settings",
]

# Typer reads these at run time, where Python 3.10 is the oldest; Optional is what it knows on all versions
RecipeFile = Annotated[
    str | None, typer.Option("--config", "-c", help="recipe: a YAML file or the name of a shipped recipe")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="set a key of the recipe, e.g. train.epochs=10; repeatable"),
]
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON on stdout")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what the output folder holds")]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="print the resolved recipe as YAML and stop")]
Out = Annotated[Path, typer.Option("--out", "-o", help="folder to write")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="where the data lies, if not where the recipe says")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="intra-op threads")]
Device = Annotated[str, typer.Option("--device", help="cpu or cuda")]


def as_settings(given: list[str] | None, **flags: Any) -> list[str]:
    """``--set`` settings, then the flags that were given, which win.

    Args:
        given: what stood behind ``--set``.
        flags: recipe key with ``__`` for the dot -> value, None where the flag was not given.
    """
    # as JSON, which is YAML: a folder named '2024' or 'a #b' stays what was typed
    named = [
        f"{key.replace('__', '.')}={json.dumps(value, default=str)}"
        for key, value in flags.items()
        if value is not None
    ]
    return [*(given or []), *named]
