"""Choose the backend that an artifact runs fastest on, by the times that were measured on this machine."""

from __future__ import annotations

import logging

from sdcompress import registry
from sdcompress.artifact.read import Artifact
from sdcompress.errors import BrokenPackageError, MissingExtraError, UnknownNameError
from sdcompress.machine import gpu, processor
from sdcompress.printable import printable
from sdcompress.schema.manifest import BackendTimes

__all__ = ["ROOM", "USUAL", "choose_backend"]

ROOM = "sdcompress.runtime.backends"
USUAL = "onnxruntime"  # the backend of an artifact that no other was chosen for

_log = logging.getLogger(__name__)
_logged: set[tuple[str, str]] = set()


def choose_backend(artifact: Artifact, *, threads: int | None, device: str, allow_uncertified: bool = False) -> str:
    """Return the fastest backend by the times in the manifest, among those installed and covered by the certificate.

    Without times for this machine, device and number of threads it is the one that the certificate is for, or else
    onnxruntime. The log says so, once for each artifact. It also names a faster one that cannot be imported.

    Args:
        artifact: opened.
        threads: of one call; None: those of the times that were recorded last.
        device: "cpu" or "cuda".
        allow_uncertified: also choose one that the certificate does not cover.
    """
    certificate = None if allow_uncertified else artifact.manifest.certificate
    times = _times_here(artifact.manifest.backend_times, threads, device)
    measured = sorted(times.ms, key=times.ms.__getitem__) if times else []
    for name in measured:
        if (certificate is None or (certificate.backend, certificate.device) == (name, device)) and _is_here(
            name, artifact
        ):
            return name
    if not measured:
        why = (
            "its manifest has no times for this machine, device and number of threads. "
            "'sdcompress bench ARTIFACT --backend all --record FOLDER' measures them"
        )
    elif certificate:
        why = "its certificate covers none of the measured backends that are installed"
    else:
        why = "none of the measured backends is installed"
    chosen = certificate.backend if certificate else USUAL
    _log_once(artifact.manifest.digest, f"'{artifact.path}' runs by {chosen}: {why}")
    return chosen


def _times_here(recorded: tuple[BackendTimes, ...], threads: int | None, device: str) -> BackendTimes | None:
    if not recorded:
        return None
    cpu, isa = processor()
    machine = (cpu, isa, gpu() if device == "cuda" else None, device)
    here = [times for times in recorded if times.place[:-1] == machine and threads in {None, times.threads}]
    return max(here, key=lambda times: times.created, default=None)


def _is_here(name: str, artifact: Artifact) -> bool:
    try:
        registry.load(ROOM, name, extra="all")
    except (MissingExtraError, UnknownNameError):
        return False
    except BrokenPackageError as error:
        _log_once(artifact.manifest.digest, f"'{artifact.path}' does not run by {name}: {error.problem}")
        return False
    return True


def _log_once(digest: str, message: str) -> None:
    if (digest, message) not in _logged:
        _logged.add((digest, message))
        _log.warning(printable(message))
