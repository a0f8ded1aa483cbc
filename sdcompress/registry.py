"""Registry of methods, models, data sets and others: each module of a package is an entry.

The package is called a room, such as ``sdcompress.methods``. Every module without a leading underscore is an entry, and
its ``__all__`` holds one name, the object. Other packages add entries through the entry-point group of the same name
(``[project.entry-points."sdcompress.methods"]``, value ``package.module:Name``). Listing names imports nothing, so that
``sdcompress list`` works without torch.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from hashlib import sha256
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from sdcompress.errors import UnknownNameError, UsageError, requires_extra
from sdcompress.user_code import check_module, use_working_directory

__all__ = [
    "ArgumentsError",
    "call_user_function",
    "describe",
    "load",
    "load_file",
    "load_recorded",
    "members",
    "names",
    "presets",
]


class ArgumentsError(TypeError):
    """A user function does not take the arguments that it is called with."""


def names(room: str) -> list[str]:
    """Return the names of the entries of a room, sorted.

    Args:
        room: dotted name of the package, e.g. ``sdcompress.methods``.
    """
    return sorted({*_builtin_modules(room), *_plugins(room)})


def describe(room: str, name: str) -> str:
    """Return the first docstring line of an entry without importing it; for an entry point, its target."""
    builtin = _builtin_modules(room)
    if name in builtin:
        docstring = ast.get_docstring(ast.parse(builtin[name].read_text(encoding="utf-8"))) or ""
        return docstring.partition("\n")[0]
    plugins = _plugins(room)
    if name in plugins:
        return f"from {plugins[name].value}"
    raise UnknownNameError(_plural(room), name, names(room))


def members(room: str, name: str) -> tuple[str, ...]:
    """Return the literal ``NAMES`` of the module of a built-in entry, without importing it."""
    builtin = _builtin_modules(room)
    tree = ast.parse(builtin[name].read_text(encoding="utf-8")) if name in builtin else ast.parse("")
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "NAMES" for t in node.targets):
            return tuple(ast.literal_eval(node.value))
    return ()


def presets(room: str, name: str) -> dict[str, dict[str, float]]:
    """Return the literal ``presets`` of the class of a built-in entry, without importing it."""
    builtin = _builtin_modules(room)
    tree = ast.parse(builtin[name].read_text(encoding="utf-8")) if name in builtin else ast.parse("")
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "presets" and node.value is not None:
            return dict(ast.literal_eval(node.value))
    return {}


def load(room: str, name: str, *, extra: str) -> Any:
    """Import an entry and return its object.

    Args:
        room: dotted name of the package.
        name: of the entry.
        extra: the extra of sdcompress that installs the imports of the entry.

    Raises:
        UnknownNameError: if the room has no such entry.
        MissingExtraError: if a package is missing that the entry imports.
    """
    plugins = _plugins(room)
    with requires_extra(extra):
        if name in _builtin_modules(room):
            module = importlib.import_module(f"{room}.{name}")
            (public,) = module.__all__
            return getattr(module, public)
        if name in plugins:
            return plugins[name].load()
    raise UnknownNameError(_plural(room), name, names(room))


def load_recorded(room: str, name: str) -> Any:
    """Import an entry that artifacts record by the name of its module: a task or a modality.

    Args:
        room: dotted name of the package.
        name: of the entry.

    Raises:
        UnknownNameError: if the room has no such entry.
        UsageError: if an entry point has another name than its module.
        MissingExtraError: if a package is missing that the entry imports.
    """
    entry = load(room, name, extra="all")
    module = entry.__module__.rpartition(".")[2]
    if module != name:
        raise UsageError(
            f"The entry point '{name}' of {room} leads to the module '{entry.__module__}'.",
            allowed=f"'{module}': artifacts record the name of the module",
            next_step="give the entry point, or the module, the name of the other",
        )
    return entry


def load_file(path: str) -> Any:
    """Import a Python file of the user and return the one object in its ``__all__``.

    Args:
        path: the file; relative to the working directory.

    Raises:
        UsageError: if there is no such file, it cannot be imported, or its ``__all__`` does not hold one name.
    """
    file = Path(path)
    if not file.is_file() or file.suffix != ".py":
        raise UsageError(
            f"There is no Python file '{path}'.",
            allowed="a file that ends in .py; relative to the working directory",
            next_step="correct the path, or copy the file there",
        )
    spec = importlib.util.spec_from_file_location(
        f"users_{sha256(str(file.resolve()).encode()).hexdigest()[:12]}", file
    )
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look up their module
    use_working_directory()  # it may import modules beside it
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError) as error:
        raise UsageError(f"The file '{path}' cannot be imported: {error}", next_step="correct the file") from error
    public = [name for name in getattr(module, "__all__", []) if hasattr(module, name)]
    if len(public) != 1:
        raise UsageError(
            f"The __all__ of '{path}' names {len(public)} objects of the file.",
            allowed="one object",
            next_step=f"write __all__ = ['YourName'] into {path}",
        )
    return getattr(module, public[0])


def call_user_function(path: str, /, **arguments: Any) -> Any:
    """Call a user function by its name ``package.module:function``.

    Args:
        path: the name; the module is importable from the working directory or another folder of the user.
        arguments: keyword arguments for the function.

    Raises:
        UsageError: if the module or the function does not exist, the module is installed or cannot be imported.
        ArgumentsError: if the function does not take the arguments; what it raises itself passes through.
    """
    check_module(path)
    use_working_directory()
    module_name, _, function = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (SyntaxError, ImportError) as error:
        name = error.name if isinstance(error, ModuleNotFoundError) else None
        if name is not None and f"{module_name}.".startswith(f"{name}."):
            raise UsageError(
                f"The module '{module_name}' of '{path}' cannot be imported.",
                allowed="'package.module:function', importable from the working directory",
                next_step="check the spelling, or set PYTHONPATH to the folder that holds the module",
            ) from error
        raise UsageError(
            f"The module '{module_name}' of '{path}' cannot be imported: {error}",
            allowed="a module without errors, whose own imports are installed",
            next_step="correct the module, or install what it imports",
        ) from error
    if not callable(getattr(module, function, None)):
        raise UnknownNameError(
            f"functions of {module_name}", function, [n for n in vars(module) if not n.startswith("_")]
        )
    called = getattr(module, function)
    try:
        inspect.signature(called).bind(**arguments)
    except TypeError as error:
        raise ArgumentsError(str(error)) from error
    except ValueError:  # it has no signature, as some that are written in C
        pass
    return called(**arguments)


def _builtin_modules(room: str) -> dict[str, Path]:
    spec = importlib.util.find_spec(room)
    assert spec is not None, room
    assert spec.submodule_search_locations is not None, room
    folder = list(spec.submodule_search_locations)
    modules = (module for module in pkgutil.iter_modules(folder) if not module.name.startswith("_"))
    return {module.name: _source_file(folder, module.name, module.ispkg) for module in modules}


def _source_file(folders: list[str], name: str, is_package: bool) -> Path:
    relative = Path(name) / "__init__.py" if is_package else Path(f"{name}.py")
    return next(path for folder in folders if (path := Path(folder) / relative).exists())


def _plugins(room: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=room)}


def _plural(room: str) -> str:
    return room.rpartition(".")[2].replace("_", " ")
