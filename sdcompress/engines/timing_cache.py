"""The builder's measurements, kept between builds: one file for each TensorRT, GPU and driver."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from sdcompress.nvidia.probe import Gpu
from sdcompress.storage import storage_errors

__all__ = ["cache_file", "engines_folder", "read_cache", "write_cache"]


def cache_file(tensorrt: str, gpu: Gpu) -> Path:
    """Where measurements are kept if no file is named: ``$XDG_CACHE_HOME`` or ``~/.cache``, below sdcompress.

    A timing depends on the builder, the GPU and the driver; TensorRT checks the first two itself.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "sdcompress" / "tensorrt" / f"{_slug(gpu.name)}-trt{tensorrt}-{_slug(gpu.driver or gpu.cuda)}.timing"


def engines_folder(tensorrt: str, gpu: Gpu) -> str:
    """The folder of a machine's engines inside an artifact, e.g. ``engines/nvidia-l4-trt10.9.0.34``."""
    return f"engines/{_slug(gpu.name)}-trt{tensorrt}"


def read_cache(file: Path) -> bytes:
    """What an earlier build has measured; empty where there is none."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def write_cache(file: Path, data: bytes) -> None:
    """Keep measurements, whole or not at all; of two builds at once the later one stays.

    Raises:
        StorageError: if the file cannot be written.
    """
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    with storage_errors(file):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "unknown"
