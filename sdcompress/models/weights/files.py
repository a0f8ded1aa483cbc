"""Read the tensors of a weights file or of a hub folder. No code in a file is run."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sdcompress.errors import SetupError, WeightsError
from sdcompress.storage import sha256_of
from sdcompress.untrusted import Refused, parse_json, read_bytes

__all__ = ["WeightsFile", "read_json", "read_weights", "weights_file", "weights_folder", "weights_sha256"]

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_PUBLISHED = ("model.safetensors", "pytorch_model.bin")  # names of the Hugging Face hub
_INDEX = ".index.json"
_MAX_JSON_BYTES = 2**26
_MAX_DEPTH = 3  # of dictionaries in a file
_FORBIDDEN = re.compile(r"GLOBAL ([\w.]+)")  # how torch names what a pickle wants to import
_PICKLED = (b"PK", b"\x80")  # how the archives and the older files of torch.save begin


@dataclass(frozen=True)
class WeightsFile:
    """The tensors of a file.

    Attributes:
        path: of the file, or of the index of several.
        sha256: of its bytes; of several files, of their digests in order.
        dictionaries: each dictionary of tensors in it, by the keys that lead to it ("": the file itself).
    """

    path: Path
    sha256: str
    dictionaries: Mapping[str, Mapping[str, Tensor]]


def read_weights(source: Path) -> WeightsFile:
    """Read a file (.safetensors, or a pickle of torch with tensors alone), or a folder that holds one.

    Args:
        source: a file, a folder as the Hugging Face hub has it, or the folder of a model in the hub's cache.

    Raises:
        SetupError: if there is no such file or folder.
        WeightsError: if it cannot be read, holds no tensors, or would run code.
    """
    path = weights_file(source)
    if path.name.endswith(_INDEX):
        files = _indexed(path)
        tensors = {name: tensor for file in files for name, tensor in _read(file).get("", {}).items()}
        return WeightsFile(path, weights_sha256(path), {"": tensors})
    dictionaries = _read(path)
    if not dictionaries:
        raise WeightsError(
            f"{path} holds no tensors by name.",
            allowed="a dictionary of tensors (a state_dict), also inside of other dictionaries",
            next_step="save the weights with torch.save(network.state_dict(), 'weights.pt')",
        )
    return WeightsFile(path, weights_sha256(path), dictionaries)


def weights_sha256(source: Path) -> str:
    """Return the SHA-256 of a file of weights; of several files, that of their digests in order.

    Args:
        source: as in ``read_weights``.

    Raises:
        SetupError: if there is no such file or folder.
        WeightsError: if the folder holds none, or its index names some that are not there.
    """
    path = weights_file(source)
    if not path.name.endswith(_INDEX):
        return sha256_of(path)
    return hashlib.sha256("".join(map(sha256_of, _indexed(path))).encode()).hexdigest()


def weights_file(source: Path) -> Path:
    """Return the file that holds the weights, or the index of several files.

    Args:
        source: as in ``read_weights``.

    Raises:
        SetupError: if there is no such file or folder.
        WeightsError: if the folder holds none, or several.
    """
    if not source.exists():
        raise SetupError(
            f"There are no weights at {source}, and nothing is downloaded.",
            allowed=f"the folder of a training, a file that ends in {', '.join(SUFFIXES)}, or a folder with "
            + " or ".join(_PUBLISHED),
            next_step=f"put them at {source.absolute()}, or correct model.weights",
        )
    return _file_in(weights_folder(source)) if source.is_dir() else source


def weights_folder(folder: Path) -> Path:
    """Return the folder itself, or the snapshot in it where it is a model's folder of the hub's cache."""
    main = folder / "refs" / "main"
    snapshots = folder / "snapshots"
    if main.is_file():
        return snapshots / main.read_text(encoding="utf-8").strip()
    found = sorted(snapshots.iterdir()) if snapshots.is_dir() else []
    return found[0] if len(found) == 1 else folder


def read_json(path: Path) -> Mapping[str, Any]:
    """Return the object in a JSON file beside weights; empty where there is no such file.

    Raises:
        WeightsError: if it is no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        fields = parse_json(read_bytes(path, _MAX_JSON_BYTES, follow=True))
    except (Refused, OSError) as error:
        raise WeightsError(f"{path} cannot be read: {error}.", next_step="fetch the file again") from error
    if not isinstance(fields, dict):
        raise WeightsError(f"{path} holds no JSON object.", next_step="fetch the file again")
    return fields


def _file_in(folder: Path) -> Path:
    for name in _PUBLISHED:
        for candidate in (folder / f"{name}{_INDEX}", folder / name):
            if candidate.is_file():
                return candidate
    files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES) if folder.is_dir() else []
    if len(files) == 1:
        return files[0]
    raise WeightsError(
        f"{folder} holds {len(files)} files of weights"
        + (f": {', '.join(p.name for p in files[:5])}." if files else "."),
        allowed=f"{' or '.join(_PUBLISHED)}, or one other file that ends in {', '.join(SUFFIXES)}",
        next_step="name the file in model.weights" if files else f"put {_PUBLISHED[0]} into {folder}",
    )


def _indexed(index: Path) -> list[Path]:
    """Return the files that an index names; they lie beside it."""
    names = read_json(index).get("weight_map")
    files = sorted({str(name) for name in names.values()}) if isinstance(names, dict) else []
    missing = [name for name in files if Path(name).name != name or not (index.parent / name).is_file()]
    if missing or not files:
        raise WeightsError(
            f"{index} names {', '.join(missing[:5]) or 'no files'}, which cannot be read.",
            allowed="files beside the index",
            next_step=f"put {', '.join(missing[:5]) or 'the files of weights'} into {index.parent}",
        )
    return [index.parent / name for name in files]


def _read(path: Path) -> dict[str, dict[str, Tensor]]:
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except (SafetensorError, KeyError, OSError, EOFError, ValueError, RuntimeError) as error:
        text = "it is empty, or ends too early" if isinstance(error, EOFError) else " ".join(str(error).split())
        reason = text[:200] or type(error).__name__
        raise WeightsError(
            f"{path} is no whole file of weights: {reason}",
            allowed="safetensors, or what torch.save writes of a state_dict",
            next_step="fetch the file again, and compare its size with the published one",
        ) from error
    return dict(_dictionaries("", content))


def _unpickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # what it cannot read is an error below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        with path.open("rb") as file:
            if not file.read(2).startswith(_PICKLED):
                raise ValueError("it is something else, such as a page or a pointer of Git LFS in its place") from error
        named = _FORBIDDEN.search(str(error))
        raise WeightsError(
            f"{path} holds Python objects beside tensors"
            + (f" ({named[1]})" if named else "")
            + ": to read it would run code of whoever wrote it. It was not read.",
            allowed="tensors, numbers and text in dictionaries",
            next_step="if you trust it, convert it once where it was made: torch.save(torch.load(FILE, "
            "weights_only=False).state_dict(), 'weights.pt'), or ['state_dict'] in the place of .state_dict()",
        ) from error


def _dictionaries(where: str, content: Any, depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    if not isinstance(content, Mapping) or depth > _MAX_DEPTH:
        return
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if tensors:
        yield where, tensors
    for name, inner in content.items():
        if isinstance(name, str):
            yield from _dictionaries(f"{where}.{name}" if where else name, inner, depth + 1)
