"""The builder's measurements, kept between builds: one file for each TensorRT, GPU and driver."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sdcompress.artifact.outside import check_outside
from sdcompress.errors import SdcompressError, StorageError, UsageError
from sdcompress.storage import storage_errors
from sdcompress.tensorrt.nvidia.log import Log
from sdcompress.tensorrt.nvidia.probe import Gpu

__all__ = ["Timings", "cache_file", "engines_folder", "log_kept", "open_timings", "read_cache", "write_cache"]


@dataclass
class Timings:
    """The builder's measurements and the file that they are kept in.

    Attributes:
        file: None: nowhere.
        data: of earlier builds; empty if there were none.
        log: told where they cannot be kept: they only save time, so no finished plan is lost for them.
    """

    file: Path | None
    data: bytes
    log: Log

    def keep(self, data: bytes) -> None:
        """Keep what a build has measured."""
        if self.file is None:
            return
        try:
            write_cache(self.file, data)
        except (StorageError, OSError) as error:
            self.log.note(f"the timings are not kept: {error}")
            self.file = None


def open_timings(named: Path | None, *, tensorrt: str, gpu: Gpu, log: Log) -> Timings:
    """Read what earlier builds have measured, and try to write, which tells now what minutes of building would end in.

    Args:
        named: the file that the user wants; None for the usual one, without which a build goes on.
        tensorrt: version.
        gpu: that is built on.
        log: told where the usual one cannot be used.

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
def log_kept(timings: Timings) -> Iterator[None]:
    """Where a build fails, its log is kept beside the timings and the error says where: the artifact is not written."""
    try:
        yield
    except SdcompressError as error:
        with suppress(OSError):  # what failed before must not be hidden
            place = _written("\n".join(timings.log.everything) + "\n", timings.file)
            step = f"{error.next_step}; " if error.next_step else ""
            # the same error, said anew
            SdcompressError.__init__(
                error, error.found, allowed=error.allowed, next_step=f"{step}the build log is '{place}'"
            )
        raise


def _written(text: str, beside: Path | None) -> Path:
    if beside is None:
        number, name = tempfile.mkstemp(prefix="sdcompress-", suffix=".log")
        os.close(number)
        place = Path(name)
    else:
        place = beside.with_name(f"{beside.name}.log")
    place.write_text(text, encoding="utf-8", newline="\n")
    return place


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
