"""The timing cache: the builder's measurements, saved between builds in one file for each TensorRT, GPU and driver."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sdcompress.artifact.output_path import check_outside
from sdcompress.errors import SdcompressError, StorageError, UsageError
from sdcompress.storage import storage_errors
from sdcompress.tensorrt.nvidia.gpu_query import Gpu
from sdcompress.tensorrt.nvidia.log import Log

__all__ = ["Timings", "cache_file", "engines_folder", "open_timings", "read_cache", "saved_log", "write_cache"]


@dataclass
class Timings:
    """The builder's measurements and their file.

    Attributes:
        file: where they are saved; None: not saved.
        data: of earlier builds; empty if there were none.
        log: gets a note if they cannot be saved. That is no error: they only save time.
    """

    file: Path | None
    data: bytes
    log: Log

    def keep(self, data: bytes) -> None:
        """Save the measurements of a build."""
        if self.file is None:
            return
        try:
            write_cache(self.file, data)
        except (StorageError, OSError) as error:
            self.log.note(f"the timings are not saved: {error}")
            self.file = None


def open_timings(named: Path | None, *, tensorrt: str, gpu: Gpu, log: Log) -> Timings:
    """Read the measurements of earlier builds, and check that the file can be written, before the build starts.

    Args:
        named: the user's file; None for the default one, without which a build goes on.
        tensorrt: version.
        gpu: that is built on.
        log: gets a note if the default file cannot be used.

    Raises:
        StorageError: if the named file cannot be written.
        UsageError: if the named one cannot be read, is a folder, or lies inside an artifact or a training run.
    """
    if named is not None:
        check_outside(named)
    try:
        file = named or cache_file(tensorrt, gpu)
        data = read_cache(file)
        write_cache(file, data)
    except (OSError, RuntimeError, StorageError) as error:  # RuntimeError: a user without a home
        if named is None:
            log.note(f"built without a timing cache: {error}")
            return Timings(None, b"", log)
        if isinstance(error, StorageError):
            raise
        raise UsageError(
            f"The timing cache '{named}' cannot be used: {error}.",
            allowed="a file that this user may read and write",
            next_step="name another --timing-cache, or none",
        ) from error
    return Timings(file, data, log)


@contextmanager
def saved_log(timings: Timings) -> Iterator[None]:
    """Save the log of a failed build beside the timings, and name it in the error."""
    try:
        yield
    except SdcompressError as error:
        with suppress(OSError):  # must not hide the build's error
            path = _write_log("\n".join(timings.log.all_lines) + "\n", timings.file)
            step = f"{error.next_step}; " if error.next_step else ""
            # the same error with a longer next step
            SdcompressError.__init__(
                error, error.problem, allowed=error.allowed, next_step=f"{step}the build log is '{path}'"
            )
        raise


def _write_log(text: str, cache: Path | None) -> Path:
    if cache is None:
        number, name = tempfile.mkstemp(prefix="sdcompress-", suffix=".log")
        os.close(number)
        path = Path(name)
    else:
        path = cache.with_name(f"{cache.name}.log")
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def cache_file(tensorrt: str, gpu: Gpu) -> Path:
    """Return the default file: ``sdcompress/tensorrt/...`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    A timing depends on the builder, the GPU and the driver; TensorRT itself checks the first two.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "sdcompress" / "tensorrt" / f"{_slug(gpu.name)}-trt{tensorrt}-{_slug(gpu.driver or gpu.cuda)}.timing"


def engines_folder(tensorrt: str, gpu: Gpu) -> str:
    """Return the folder of a machine's engines inside an artifact, e.g. ``engines/nvidia-l4-trt10.9.0.34``."""
    return f"engines/{_slug(gpu.name)}-trt{tensorrt}"


def read_cache(file: Path) -> bytes:
    """Return the measurements of an earlier build; empty if there is none."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def write_cache(file: Path, data: bytes) -> None:
    """Save measurements atomically; of two builds at once the later one stays.

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
