"""package: write what another inference service needs to run an artifact."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from sdcompress import registry
from sdcompress.artifact.card import guarantee
from sdcompress.artifact.execution_target import check_covered, threshold_warning
from sdcompress.artifact.read import Artifact, open_artifact, walk
from sdcompress.artifact.write import staged
from sdcompress.errors import ArtifactError, UsageError
from sdcompress.evaluation.trained_model import TrainedModel
from sdcompress.options import Options
from sdcompress.packaging._base import Target
from sdcompress.schema.base import explain
from sdcompress.schema.package import Package
from sdcompress.storage import sha256_of
from sdcompress.verbs._types import Folder, Overrides, Source

__all__ = ["ROOM", "package", "target_of"]

ROOM = "sdcompress.packaging"
_RECORD, _SUMS = "package.json", "SHA256SUMS"


def package(
    source: Source,
    out: Folder,
    target: str,
    settings: Target | Overrides | None = None,
    options: Options | None = None,
    *,
    overwrite: bool = False,
) -> Package:
    """Write a folder by which another inference service, such as Triton, runs an artifact.

    ``SHA256SUMS`` in it lists the hash of every file as ``sha256sum --check`` reads it. A graph has the hash that the
    artifact's manifest gives it.

    Args:
        source: an artifact.
        out: folder of the package.
        target: one of 'sdcompress list targets'.
        settings: of the target: some of its fields, or the target itself.
        options: ``allow_uncertified``: package thresholds that a certificate does not cover on that target.
        overwrite: replace an existing package.

    Returns:
        What ``package.json`` in the folder says.

    Raises:
        ArtifactError: if the artifact is not intact.
        CertificateError: if its certificate does not cover what will run it.
        UsageError: if the artifact cannot be packaged like this, or a setting is out of range; UnknownNameError: no
            such target.
        OutputExistsError, StorageError: if ``out`` cannot be written.
    """
    artifact = source.artifact() if isinstance(source, TrainedModel) else _opened(source)
    chosen = target_of(target, settings)
    options = options or Options()
    applies_policy = chosen.applies_policy(artifact)
    if applies_policy and not options.allow_uncertified:
        execution_target = chosen.execution_target(artifact)
        check_covered(artifact.manifest, execution_target)
        if why := threshold_warning(artifact.manifest, execution_target):
            warnings.warn(why, stacklevel=2)
    with staged(out, overwrite=overwrite, kind="package", listed=_listed) as folder:
        models = chosen.write(artifact, folder)
        record = Package(
            target=target,
            artifact=artifact.manifest.digest,
            settings=chosen.model_dump(mode="json"),
            models=models,
            guarantee=_guarantee(artifact) if applies_policy else "",
            sdcompress=version("sdcompress"),
        )
        (folder / _RECORD).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8", newline="\n")
        _write_sums(folder)
    return record


def target_of(name: str, settings: Target | Overrides | None = None) -> Target:
    """Return a target with its settings.

    Args:
        name: one of 'sdcompress list targets'.
        settings: some of its fields; a whole target is returned as it is.

    Raises:
        UnknownNameError: if there is no such target.
        UsageError: if a setting is unknown or out of range, or they are those of another target.
    """
    kind: type[Target] = registry.load(ROOM, name, extra="all")
    if isinstance(settings, Target):
        if type(settings) is kind:
            return settings
        raise UsageError(
            f"The settings are a {type(settings).__name__}, and the target '{name}' takes a {kind.__name__}.",
            allowed="the target with this name, or some of its fields",
            next_step="correct one of both; 'sdcompress list targets' lists the names",
        )
    try:
        return kind.model_validate(dict(settings or {}))
    except ValidationError as error:
        raise explain(error, kind, f"the settings of '{name}'", _settings_error) from error


def _settings_error(problem: str, *, allowed: str, next_step: str) -> UsageError:  # noqa: ARG001 - explain's is for recipes
    return UsageError(problem, allowed=allowed, next_step="'sdcompress list targets --json' names the settings")


def _opened(source: Folder) -> Artifact:
    try:
        return open_artifact(source)
    except ArtifactError as error:
        if not (Path(source) / _RECORD).is_file():
            raise
        raise UsageError(
            f"'{source}' is a package already.",
            allowed="the artifact that it was made from",
            next_step=f"the key artifact in {Path(source) / _RECORD} is its digest",
        ) from error


def _guarantee(artifact: Artifact) -> str:
    manifest = artifact.manifest
    assert manifest.policy is not None, "write refuses a cascade without a policy"
    return guarantee(manifest.policy, manifest.certificate, artifact.task)


def _write_sums(folder: Path) -> None:
    names = sorted(name for name, _ in walk(folder))
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in names]
    (folder / _SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")


def _listed(folder: Path) -> set[str]:
    """Return the names of the files of a package, and of the compiled programs that Python puts beside them."""
    try:
        lines = (folder / _SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return set()
    names = {line.partition("  ")[2] for line in lines}
    compiled = (path.relative_to(folder) for path in folder.glob("**/__pycache__/*.pyc"))
    programs = {path.as_posix() for path in compiled if f"{path.parents[1] / path.name.partition('.')[0]}.py" in names}
    return {_SUMS, *names, *programs}
