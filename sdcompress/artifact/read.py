"""Open an artifact: every check first, then trust."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from sdcompress.artifact.evidence import Evidence
from sdcompress.artifact.golden import Golden
from sdcompress.errors import ArtifactError
from sdcompress.schema.base import explain
from sdcompress.schema.manifest import FileEntry, Manifest
from sdcompress.storage import digest_of, sha256_of

__all__ = ["MANIFEST", "SIGNATURE", "Artifact", "open_artifact"]

MANIFEST = "manifest.json"
SIGNATURE = "model.sig"  # of all other files, so that the manifest cannot list it

_UNDERSTOOD = 1
_AGAIN = "copy the artifact again from where it was made, or export it again"


@dataclass(frozen=True)
class Artifact:
    """An artifact whose files are what its manifest says.

    Args:
        path: the folder.
        manifest: what the folder holds.
    """

    path: Path
    manifest: Manifest

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


def open_artifact(path: Path | str) -> Artifact:
    """Open an artifact folder after checking all of it.

    Checked: the manifest's JSON, schema version, digest and wiring; every file's size and SHA-256; that nothing is a
    symlink, missing, unlisted or outside the folder.

    Args:
        path: the artifact folder.

    Raises:
        ArtifactError: if anything is not as the manifest says.
    """
    path = Path(path)
    manifest = _manifest(path, _fields(path))
    _check_wiring(path, manifest)
    listed = {entry.file: entry for entry in manifest.files}
    _check_names(path, {MANIFEST, *listed, *([SIGNATURE] if os.path.lexists(path / SIGNATURE) else [])})
    for entry in listed.values():
        _check_content(path, entry)
    return Artifact(path, manifest)


def _fields(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads((path / MANIFEST).read_text(encoding="utf-8"), parse_constant=_not_json)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _not_an_artifact(path) from error
    except OSError as error:
        raise ArtifactError(
            f"'{path / MANIFEST}' cannot be read: {error.strerror}.", next_step="check its permissions"
        ) from error
    except ValueError as error:  # JSON and UTF-8 errors are both ValueErrors
        raise ArtifactError(f"'{path / MANIFEST}' is not JSON: {error}.", next_step=_AGAIN) from error
    if not isinstance(fields, dict):
        raise ArtifactError(f"'{path / MANIFEST}' is not a JSON object.", next_step=_AGAIN)
    return fields


def _not_json(token: str) -> NoReturn:
    raise ValueError(f"{token} is not a number in JSON")


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
    exits, proved = [exit_.name for exit_ in manifest.exits], [record.exit for record in manifest.parity]
    if exits != proved:
        raise ArtifactError(
            f"'{path}' has parity figures for {', '.join(proved) or 'no exit'}.",
            allowed=f"figures for each exit: {', '.join(exits)}",
            next_step=_AGAIN,
        )


def _check_names(path: Path, listed: set[str]) -> None:
    found = set()
    for file, mode in _walk(path):
        name = file.relative_to(path).as_posix()
        if not stat.S_ISREG(mode):
            kind = "a symlink" if stat.S_ISLNK(mode) else "not a regular file"
            raise ArtifactError(
                f"'{name}' in '{path}' is {kind}.",
                allowed="regular files: a link may lead outside the artifact",
                next_step="copy the artifact with its links followed (cp -rL)",
            )
        found.add(name)
    if missing := sorted(listed - found):
        raise ArtifactError(f"'{path}' lacks {', '.join(missing)}, which its manifest lists.", next_step=_AGAIN)
    if unlisted := sorted(found - listed):
        raise ArtifactError(
            f"'{path}' holds {', '.join(unlisted)}, which its manifest does not list.",
            allowed="manifest.json and the files it lists",
            next_step="move other files out of the artifact",
        )


def _walk(folder: Path) -> Iterator[tuple[Path, int]]:
    for path in folder.iterdir():
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            yield from _walk(path)
        else:
            yield path, mode


def _check_content(path: Path, entry: FileEntry) -> None:
    file = path / entry.file
    size = file.stat().st_size
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
