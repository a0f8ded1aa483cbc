"""The provenance of an artifact: recipe, weights, data, commit, versions, command."""

from __future__ import annotations

import datetime as dt
import platform
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from sdcompress.checkpoint import Checkpoint
from sdcompress.schema.manifest import Provenance
from sdcompress.schema.recipe import Export
from sdcompress.storage import digest_of

__all__ = ["git_commit", "provenance"]


def provenance(checkpoint: Checkpoint, settings: Export) -> Provenance:
    """The provenance of an artifact that is exported now from a checkpoint, with these settings in its recipe."""
    recipe = checkpoint.recipe.model_copy(update={"export": settings}).model_dump(mode="json")
    exporters = {package: version(package) for package in ("sdcompress", "torch", "onnx", "onnxscript", "onnxruntime")}
    return Provenance(
        created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        recipe=recipe,
        recipe_sha256=digest_of(recipe),
        weights_sha256=checkpoint.weights_sha256,
        data_fingerprint=checkpoint.data_fingerprint,
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        git_commit=git_commit(),
        pruned=checkpoint.state.pruned.rounds if checkpoint.state.pruned else (),
        teacher_sha256=checkpoint.state.teacher.weights_sha256 if checkpoint.state.teacher else None,
        versions={**checkpoint.state.versions, **exporters, "python": platform.python_version()},
    )


def git_commit() -> str | None:
    """Return the commit of the working directory, with "-dirty" if files differ; None outside a repository."""
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command
    return completed.stdout.strip() or None if completed.returncode == 0 else None
