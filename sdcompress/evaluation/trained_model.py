"""Open a trained network, an artifact or a checkpoint, with its engine, its recipe and its data."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from sdcompress.artifact.read import MANIFEST, Artifact, open_artifact
from sdcompress.checkpoint import Checkpoint, open_checkpoint
from sdcompress.data.samples import Dataset
from sdcompress.errors import ArtifactError, CheckpointError, UsageError
from sdcompress.options import EngineOptions, Options
from sdcompress.runtime.engine import Engine
from sdcompress.runtime.open import EAGER, USUAL, open_engine
from sdcompress.schema.recipe import Recipe

__all__ = ["TrainedModel", "open_trained_model"]


@dataclass(frozen=True)
class TrainedModel:
    """A trained network on disk, its files checked.

    Attributes:
        path: the folder as given.
        opened: its artifact or checkpoint.
        options: folder of the data, trusted modules, and defaults of its engine.
    """

    path: Path
    opened: Artifact | Checkpoint
    options: Options

    @property
    def kind(self) -> Literal["artifact", "checkpoint"]:
        """Return whether the folder holds an artifact or a checkpoint."""
        return "artifact" if isinstance(self.opened, Artifact) else "checkpoint"

    @property
    def digest(self) -> str:
        """Return the artifact's digest, or the SHA-256 of the checkpoint's weights."""
        opened = self.opened
        return opened.manifest.digest if isinstance(opened, Artifact) else opened.weights_sha256

    @property
    def data_fingerprint(self) -> str:
        """Return the fingerprint of the data that it was trained on."""
        opened = self.opened
        return opened.manifest.provenance.data_fingerprint if isinstance(opened, Artifact) else opened.data_fingerprint

    @cached_property
    def recipe(self) -> Recipe:
        """Return the recipe of its training.

        Raises:
            ArtifactError: if another version of sdcompress wrote it in another form.
        """
        if isinstance(self.opened, Checkpoint):
            return self.opened.recipe
        try:
            return Recipe.model_validate(self.opened.manifest.provenance.recipe)
        except ValidationError as error:
            raise ArtifactError(
                f"The recipe in {self.path} is not one that this version reads: {error.errors()[0]['msg']}.",
                next_step="use the version of sdcompress that wrote it, see provenance.versions in its manifest",
            ) from error

    def artifact(self, *, allowed: str = "an artifact", next_step: str = "") -> Artifact:
        """Return the artifact.

        Args:
            allowed: in the error.
            next_step: in the error; default: export the checkpoint.

        Raises:
            UsageError: if the folder holds a checkpoint.
        """
        if isinstance(self.opened, Checkpoint):
            export = f"sdcompress export {shlex.quote(str(self.path))} --out ARTIFACT, and name that"
            raise UsageError(f"'{self.path}' is a checkpoint.", allowed=allowed, next_step=next_step or export)
        return self.opened

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint.

        Raises:
            UsageError: if the folder holds an artifact.
        """
        if isinstance(self.opened, Artifact):
            raise UsageError(
                f"'{self.path}' is an artifact, where a checkpoint is needed.",
                allowed="a checkpoint, or the folder of a training run",
                next_step="name the training that the artifact was exported from, that with the weights "
                f"{self.opened.manifest.provenance.weights_sha256[:12]}; of a calibrated cascade 'export' makes the "
                "layouts graph and if",
            )
        return self.opened

    def engine(self, options: EngineOptions | None = None) -> Engine:
        """Open an engine; raises the errors of ``open_engine``.

        Args:
            options: default: those of this network.

        Raises:
            UsageError: if a checkpoint shall run on another backend than torch, or an artifact on torch.
        """
        options = options or self.options
        if self.kind == "checkpoint" and options.backend not in {None, EAGER}:
            raise UsageError(
                f"'{self.path}' is a checkpoint, which the backend '{options.backend}' does not run.",
                allowed=f"{EAGER} (torch), which is the default for checkpoints",
                next_step=f"sdcompress export {shlex.quote(str(self.path))} --out FOLDER, and name that",
            )
        return open_engine(
            self.opened,
            backend=options.backend or (USUAL if self.kind == "artifact" else EAGER),
            threads=options.threads,
            device=options.device or "cpu",
            allow_uncertified=options.allow_uncertified,
            trust_modules=options.trust_modules,
        )

    def dataset(self) -> Dataset:
        """Return the data that it was trained on, with the same split.

        Its folder is that of the options, or else that of the recipe. The recipe does not decide about downloads,
        because a stranger may have written it.

        Raises:
            UsageError: if the data is a function of a module that is not trusted, see ``sdcompress.user_code``.
            DataError: if it is missing or differs, so that its validation samples may have been trained on.
        """
        options = self.options
        return options.datasets(
            self.recipe.data.at(options.data_dir, download=options.download),
            seed=self.recipe.seed,
            task=self.recipe.task,
            modality=self.opened.modality.with_own_files(self.recipe.modality),
            fingerprint=self.data_fingerprint,
            stored_in=self.opened.path,
            trust_modules=options.trust_modules,
        )


def open_trained_model(
    source: TrainedModel | Artifact | Checkpoint | Path | str, options: Options | None = None
) -> TrainedModel:
    """Open an artifact or a checkpoint, and check that it is intact.

    Args:
        source: a folder, or what was opened from it.
        options: folder of the data, trusted modules, and defaults of its engine.

    Raises:
        ArtifactError: if it is an artifact that is not intact.
        CheckpointError: if it is neither, or a checkpoint that is not intact.
    """
    options = options or Options()
    if isinstance(source, TrainedModel):
        return TrainedModel(source.path, source.opened, options)
    if isinstance(source, Artifact | Checkpoint):
        return TrainedModel(source.path, source, options)
    path = Path(source)
    if _is_missing(path):
        raise CheckpointError(
            f"{path} is not there.",
            allowed="the folder of an artifact or of a checkpoint",
            next_step="check the path, and whether the command that writes it ended without an error",
        )
    return TrainedModel(path, open_checkpoint(path) if _is_missing(path / MANIFEST) else open_artifact(path), options)


def _is_missing(path: Path) -> bool:
    """Return whether nothing has this name; opening what cannot be looked at reports what is wrong with it."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
