"""Open an artifact or a checkpoint as an engine."""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from sdcompress import registry
from sdcompress.artifact.execution_target import ExecutionTarget, check_covered, one_graph_agrees, threshold_warning
from sdcompress.artifact.read import MANIFEST, Artifact, open_artifact
from sdcompress.artifact.signature import check_signature
from sdcompress.checkpoint import Checkpoint
from sdcompress.errors import ArtifactError, UnknownNameError, UsageError
from sdcompress.machine import check_threads, processor
from sdcompress.options import DEFAULT_OPTIONS, EngineOptions
from sdcompress.runtime.backends._base import Backend, ExecutorBackend, Graph
from sdcompress.runtime.cascade import CascadeEngine, array_cascade
from sdcompress.runtime.choose_backend import ROOM, USUAL, choose_backend
from sdcompress.runtime.engine import Engine
from sdcompress.runtime.headless import joined
from sdcompress.runtime.one_graph import OneGraphEngine
from sdcompress.schema.manifest import Manifest, OneGraph, Segment
from sdcompress.untrusted import Refused

__all__ = ["AUTO", "EAGER", "ROOM", "USUAL", "open_cascade", "open_engine", "open_one_graph"]

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

    If the artifact holds one graph that exits by itself, and it was faster than the segments on this processor when it
    was exported, it runs single samples, as it was timed. All else runs in the segments, and so does all of an artifact
    with a certificate, unless the graph gave the exits and decisions of the segments (see ``one_graph_agrees``).

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
        UsageError: if threads is below 1 or more than this machine runs at once, or "eager" is given an artifact.
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
        checkpoint = _not_artifact(source)
        from sdcompress.runtime.eager import open_eager  # brings torch

        return open_eager(checkpoint, options)
    path = source.path if isinstance(source, Checkpoint) else source
    return open_cascade(path, options, require_signature=require_signature, one_graph=True)


def _not_artifact(source: Source) -> Checkpoint | Path | str:
    if isinstance(source, Checkpoint):
        return source
    path = source.path if isinstance(source, Artifact) else source
    if not os.path.isfile(Path(path, MANIFEST)):  # noqa: PTH113 - unlike is_file it never raises
        return path
    raise UsageError(
        f"'{path}' is an artifact, which the backend '{EAGER}' (torch, for checkpoints) does not run.",
        allowed=f"with an artifact: {', '.join((*registry.names(ROOM), AUTO))}; {EAGER} with a checkpoint",
        next_step=f"leave the backend out, which is then {USUAL}; or name the checkpoint that was exported",
    )


def open_cascade(
    source: Artifact | Path | str,
    options: EngineOptions = DEFAULT_OPTIONS,
    *,
    require_signature: Path | str | None = None,
    one_graph: bool = False,
    by_stages: bool = False,
) -> CascadeEngine:
    """Open an artifact; the arguments and errors of ``open_engine``, without "eager".

    Args:
        source: artifact folder, or the artifact opened from it.
        options: of the engine.
        require_signature: see ``open_engine``.
        one_graph: let the one graph of the artifact run single samples, where it was faster; else the segments run all.
        by_stages: see ``CascadeEngine``.
    """
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
        _check_runs(artifact, engine.execution_target, options, stacklevel=4)
        return engine
    execution_target = ExecutionTarget(backend, device)
    _check_runs(artifact, execution_target, options, stacklevel=4)
    loads = partial(load, threads=threads, device=device)
    graph = _faster_graph(artifact.manifest, execution_target, options) if one_graph else None
    return array_cascade(
        artifact,
        partial(_load, loads, artifact),
        execution_target,
        headless=partial(_load_headless, loads, artifact),
        one_graph=_load_one_graph(loads, artifact, graph) if graph else None,
        by_stages=by_stages,
    )


def _faster_graph(manifest: Manifest, execution_target: ExecutionTarget, options: EngineOptions) -> OneGraph | None:
    """Return the one graph if it was faster on this processor, and a certificate allows it in the segments' place."""
    graph = manifest.one_graph
    if graph is None or execution_target != ExecutionTarget() or not graph.is_faster_on(processor()[0]):
        return None
    allowed = manifest.certificate is None or options.allow_uncertified or one_graph_agrees(manifest)
    return graph if allowed else None


def open_one_graph(source: Artifact | Path | str, options: EngineOptions = DEFAULT_OPTIONS) -> OneGraphEngine:
    """Open the one graph of an artifact, after checking all of it; the errors of ``open_engine``.

    A certificate covers the segments. It allows the thresholds, but does not cover the rounding of this graph.

    Raises:
        UsageError: if the artifact holds no such graph.
    """
    artifact = open_artifact(source)
    backend, device = options.backend or USUAL, options.device or "cpu"
    one_graph = artifact.manifest.one_graph
    if one_graph is None:
        raise UsageError(
            f"'{artifact.path}' holds no graph that exits by itself.",
            allowed="an artifact that was exported with --layout graph or if",
            next_step=f"sdcompress export {shlex.quote(str(artifact.path))} --layout graph --out FOLDER",
        )
    _check_runs(artifact, ExecutionTarget(backend, device), options, stacklevel=3)
    load: Backend | ExecutorBackend = registry.load(ROOM, backend, extra="all")
    if isinstance(load, ExecutorBackend):
        raise UsageError(
            f"The backend '{backend}' runs no graph that exits by itself.",
            allowed="onnxruntime: TensorRT runs both branches of an If",
            next_step="open the segments with it: sdcompress.open",
        )
    return _load_one_graph(partial(load, threads=options.threads, device=device), artifact, one_graph)


def _load_one_graph(load: Callable[[Path, Segment], Graph], artifact: Artifact, one_graph: OneGraph) -> OneGraphEngine:
    return OneGraphEngine(artifact.manifest, one_graph.kind, _load(load, artifact, one_graph), artifact.modality)


def _check_runs(artifact: Artifact, execution_target: ExecutionTarget, options: EngineOptions, stacklevel: int) -> None:
    """Refuse an execution target that the certificate does not cover, and warn if thresholds were chosen on another."""
    if options.allow_uncertified:
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
    # an engine with another policy may load them long after the artifact was opened
    contents = [artifact.read_unchanged(segment) for segment in segments]
    try:
        model = joined(contents, kept)
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
        try:
            file.write_bytes(model)
        except OSError:  # such as a full disk
            return None
        return load(file, _one_segment(segments, kept))


def _one_segment(segments: Sequence[Segment], kept: Collection[str]) -> Segment:
    """Return the manifest's entry of neighbouring segments that run as one graph."""
    given = [tensor for segment in segments for tensor in segment.outputs]
    inputs = {tensor.name: tensor for segment in segments for tensor in segment.inputs if tensor not in given}
    outputs = [tensor for name in kept for tensor in given if tensor.name == name]
    return segments[-1].model_copy(update={"inputs": tuple(inputs.values()), "outputs": tuple(outputs)})
