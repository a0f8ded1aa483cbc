"""User code that a recipe names: which modules are allowed, and which a checkpoint may import.

A name ``module:function`` in a recipe is code, because importing the module runs it. Two rules limit that. The module
must be in a folder of the user, not in an installed package: ``torch.hub:load`` could run any code by its arguments.
A checkpoint or artifact may import only functions that the user has trained on this machine, or has trusted once.
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

__all__ = ["check_module", "check_trusted", "module_exists", "names_file", "trust_function", "use_working_directory"]

_INSTALLATIONS = {"site-packages", "dist-packages"}
_trusted: set[str] = set()  # of this process, even if the file is not writable


def use_working_directory() -> None:
    """Append the working directory to the module search path.

    It comes last, so that a file ``numpy.py`` there does not hide a package. Called only before user code is imported.
    """
    directory = str(Path.cwd())
    if directory not in sys.path and "" not in sys.path:
        sys.path.append(directory)


def module_exists(name: str) -> bool:
    """Return whether the top-level package of a ``module:function`` exists, in the working directory too."""
    return _spec(_top(name)) is not None


def names_file(name: str) -> bool:
    """Return whether a name is of a file, `nets/my.py:make`, where a module is needed."""
    return name.partition(":")[0].endswith(".py")


def check_module(name: str) -> Path:
    """Refuse a ``module:function`` that is not in a folder of the user. Nothing is imported.

    A function of an installed package is allowed if the package offers it by an entry point of sdcompress.

    Args:
        name: from the recipe.

    Returns:
        The file or folder of the top-level package.

    Raises:
        UsageError: if there is no such module, it is installed, or a file is named in its place.
    """
    if names_file(name):
        raise _a_file(name)
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
        f"'{name}' names the module '{top}', which is an installed package"
        + (f"; it hides the '{top}' of this folder." if hidden else "."),
        allowed="a module in your own folder, or a function that a package offers by an entry point of sdcompress",
        next_step="give your module another name" if hidden else "write a function of your own that calls it",
    )


def trust_function(name: str, options: Mapping[str, Any]) -> None:
    """Trust a function that the user trains: checkpoints that name it may import it from now on.

    Stored in ``$XDG_STATE_HOME/sdcompress/trusted-functions`` (default ``~/.local/state``) as one SHA-256 in each
    line. If that file is not writable, the trust lasts for this process.

    Args:
        name: ``module:function``.
        options: ``model.options``, the arguments of the function.

    Raises:
        UsageError: see ``check_module``.
    """
    identity = _identity(check_module(name), name, options)
    file = _trust_file()
    if identity in _trusted or identity in _trusted_identities(file):
        _trusted.add(identity)
        return
    _trusted.add(identity)
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="ascii") as lines:
                lines.write(identity + "\n")
        except OSError:
            return


def check_trusted(checkpoint: Path, name: str, options: Mapping[str, Any], *, trust: bool) -> None:
    """Refuse to import the function of a checkpoint unless the user has trained it here, or trusts it.

    Trust holds for the same function of the same file with the same options.

    Args:
        checkpoint: for the message.
        name: ``module:function`` of its recipe.
        options: of its recipe.
        trust: trust it now and from now on.

    Raises:
        UsageError: if it is not trusted; see also ``check_module``.
    """
    location = check_module(name)
    if trust:
        trust_function(name, options)
    identity = _identity(location, name, options)
    if identity in _trusted or identity in _trusted_identities(_trust_file()):
        return
    raise UsageError(
        f"The checkpoint '{checkpoint}' names code: '{name}' of {location}, which would be imported and run. You have "
        "not trained it on this machine, at that location.",
        allowed="models of installed packages, and functions that you have trained at their location",
        next_step="read the module; then add --trust-modules to 'sdcompress evaluate' or 'export' once (in Python: "
        "trust_modules=True)",
    )


def _a_file(name: str) -> UsageError:
    file, _, function = name.partition(":")
    path = Path(file)
    elsewhere = path.is_absolute() or ".." in path.parts
    meant = ".".join((*(() if elsewhere else path.parts[:-1]), path.stem)) + f":{function}"
    return UsageError(
        f"'{name}' names a file.",
        allowed="'package.module:function', importable from the working directory",
        next_step=f"write '{meant}'" + (f", and set PYTHONPATH to {path.parent}" if elsewhere else ""),
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
    """Return the files or folders of a module; empty if it is built in."""
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


def _trust_file() -> Path | None:
    state = os.environ.get("XDG_STATE_HOME")
    try:
        return (Path(state) if state else Path.home() / ".local" / "state") / "sdcompress" / "trusted-functions"
    except RuntimeError:  # no home directory
        return None


def _trusted_identities(file: Path | None) -> set[str]:
    try:
        return set(file.read_text(encoding="ascii").split()) if file is not None and file.is_file() else set()
    except (OSError, ValueError):
        return set()
