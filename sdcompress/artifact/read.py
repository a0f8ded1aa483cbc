"""Open an artifact: every check first, then trust."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from pydantic import ValidationError

from sdcompress.artifact.evidence import Evidence
from sdcompress.artifact.external import check_no_external_data
from sdcompress.artifact.golden import Golden
from sdcompress.errors import ArtifactError
from sdcompress.schema.base import explain
from sdcompress.schema.engines import Plan
from sdcompress.schema.manifest import FileEntry, Manifest, Segment
from sdcompress.storage import digest_of, sha256_of
from sdcompress.untrusted import Refused, kind_of, parse_json, read_bytes

__all__ = ["MANIFEST", "SIGNATURE", "Artifact", "manifest_fields", "open_artifact", "walk"]

MANIFEST = "manifest.json"
SIGNATURE = "model.sig"  # of all other files, so that the manifest cannot list it

_UNDERSTOOD = 1
# bytes; a graph is one protobuf message, which cannot be larger
_MOST_OF_A_MANIFEST, _MOST_OF_A_GRAPH, _MOST_OF_A_PLAN, _MOST_OF_OTHERS = 2**24, 2**31 - 1, 2**33, 2**28
_DEEPEST, _MOST_NAMES, _MOST_NAMED = 16, 100_000, 10
_AGAIN = "copy the artifact again from where it was made, or export it again"


@dataclass(frozen=True)
class Artifact:
    """An artifact whose files are what its manifest says.

    Args:
        path: the folder.
        manifest: what the folder holds.
        opening_ms: how long reading and hashing it took.
    """

    path: Path
    manifest: Manifest
    opening_ms: float = field(default=0.0, compare=False)

    def file(self, entry: FileEntry) -> Path:
        """Where a listed file is."""
        return self.path / entry.file

    def golden(self) -> Golden:
        """The golden samples.

        Raises:
            ArtifactError: if they do not fit the exits, the classes or the input of the manifest.
        """
        golden = Golden.load(self.file(self.manifest.golden))
        channels, height, width = self.manifest.input.shape[1:]
        found = (golden.images.shape[1:], golden.logits.shape[0], golden.logits.shape[2])
        expected = ((height, width, channels), len(self.manifest.exits), len(self.manifest.classes))
        if found != expected:
            raise ArtifactError(
                f"The golden samples of '{self.path}' hold (image, exits, classes) {found}.",
                allowed=f"{expected}, as the manifest says",
                next_step=_AGAIN,
            )
        return golden

    def evidence(self) -> Evidence:
        """What the certificate was computed from.

        Raises:
            ArtifactError: if there is no certificate, or the arrays do not fit it.
        """
        certificate = self.manifest.certificate
        if certificate is None:
            raise ArtifactError(
                f"'{self.path}' holds no certificate.", next_step="sdcompress calibrate --confidence 95%"
            )
        evidence = Evidence.load(self.file(certificate.evidence))
        found = (*evidence.right.shape, *evidence.confidences.shape)
        exits, samples = len(self.manifest.exits), certificate.certify_samples
        if found != (exits, samples, exits - 1, samples):
            raise ArtifactError(
                f"The evidence of '{self.path}' is about {found[0]} exits and {found[1]} samples.",
                allowed=f"{exits} exits and {samples} samples, as the certificate says",
                next_step=_AGAIN,
            )
        return evidence


def open_artifact(source: Artifact | Path | str) -> Artifact:
    """Open an artifact folder after checking all of it; what is opened already is given back as it is.

    Checked: the manifest's JSON, schema version, digest and wiring; every file's size and SHA-256; that nothing is a
    symlink, missing, unlisted or outside the folder; that no graph has data in other files. Whatever is in the folder,
    this takes bounded time and memory.

    Args:
        source: the artifact folder.

    Raises:
        ArtifactError: if anything is not as the manifest says.
    """
    if isinstance(source, Artifact):
        return source
    path, start = Path(source), perf_counter_ns()
    try:
        manifest = _manifest(path, manifest_fields(path))
        _check_wiring(path, manifest)
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
    return Artifact(path, manifest, (perf_counter_ns() - start) / 1e6)


def manifest_fields(path: Path) -> dict[str, Any]:
    """The fields of an artifact's manifest as JSON has them, none of them checked.

    Args:
        path: the artifact folder.

    Raises:
        ArtifactError: if the manifest is no regular file, too large or not JSON.
        OSError: if it cannot be read.
    """
    try:
        fields = parse_json(read_bytes(path / MANIFEST, _MOST_OF_A_MANIFEST))
    except Refused as error:
        raise ArtifactError(
            f"'{path / MANIFEST}' cannot be read: {error}.",
            allowed="a regular file that holds a JSON object as docs/artifact.md says",
            next_step=_AGAIN,
        ) from error
    if not isinstance(fields, dict):
        raise ArtifactError(f"'{path / MANIFEST}' is not a JSON object.", next_step=_AGAIN)
    return fields


def _not_an_artifact(path: Path) -> ArtifactError:
    if not path.is_dir():
        found = f"'{path}' is {'a file' if path.exists() else 'not there'}, not an artifact folder."
    elif (path / "parity.json").exists():
        found = f"'{path}' is an export that failed its parity gate; see its parity.json."
    else:
        found = f"'{path}' has no manifest.json: it is not an artifact, or its export did not finish."
    return ArtifactError(found, allowed="a folder written by 'sdcompress export'", next_step="check the path")


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
            allowed="a manifest as it was written; its figures are evidence",
            next_step=f"{_AGAIN}; thresholds are changed with 'sdcompress calibrate'",
        )
    return manifest


def _schema_error(found: str, *, allowed: str, next_step: str) -> ArtifactError:  # noqa: ARG001 - explain's is for recipes
    return ArtifactError(found, allowed=allowed or "the fields of docs/artifact.md", next_step=_AGAIN)


def _check_wiring(path: Path, manifest: Manifest) -> None:
    known = {manifest.input.name}
    for index, segment in enumerate(manifest.segments):
        missing = {tensor.name for tensor in segment.inputs} - known
        made = {tensor.name for tensor in segment.outputs}
        missing |= {name for exit_ in manifest.exits if exit_.segment == index for name in exit_.reads} - made
        if missing:
            raise ArtifactError(
                f"Segment {index} of '{path}' needs {', '.join(sorted(missing))}, which nothing makes.",
                allowed="inputs made by earlier segments; logits and signals made by the exit's own segment",
                next_step=_AGAIN,
            )
        known |= made
    _check_ports(path, manifest)
    exits, proved = [exit_.name for exit_ in manifest.exits], [record.exit for record in manifest.parity]
    if exits != proved:
        raise ArtifactError(
            f"'{path}' has parity figures for {', '.join(proved) or 'no exit'}.",
            allowed=f"figures for each exit: {', '.join(exits)}",
            next_step=_AGAIN,
        )


def _check_ports(path: Path, manifest: Manifest) -> None:
    """Refuse graphs without inputs, and exits that read tensors of another shape than an exit has."""
    classes = len(manifest.classes)
    for segment in manifest.segments:
        if not segment.inputs:
            raise ArtifactError(
                f"The graph '{segment.file}' of '{path}' has no inputs.", allowed="at least one", next_step=_AGAIN
            )
    for exit_ in manifest.exits:
        shapes = {tensor.name: tensor.shape for tensor in manifest.segments[exit_.segment].outputs}
        expected: dict[str, tuple[int, ...]] = {exit_.logits: (classes,)}
        if exit_.signals:
            expected |= {exit_.signals.values: (3,), exit_.signals.answer: ()}
        for name, rest in expected.items():
            if shapes[name][1:] != rest or not shapes[name]:
                raise ArtifactError(
                    f"The exit '{exit_.name}' of '{path}' reads '{name}', which has the shape {list(shapes[name])}.",
                    allowed=f"{['batch', *rest]}, for {classes} classes",
                    next_step=_AGAIN,
                )


def _check_names(path: Path, listed: set[str]) -> None:
    found = set[str]()
    unlisted = list[str]()
    for name, mode in walk(path):
        if kind := kind_of(mode):
            raise ArtifactError(
                f"'{name}' in '{path}' is {kind}.",
                allowed="regular files: a link may lead outside the artifact",
                next_step="copy the artifact with its links followed (cp -rL)",
            )
        found.add(name)
        if name not in listed:
            unlisted.append(name)
        if len(unlisted) > _MOST_NAMED:
            break
    if missing := sorted(listed - found)[:_MOST_NAMED] if len(unlisted) <= _MOST_NAMED else []:
        raise ArtifactError(f"'{path}' lacks {', '.join(missing)}, which its manifest lists.", next_step=_AGAIN)
    if unlisted:
        raise ArtifactError(
            f"'{path}' holds {', '.join(sorted(unlisted))}, which its manifest does not list.",
            allowed="manifest.json and the files it lists",
            next_step="move other files out of the artifact",
        )


def walk(path: Path) -> Iterator[tuple[str, int]]:
    """The name below a folder and the mode of everything that is not a folder itself; no link is followed.

    Args:
        path: the folder.

    Raises:
        ArtifactError: if it holds more, or deeper, than any artifact does.
        OSError: if a folder cannot be read.
    """
    waiting, seen = [(path, "", 0)], 0
    while waiting:
        folder, prefix, depth = waiting.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                seen += 1
                if depth > _DEEPEST or seen > _MOST_NAMES:
                    raise ArtifactError(
                        f"'{path}' holds more than {_DEEPEST} nested folders, or more than {_MOST_NAMES} names.",
                        allowed="manifest.json and the files it lists",
                        next_step="move other files out of the artifact",
                    )
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    waiting.append((folder / entry.name, f"{prefix}{entry.name}/", depth + 1))
                else:
                    yield f"{prefix}{entry.name}", mode


def _check_content(path: Path, entry: FileEntry) -> None:
    file = path / entry.file
    size = file.stat().st_size
    if size > (most := _most(entry)):
        raise ArtifactError(
            f"'{entry.file}' in '{path}' has {size} bytes.", allowed=f"at most {most} bytes", next_step=_AGAIN
        )
    if size != entry.bytes:
        raise ArtifactError(
            f"'{entry.file}' in '{path}' has {size} bytes: it is truncated or was changed.",
            allowed=f"{entry.bytes} bytes, as the manifest says",
            next_step=_AGAIN,
        )
    if (found := sha256_of(file)) != entry.sha256:
        raise ArtifactError(
            f"'{entry.file}' in '{path}' is corrupt or was changed: its SHA-256 is {found[:12]}….",
            allowed=f"{entry.sha256[:12]}…, as the manifest says",
            next_step=_AGAIN,
        )
    if isinstance(entry, Segment):
        try:
            check_no_external_data(file)
        except Refused as error:
            raise ArtifactError(
                f"The graph '{entry.file}' in '{path}' cannot be used: {error}.",
                allowed="an ONNX graph that holds all of its data itself: a reference may lead to any file",
                next_step="export it again with its data inside",
            ) from error


def _most(entry: FileEntry) -> int:
    """Bytes that a file of this kind may have."""
    if isinstance(entry, Segment):
        return _MOST_OF_A_GRAPH
    return _MOST_OF_A_PLAN if isinstance(entry, Plan) else _MOST_OF_OTHERS
