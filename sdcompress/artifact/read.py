"""Open an artifact after checking its manifest and every file."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from pydantic import ValidationError

from sdcompress.artifact.evidence import Evidence
from sdcompress.artifact.expansion import check_expansion
from sdcompress.artifact.external import check_no_external_data
from sdcompress.artifact.golden import Golden
from sdcompress.errors import ArtifactChangedError, ArtifactError, DataError, InputError, brief
from sdcompress.modalities import Modality, modality_of
from sdcompress.schema.base import explain
from sdcompress.schema.engines import Plan
from sdcompress.schema.manifest import FileEntry, Manifest, Segment, Tensor
from sdcompress.storage import digest_of, sha256_of
from sdcompress.tasks import Task, task_of
from sdcompress.untrusted import Refused, kind_of, parse_json, read_bytes

__all__ = ["MANIFEST", "SIGNATURE", "Artifact", "manifest_fields", "open_artifact", "walk"]

MANIFEST = "manifest.json"
SIGNATURE = "model.sig"  # it signs all other files, so that the manifest cannot list it

_UNDERSTOOD = 2
# bytes; a graph is one protobuf message, whose size is limited to 2 GiB
_MAX_MANIFEST_BYTES, _MAX_GRAPH_BYTES, _MAX_PLAN_BYTES, _MAX_FILE_BYTES = 2**24, 2**31 - 1, 2**33, 2**28
_MAX_DEPTH, _MAX_FILES, _MAX_NAMED = 16, 100_000, 10
_COPY_AGAIN = "copy the artifact again from its source, or export it again"


@dataclass(frozen=True)
class Artifact:
    """An artifact whose files match its manifest.

    Args:
        path: the folder.
        manifest: what the folder holds.
        opening_ms: how long reading and hashing it took.
    """

    path: Path
    manifest: Manifest
    opening_ms: float = field(default=0.0, compare=False)

    @cached_property
    def task(self) -> Task:
        """Return its task."""
        return task_of(self.manifest)

    @cached_property
    def modality(self) -> Modality:
        """Return its modality."""
        return modality_of(self.manifest).located(self.path)

    def file(self, entry: FileEntry) -> Path:
        """Return the path of a listed file."""
        return self.path / entry.file

    def check_unchanged(self, entry: FileEntry) -> None:
        """Refuse a listed file that was changed or removed after the artifact was opened.

        Raises:
            ArtifactChangedError: if it is not the one that the manifest lists.
        """
        try:
            same = sha256_of(self.file(entry)) == entry.sha256
        except OSError:
            same = False
        if not same:
            raise self._changed(entry)

    def read_unchanged(self, entry: FileEntry) -> bytes:
        """Return the bytes of a listed file, which are those that were checked: nothing can change in between.

        Raises:
            ArtifactChangedError: if they are not those that the manifest lists.
        """
        try:
            content = self.file(entry).read_bytes()
        except OSError as error:
            raise self._changed(entry) from error
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise self._changed(entry)
        return content

    def _changed(self, entry: FileEntry) -> ArtifactChangedError:
        return ArtifactChangedError(
            f"'{entry.file}' in '{self.path}' was changed or removed after the artifact was opened.",
            allowed=f"the file of the SHA-256 {entry.sha256[:12]}…, as long as the artifact is in use",
            next_step="export it again, or open it again",
        )

    def golden(self) -> Golden:
        """Read the golden samples.

        Raises:
            ArtifactError: if they do not fit the exits, the task and the modality of the manifest.
        """
        golden = Golden.load(self.file(self.manifest.golden), self.modality)
        shapes = (golden.outputs.shape[0], *golden.outputs.shape[2:])
        expected = (len(self.manifest.exits), *self.task.output_shape)
        if shapes != expected:
            raise ArtifactError(
                f"The golden samples of '{self.path}' hold outputs of (exits, ...) {shapes}.",
                allowed=f"{expected}, as the manifest says",
                next_step=_COPY_AGAIN,
            )
        try:
            self.task.check_targets(golden.targets)
            self.modality.collate(golden.examples[:1])
        except (DataError, InputError) as error:
            raise ArtifactError(
                f"The golden samples of '{self.path}' do not fit its task or its modality: {error.problem}",
                allowed=error.allowed,
                next_step=_COPY_AGAIN,
            ) from error
        return golden

    def evidence(self) -> Evidence:
        """Read the evidence from which the certificate was computed.

        Raises:
            ArtifactError: if there is no certificate, or the arrays do not match it.
        """
        certificate = self.manifest.certificate
        if certificate is None:
            raise ArtifactError(
                f"'{self.path}' holds no certificate.", next_step="sdcompress calibrate --confidence 95%"
            )
        evidence = Evidence.load(self.file(certificate.evidence))
        shapes = (*evidence.loss.shape, *evidence.scores.shape)
        exits, samples = len(self.manifest.exits), certificate.certify_samples
        if shapes != (exits, samples, exits - 1, samples):
            raise ArtifactError(
                f"The evidence of '{self.path}' is about {shapes[0]} exits and {shapes[1]} samples.",
                allowed=f"{exits} exits and {samples} samples, as the certificate says",
                next_step=_COPY_AGAIN,
            )
        return evidence


def open_artifact(source: Artifact | Path | str) -> Artifact:
    """Open an artifact folder after checking all of it; what is opened already is given back as it is.

    The checks cover JSON, schema version, digest and wiring of the manifest, and size and SHA-256 of every file. Files
    that are missing, unlisted, symlinks or outside the folder are refused, and so are graphs with external data. Time
    and memory are bounded for any folder.

    Args:
        source: the artifact folder.

    Raises:
        ArtifactError: if a check fails.
    """
    if isinstance(source, Artifact):
        return source
    path, start = Path(source), perf_counter_ns()
    try:
        opened = Artifact(path, manifest := _manifest(path, manifest_fields(path)))
        _check_inputs(opened)
        _check_wiring(path, manifest)
        _check_ports(opened)
        signed = [SIGNATURE] if os.path.lexists(path / SIGNATURE) else []
        _check_names(path, {MANIFEST, *signed, *(entry.file for entry in manifest.files)})
        for entry in manifest.files:
            _check_content(path, entry)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _not_an_artifact(path) from error
    except OSError as error:
        raise ArtifactError(
            f"'{error.filename or path}' cannot be read: {error.strerror or error}.",
            allowed="an artifact whose files and folders this user may read",
            next_step="check the path and its permissions",
        ) from error
    return replace(opened, opening_ms=(perf_counter_ns() - start) / 1e6)


def manifest_fields(path: Path) -> dict[str, Any]:
    """Read the raw JSON fields of a manifest, unchecked.

    Args:
        path: the artifact folder.

    Raises:
        ArtifactError: if the manifest is not a regular file, too large, or not JSON.
        OSError: if it cannot be read.
    """
    try:
        fields = parse_json(read_bytes(path / MANIFEST, _MAX_MANIFEST_BYTES))
    except Refused as error:
        raise ArtifactError(
            f"'{path / MANIFEST}' cannot be read: {error}.",
            allowed="a regular file that holds a JSON object as docs/artifact.md says",
            next_step=_COPY_AGAIN,
        ) from error
    if not isinstance(fields, dict):
        raise ArtifactError(f"'{path / MANIFEST}' is not a JSON object.", next_step=_COPY_AGAIN)
    return fields


def _not_an_artifact(path: Path) -> ArtifactError:
    if not path.is_dir():
        problem = f"'{path}' is {'a file' if path.exists() else 'not there'}, not an artifact folder."
    elif (path / "parity.json").exists():
        problem = f"'{path}' is an export that failed its parity gate; see its parity.json."
    else:
        problem = f"'{path}' has no manifest.json: it is not an artifact, or its export did not finish."
    return ArtifactError(
        problem,
        allowed="a folder written by 'sdcompress export'",
        next_step="check the path; a training becomes an artifact by: sdcompress export RUN --out FOLDER",
    )


def _manifest(path: Path, fields: dict[str, Any]) -> Manifest:
    version = fields.get("schema_version")
    if version != _UNDERSTOOD:
        raise ArtifactError(
            f"The manifest of '{path}' has schema_version {version!r}.",
            allowed=f"schema_version {_UNDERSTOOD}, the one this sdcompress understands",
            next_step="pip install --upgrade sdcompress, or export the artifact again with this version",
        )
    try:
        manifest = Manifest.model_validate(fields)
    except ValidationError as error:
        raise explain(error, Manifest, f"the manifest of '{path}'", _schema_error) from error
    digest = digest_of({name: value for name, value in fields.items() if name != "digest"})
    if digest != manifest.digest:
        raise ArtifactError(
            f"The manifest of '{path}' was edited: its fields hash to {digest[:12]}…, its digest says "
            f"{manifest.digest[:12]}….",
            allowed="an unedited manifest",
            next_step=f"{_COPY_AGAIN}; change thresholds with 'sdcompress calibrate'",
        )
    return manifest


def _schema_error(problem: str, *, allowed: str, next_step: str) -> ArtifactError:  # noqa: ARG001 - explain's is for recipes
    return ArtifactError(problem, allowed=allowed or "the fields of docs/artifact.md", next_step=_COPY_AGAIN)


def _check_wiring(path: Path, manifest: Manifest) -> None:
    available = {tensor.name for tensor in manifest.inputs}
    for index, segment in enumerate(manifest.segments):
        missing = {tensor.name for tensor in segment.inputs} - available
        produced = {tensor.name for tensor in segment.outputs}
        missing |= {name for exit_ in manifest.exits if exit_.segment == index for name in exit_.reads} - produced
        if missing:
            raise ArtifactError(
                f"Segment {index} of '{path}' needs {', '.join(sorted(missing))}, which no earlier segment produces.",
                allowed="inputs that earlier segments produce; outputs and signals that the segment of the exit "
                "produces",
                next_step=_COPY_AGAIN,
            )
        available |= produced
    exits, proved = [exit_.name for exit_ in manifest.exits], [record.exit for record in manifest.parity]
    if exits != proved:
        raise ArtifactError(
            f"'{path}' has parity figures for {', '.join(proved) or 'no exit'}.",
            allowed=f"figures for each exit: {', '.join(exits)}",
            next_step=_COPY_AGAIN,
        )


def _check_inputs(artifact: Artifact) -> None:
    """Refuse inputs that the modality does not prepare."""
    listed, prepared = artifact.manifest.inputs, artifact.modality.tensors
    if listed != prepared:
        raise ArtifactError(
            f"The inputs of '{artifact.path}' are {_in_words(listed)}.",
            allowed=f"{_in_words(prepared)}, as its modality '{artifact.manifest.modality.name}' prepares them",
            next_step=_COPY_AGAIN,
        )


def _check_ports(artifact: Artifact) -> None:
    """Refuse graphs without inputs, and exits that read tensors of unexpected types or shapes."""
    path, manifest, task = artifact.path, artifact.manifest, artifact.task
    for segment in manifest.segments:
        if not segment.inputs:
            raise ArtifactError(
                f"The graph '{segment.file}' of '{path}' has no inputs.", allowed="at least one", next_step=_COPY_AGAIN
            )
    for exit_ in manifest.exits:
        tensors = {tensor.name: tensor for tensor in manifest.segments[exit_.segment].outputs}
        expected = {exit_.outputs: ("float32", task.output_shape)}
        if exit_.signals:
            expected[exit_.signals.values] = ("float32", (len(task.signal_names),))
            expected[exit_.signals.decision] = (task.decision_dtype.name, task.decision_shape)
        for name, (dtype, row_shape) in expected.items():
            tensor = tensors[name]
            if tensor.dtype != dtype or tensor.shape[1:] != row_shape or not tensor.shape:
                raise ArtifactError(
                    f"The exit '{exit_.name}' of '{path}' reads '{name}', which is {tensor.dtype} of the shape "
                    f"{list(tensor.shape)}.",
                    allowed=f"{dtype} {['batch', *row_shape]}, for {len(manifest.outputs)} outputs",
                    next_step=_COPY_AGAIN,
                )


def _in_words(tensors: Sequence[Tensor]) -> str:
    return brief(", ".join(f"'{tensor.name}' {tensor.dtype} {list(tensor.shape)}" for tensor in tensors))


def _check_names(path: Path, listed: set[str]) -> None:
    present = set[str]()
    unlisted = list[str]()
    for name, mode in walk(path):
        if kind := kind_of(mode):
            raise ArtifactError(
                f"'{name}' in '{path}' is {kind}.",
                allowed="regular files only; a link may lead outside the artifact",
                next_step="copy the artifact with its links followed (cp -rL)",
            )
        present.add(name)
        if name not in listed:
            unlisted.append(name)
        if len(unlisted) > _MAX_NAMED:
            break
    if missing := sorted(listed - present)[:_MAX_NAMED] if len(unlisted) <= _MAX_NAMED else []:
        raise ArtifactError(f"'{path}' lacks {', '.join(missing)}, which its manifest lists.", next_step=_COPY_AGAIN)
    if unlisted:
        raise ArtifactError(
            f"'{path}' holds {', '.join(sorted(unlisted))}, which its manifest does not list.",
            allowed="manifest.json and the files it lists",
            next_step="move other files out of the artifact",
        )


def walk(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the relative name and the mode of every file below a folder. Links are not followed.

    Args:
        path: the folder.

    Raises:
        ArtifactError: if it holds more files or levels than any artifact.
        OSError: if a folder cannot be read.
    """
    pending, count = [(path, "", 0)], 0
    while pending:
        folder, prefix, depth = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                count += 1
                if depth > _MAX_DEPTH or count > _MAX_FILES:
                    raise ArtifactError(
                        f"'{path}' has more than {_MAX_DEPTH} nested folders or {_MAX_FILES} files.",
                        allowed="manifest.json and the files it lists",
                        next_step="move other files out of the artifact",
                    )
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    pending.append((folder / entry.name, f"{prefix}{entry.name}/", depth + 1))
                else:
                    yield f"{prefix}{entry.name}", mode


def _check_content(path: Path, entry: FileEntry) -> None:
    file = path / entry.file
    size = file.stat().st_size
    if size > (limit := _size_limit(entry)):
        raise ArtifactError(
            f"'{entry.file}' in '{path}' has {size} bytes.", allowed=f"at most {limit} bytes", next_step=_COPY_AGAIN
        )
    if size != entry.bytes:
        raise ArtifactError(
            f"'{entry.file}' in '{path}' has {size} bytes: it was truncated or changed.",
            allowed=f"{entry.bytes} bytes, as the manifest says",
            next_step=_COPY_AGAIN,
        )
    if (sha256 := sha256_of(file)) != entry.sha256:
        raise ArtifactError(
            f"'{entry.file}' in '{path}' is corrupt or was changed: its SHA-256 is {sha256[:12]}….",
            allowed=f"{entry.sha256[:12]}…, as the manifest says",
            next_step=_COPY_AGAIN,
        )
    if isinstance(entry, Segment):
        try:
            check_no_external_data(file)
            check_expansion(file)
        except Refused as error:
            raise ArtifactError(
                f"The graph '{entry.file}' in '{path}' cannot be used: {error}.",
                allowed="an ONNX graph with all of its data inside, whose functions end",
                next_step="export it again with its data inside",
            ) from error


def _size_limit(entry: FileEntry) -> int:
    """Return the largest size of a file of this kind, in bytes."""
    if isinstance(entry, Segment):
        return _MAX_GRAPH_BYTES
    return _MAX_PLAN_BYTES if isinstance(entry, Plan) else _MAX_FILE_BYTES
