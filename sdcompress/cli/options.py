"""Define the options that several verbs share, their shell completion, and the values of flags. Loads nothing heavy."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import typer

from sdcompress.cli.console import note
from sdcompress.errors import UsageError

__all__ = [
    "AllowUncertified",
    "AnyBackend",
    "Backend",
    "DataDir",
    "Device",
    "FreeThreads",
    "Json",
    "Out",
    "Overwrite",
    "PrintConfig",
    "RecipeFile",
    "Set",
    "Threads",
    "TrustModules",
    "as_settings",
    "check_one",
    "complete_from",
    "complete_method",
    "complete_model",
    "complete_recipe",
    "in_data_dir",
    "milliseconds",
    "share",
    "threads_or_default",
]

Completion = tuple[str, str]  # a word and its description


def complete_from(room: str) -> Callable[[str], list[Completion]]:
    """Return a completion of the entries of a room, such as ``sdcompress.policies``."""

    def complete(incomplete: str) -> list[Completion]:
        return [entry for entry in _entries(room) if entry[0].startswith(incomplete)]

    return complete


def complete_method(incomplete: str) -> list[Completion]:
    """Return methods; behind a plus the second one of two."""
    first, plus, second = incomplete.rpartition("+")
    completions = complete_from("sdcompress.methods")(second)
    return [(f"{first}{plus}{name}", text) for name, text in completions]


def complete_model(incomplete: str) -> list[Completion]:
    """Return families of backbones with a colon; behind it the networks of that family."""
    from sdcompress import registry

    room = "sdcompress.models.backbones"
    family, colon, name = incomplete.partition(":")
    if not colon:
        return [(f"{known}:", text) for known, text in complete_from(room)(family)]
    networks = registry.members(room, family) if family in registry.names(room) else ()
    return [(f"{family}:{network}", "") for network in networks if network.startswith(name)]


def complete_recipe(incomplete: str) -> list[Completion]:
    """Return shipped recipes; if none fits, the shell offers files."""
    from sdcompress import recipes

    return [(name, recipes.describe(name)) for name in recipes.names() if name.startswith(incomplete)]


def _entries(room: str) -> Iterator[Completion]:
    from sdcompress import registry

    return ((name, registry.describe(room, name)) for name in registry.names(room))


# Typer reads these at run time, where Python 3.10 is the oldest; Optional is what it knows on all versions
RecipeFile = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        help="recipe: a YAML file or the name of a shipped recipe",
        autocompletion=complete_recipe,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="set a key of the recipe, e.g. train.epochs=10; repeatable"),
]
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON on stdout")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace the contents of the output folder")]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="print the resolved recipe as YAML and stop")]
Out = Annotated[Path, typer.Option("--out", "-o", help="folder to write")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="folder of the data; default: that of the recipe")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="intra-op threads; default: 1, the most repeatable")
]
FreeThreads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU threads; default: those that the quota allows and other work leaves"),
]
AllowUncertified = Annotated[
    bool, typer.Option("--allow-uncertified", help="also run an execution target that the certificate does not cover")
]
TrustModules = Annotated[
    bool,
    typer.Option("--trust-modules", help="run the code of a module that a checkpoint names"),
]
Backend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        help="one of 'sdcompress list backends', or auto: the fastest by 'bench --record'; default: onnxruntime",
        autocompletion=complete_from("sdcompress.runtime.backends"),
    ),
]
AnyBackend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        help="as of 'bench', or auto; default: onnxruntime for an artifact, torch for a checkpoint",
        autocompletion=complete_from("sdcompress.runtime.backends"),
    ),
]
Device = Annotated[str | None, typer.Option("--device", help="cpu or cuda; default: cpu")]


def as_settings(requested: list[str] | None, **flags: Any) -> list[str | tuple[str, Any]]:
    """Return the settings of ``--set`` and of other flags as settings of the recipe.

    Args:
        requested: values of ``--set``.
        flags: recipe key with ``__`` for the dot -> value; None if the flag was not given.
    """
    named = [
        (key.replace("__", "."), str(value) if isinstance(value, Path) else value)
        for key, value in flags.items()
        if value is not None
    ]
    return [*(requested or []), *named]


def check_one(first: str, second: str, *, both: bool, allowed: str = "one of them") -> None:
    """Refuse two flags of which only one can have an effect.

    Args:
        first: a flag, such as ``--json``.
        second: the other.
        both: whether both were given.
        allowed: in the error.

    Raises:
        UsageError: if they were.
    """
    if both:
        raise UsageError(f"Both {first} and {second} are given.", allowed=allowed, next_step="leave one of them out")


def in_data_dir(data_dir: Path | None) -> str:
    """Return the end of a command that reads the data of this one; empty: they lie where the recipe says."""
    return "" if data_dir is None else f" --data-dir {shlex.quote(str(data_dir))}"


def threads_or_default(requested: int | None) -> int:
    """Return the requested number of threads, or a default, which is printed on stderr."""
    if requested is not None:
        return requested
    from sdcompress.machine import default_threads

    count, reason = default_threads()
    note(f"{count} thread(s): {reason}; --threads sets another number")
    return count


def milliseconds(text: str, flag: str) -> float:
    """Return '200ms' or '10s' in milliseconds; a bare number is refused, because tools disagree on its unit."""
    for unit, factor in (("ms", 1.0), ("s", 1000.0)):
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdecimal() and number.isascii() and float(number) > 0:
            return float(number) * factor
    raise UsageError(
        f"{flag} is '{text}'.",
        allowed="a number above 0 with its unit, e.g. 200ms or 10s",
        next_step=f"write e.g. {flag} 200ms",
    )


def share(text: str, flag: str, example: str = "1%") -> float:
    """Return '1%' or '0.01' as 0.01; a bare 1 could mean either, so it is refused."""
    number, percent = text.removesuffix("%"), text.endswith("%")
    try:
        fraction = Decimal(number) / (100 if percent else 1)  # in binary 0.7 / 100 is a little less than 0.007
    except InvalidOperation:
        fraction = Decimal(-1)
    # NaN first: Decimal does not compare it
    if not fraction.is_finite() or not 0 <= fraction <= 1 or (fraction == 1 and not percent):
        raise UsageError(
            f"{flag} is '{text}'.",
            allowed="0% to 100%, or 0 to below 1",
            next_step=f"e.g. {flag} {example}",
        )
    return float(fraction)
