"""Code of the user's own that a recipe names: where it may lie, and whether a checkpoint may have it imported.

A name ``module:function`` in a recipe is code: importing the module runs it. Two rules bound that. The module lies in a
folder of the user's own, never in an installation: ``torch.hub:load`` would run whatever its arguments say. And a
checkpoint or artifact may have imported only what its user has trained before, by a recipe, on this machine, or has
trusted once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import site
import sys
import sysconfig
from collections.abc import Mapping
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from sdcompress.errors import UsageError

__all__ = ["check_module", "check_trusted", "is_there", "remember", "use_working_directory"]

_INSTALLATIONS = {"site-packages", "dist-packages"}
_trained: set[str] = set()  # in this process, also where nothing can be written


def use_working_directory() -> None:
    """Look for modules in the working directory too, after everything that is installed.

    Last, so that a file called ``numpy.py`` there is no package of ours. Called only where code of the user's own is
    about to be imported.
    """
    directory = str(Path.cwd())
    if directory not in sys.path and "" not in sys.path:
        sys.path.append(directory)


def is_there(name: str) -> bool:
    """Whether the outermost package of a ``module:function`` can be found, in the working directory too."""
    return _spec(_top(name)) is not None


def check_module(name: str) -> Path:
    """Refuse a ``module:function`` that does not lie in a folder of the user's own. Nothing is imported.

    An installed package may be named where one of its entry points of ours offers exactly this function.

    Args:
        name: of the recipe.

    Returns:
        The file or folder of the module's outermost package.

    Raises:
        UsageError: if there is no such module, or it belongs to an installation.
    """
    top = _top(name)
    spec = _spec(top)
    if spec is None:
        raise UsageError(
            f"The module '{top}' of '{name}' cannot be found.",
            allowed="'package.module:function', importable from the working directory",
            next_step=f"check the spelling, or set PYTHONPATH to the folder that holds your module '{top}'",
        )
    locations = _locations(spec)
    if _offered(name) or (locations and top != "sdcompress" and not any(map(_installed, locations))):
        return locations[0] if locations else Path(top)
    hidden = PathFinder.find_spec(top, [str(Path.cwd())]) is not None
    raise UsageError(
        f"'{name}' names the module '{top}', which is installed and not yours"
        + (f"; it hides the '{top}' of this folder." if hidden else "."),
        allowed="a module in a folder of your own, or what an installed package offers by an entry point of sdcompress",
        next_step="give your module another name" if hidden else "write a function of your own that calls it",
    )


def remember(name: str, options: Mapping[str, Any]) -> None:
    """Note that a recipe of the user's own trains this function: checkpoints that name it may import it from now on.

    Kept for later commands in ``$XDG_STATE_HOME/sdcompress/own-modules`` (``~/.local/state``), one SHA-256 a line;
    where that cannot be written, for this process alone.

    Args:
        name: ``module:function``.
        options: ``model.options``, with which the function is called.

    Raises:
        UsageError: see ``check_module``.
    """
    identity = _identity(check_module(name), name, options)
    file = _file()
    if identity in _trained or identity in _trusted_identities(file):
        _trained.add(identity)
        return
    _trained.add(identity)
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="ascii") as lines:
                lines.write(identity + "\n")
        except OSError:
            return


def check_trusted(checkpoint: Path, name: str, options: Mapping[str, Any], *, trust: bool) -> None:
    """Refuse to import what a checkpoint names, unless its user has trained just that here, or says that it is right.

    What counts is the code that would run: the same function of the same file, with the same options.

    Args:
        checkpoint: for the message.
        name: ``module:function`` of its recipe.
        options: of its recipe.
        trust: the user's word, which is remembered.

    Raises:
        UsageError: if it is not trusted; also see ``check_module``.
    """
    location = check_module(name)
    if trust:
        remember(name, options)
    identity = _identity(location, name, options)
    if identity in _trained or identity in _trusted_identities(_file()):
        return
    raise UsageError(
        f"The checkpoint '{checkpoint}' names code: '{name}' of {location}, which would be imported and run. You have "
        "not trained that from there on this machine.",
        allowed="networks of installed families; of modules, what you have trained yourself, at the place where it lay",
        next_step="read the module; then add --trust-modules to 'sdcompress evaluate' or 'export' once (in Python: "
        "trust_modules=True)",
    )


def _top(name: str) -> str:
    return name.partition(":")[0].partition(".")[0]


def _offered(name: str) -> bool:
    points = entry_points()
    ours = [group for group in points.groups if group.startswith("sdcompress.")]
    return any(point.value == name for group in ours for point in points.select(group=group))


def _spec(top: str) -> ModuleSpec | None:
    try:
        spec = importlib.util.find_spec(top) if top else None
    except ValueError:  # __main__ has no spec
        return None
    return spec or (PathFinder.find_spec(top, [str(Path.cwd())]) if top else None)


def _locations(spec: ModuleSpec) -> list[Path]:
    """Where a module lies; empty if it is built in."""
    if spec.submodule_search_locations:
        return [Path(location).resolve() for location in spec.submodule_search_locations]
    return [Path(spec.origin).resolve()] if spec.has_location and spec.origin else []


def _installed(location: Path) -> bool:
    folders = [sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders.append(site.getusersitepackages())
    inside = any(location.is_relative_to(Path(folder).resolve()) for folder in folders if folder)
    return inside or bool(_INSTALLATIONS & set(location.parts))


def _identity(location: Path, name: str, options: Mapping[str, Any]) -> str:
    text = json.dumps([str(location), name, options], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _file() -> Path | None:
    state = os.environ.get("XDG_STATE_HOME")
    try:
        return (Path(state) if state else Path.home() / ".local" / "state") / "sdcompress" / "own-modules"
    except RuntimeError:  # a user without a home
        return None


def _trusted_identities(file: Path | None) -> set[str]:
    try:
        return set(file.read_text(encoding="ascii").split()) if file is not None and file.is_file() else set()
    except (OSError, ValueError):
        return set()
