"""Open an artifact or a checkpoint as an engine."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from sdcompress import registry
from sdcompress.artifact.execution_target import ExecutionTarget, check_covered, threshold_warning
from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.artifact.signature import check_signature
from sdcompress.checkpoint import Checkpoint
from sdcompress.errors import ArtifactError, UnknownNameError, UsageError
from sdcompress.machine import check_threads
from sdcompress.options import DEFAULT_OPTIONS, EngineOptions
from sdcompress.runtime.backends._base import Backend, ExecutorBackend, Graph
from sdcompress.runtime.cascade import CascadeEngine, array_cascade
from sdcompress.runtime.choose_backend import ROOM, USUAL, choose_backend
from sdcompress.runtime.engine import Engine
from sdcompress.runtime.headless import joined
from sdcompress.schema.manifest import Segment
from sdcompress.untrusted import Refused

__all__ = ["AUTO", "EAGER", "ROOM", "USUAL", "check_runs", "open_cascade", "open_engine"]

EAGER, AUTO = "eager", "auto"  # the backend of a checkpoint; the fastest one by the artifact's recorded times
Source = Artifact | Checkpoint | Path | str


def open_engine(
    source: Source,
    *,
    backend: str = USUAL,
    threads: int | None = None,
    device: str = "cpu",
    allow_uncertified: bool = False,
    trust_modules: bool = False,
    require_signature: Path | str | None = None,
) -> Engine:
    """Open an artifact, after checking all of it; or a checkpoint with the backend "eager".

    Args:
        source: artifact folder, or the artifact opened from it; with "eager" a checkpoint folder.
        backend: a name of 'sdcompress list backends'; "auto": see ``choose_backend``; or "eager": torch, the reference.
        threads: for one call; None leaves the choice to the backend (most take all cores).
        device: "cpu" or "cuda".
        allow_uncertified: also run an artifact whose certificate does not cover this backend, device, graphs or
            thresholds.
        trust_modules: with "eager": import the module that the checkpoint names, which runs its code, also where you
            have not trained it on this machine.
        require_signature: PEM file of the public key, or of the certificates, by whose holder the artifact must be
            signed; see docs/certificates.md.

    Raises:
        ArtifactError: if the artifact is not intact or cannot be loaded.
        SignatureError: if it is not signed with this key.
        CertificateError: if its certificate does not cover this. Thresholds without a guarantee run anywhere, with a
            warning if they were chosen on another backend or device.
        CheckpointError: if the checkpoint is not intact.
        SetupError: if this machine has no such device; MissingExtraError if a package is not installed.
        UsageError: if threads is below 1 or more than this machine runs at once.
        UnknownNameError: if there is no such backend.
    """
    options = EngineOptions(backend, threads, device, allow_uncertified, trust_modules)
    if backend == EAGER:
        if require_signature is not None:
            raise UsageError(
                "A checkpoint has no signature.",
                allowed="require_signature with an artifact",
                next_step="export the checkpoint and sign the artifact",
            )
        from sdcompress.runtime.eager import open_eager  # brings torch

        return open_eager(source.path if isinstance(source, Artifact) else source, options)
    path = source.path if isinstance(source, Checkpoint) else source
    return open_cascade(path, options, require_signature=require_signature)


def open_cascade(
    source: Artifact | Path | str,
    options: EngineOptions = DEFAULT_OPTIONS,
    *,
    require_signature: Path | str | None = None,
) -> CascadeEngine:
    """Open an artifact; the arguments and errors of ``open_engine``, without "eager"."""
    backend, threads, device = options.backend or USUAL, options.threads, options.device or "cpu"
    if threads is not None:
        check_threads(threads)
    known = registry.names(ROOM)
    if backend not in {AUTO, *known}:
        raise UnknownNameError("backends", backend, known)
    artifact = open_artifact(source)
    if require_signature is not None:
        check_signature(artifact, require_signature)
    if backend == AUTO:
        backend = choose_backend(artifact, threads=threads, device=device, allow_uncertified=options.allow_uncertified)
    load: Backend | ExecutorBackend = registry.load(ROOM, backend, extra="all")
    if isinstance(load, ExecutorBackend):
        executor = load.open(artifact, threads=threads, device=device)
        engine = CascadeEngine(artifact.manifest, executor, artifact.modality)
        check_runs(artifact, engine.execution_target, allow_uncertified=options.allow_uncertified, stacklevel=4)
        return engine
    execution_target = ExecutionTarget(backend, device)
    check_runs(artifact, execution_target, allow_uncertified=options.allow_uncertified, stacklevel=4)
    loads = partial(load, threads=threads, device=device)
    return array_cascade(
        artifact, partial(_load, loads, artifact), execution_target, headless=partial(_load_headless, loads, artifact)
    )


def check_runs(
    artifact: Artifact, execution_target: ExecutionTarget, *, allow_uncertified: bool, stacklevel: int
) -> None:
    """Refuse an execution target that the certificate does not cover, and warn if thresholds were chosen on another.

    Args:
        artifact: that will run.
        execution_target: that will run it.
        allow_uncertified: do neither.
        stacklevel: of the warning, from here.

    Raises:
        CertificateError: if its certificate does not cover this target.
    """
    if allow_uncertified:
        return
    check_covered(artifact.manifest, execution_target)
    if why := threshold_warning(artifact.manifest, execution_target):
        warnings.warn(why, stacklevel=stacklevel)


def _load(load: Callable[[Path, Segment], Graph], artifact: Artifact, segment: Segment) -> Graph:
    return load(artifact.file(segment), segment)


def _load_headless(
    load: Callable[[Path, Segment], Graph], artifact: Artifact, segments: Sequence[Segment], kept: Collection[str]
) -> Graph | None:
    """Load neighbouring segments as one graph with some of their outputs, from a temporary file.

    Returns:
        None where segments cannot be joined, or no such file can be written: the segments give the same answers.
    """
    for segment in segments:  # an engine with another policy may load them long after the artifact was opened
        artifact.check_unchanged(segment)
    try:
        model = joined([artifact.file(segment).read_bytes() for segment in segments], kept)
    except Refused as error:
        names = ", ".join(f"'{segment.file}'" for segment in segments)
        raise ArtifactError(
            f"A graph of {names} in '{artifact.path}' cannot be used: {error}.",
            allowed="an ONNX graph",
            next_step="export the artifact again",
        ) from error
    if model is None:
        return None
    try:
        temporary = TemporaryDirectory(prefix="sdcompress-")
    except OSError:  # such as a read-only container
        return None
    with temporary as folder:
        file = Path(folder, Path(segments[-1].file).name)
        file.write_bytes(model)
        return load(file, _one_segment(segments, kept))


def _one_segment(segments: Sequence[Segment], kept: Collection[str]) -> Segment:
    """Return the manifest's entry of neighbouring segments that run as one graph."""
    given = [tensor for segment in segments for tensor in segment.outputs]
    inputs = {tensor.name: tensor for segment in segments for tensor in segment.inputs if tensor not in given}
    outputs = [tensor for name in kept for tensor in given if tensor.name == name]
    return segments[-1].model_copy(update={"inputs": tuple(inputs.values()), "outputs": tuple(outputs)})
