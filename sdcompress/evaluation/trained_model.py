"""What is measured: an artifact or a checkpoint, and the data that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from sdcompress import data
from sdcompress.artifact.read import MANIFEST, open_artifact
from sdcompress.checkpoint import open_checkpoint
from sdcompress.data.samples import Dataset
from sdcompress.errors import ArtifactError, UsageError
from sdcompress.runtime.engine import Engine
from sdcompress.runtime.open import EAGER, open_engine
from sdcompress.schema.recipe import Recipe

__all__ = ["TrainedModel", "open_trained_model"]


@dataclass(frozen=True)
class TrainedModel:
    """A trained network on disk.

    Attributes:
        kind: what the folder is.
        path: the folder as given.
        digest: the artifact's, or the SHA-256 of the checkpoint's weights.
        recipe: by which it was trained.
        data_fingerprint: of the data that it was trained on.
    """

    kind: Literal["artifact", "checkpoint"]
    path: Path
    digest: str
    recipe: Recipe
    data_fingerprint: str

    def engine(
        self,
        *,
        backend: str | None = None,
        threads: int | None = None,
        device: str = "cpu",
        allow_uncertified: bool = False,
        trust_modules: bool = False,
    ) -> Engine:
        """Ready to run; the arguments of ``open_engine``. Default: onnxruntime for an artifact, torch for a checkpoint.

        Raises:
            UsageError: if another backend than torch's is given for a checkpoint, or that for an artifact.
        """
        usual = "onnxruntime" if self.kind == "artifact" else EAGER
        if backend not in {None, usual} and self.kind == "checkpoint":
            raise UsageError(
                f"'{self.path}' is a checkpoint, which the backend '{backend}' does not run.",
                allowed=f"{EAGER} (torch), which is the default for checkpoints",
                next_step=f"sdcompress export {self.path} --out FOLDER, and name that",
            )
        if backend == EAGER and self.kind == "artifact":
            raise UsageError(
                f"'{self.path}' is an artifact, which the backend '{EAGER}' (torch, for checkpoints) does not run.",
                allowed="a backend of 'sdcompress list backends'",
                next_step="leave --backend out, or name the checkpoint",
            )
        return open_engine(
            self.path,
            backend=backend or usual,
            threads=threads,
            device=device,
            allow_uncertified=allow_uncertified,
            trust_modules=trust_modules,
        )

    def dataset(
        self, data_dir: Path | str | None = None, *, download: bool = False, trust_modules: bool = False
    ) -> Dataset:
        """The data it was trained on, with the same split.

        Args:
            data_dir: where the data lies on this machine, if elsewhere than in the recipe.
            download: let data that is not there be fetched. What the stored recipe says of it counts for nothing,
                as it may be a stranger's.
            trust_modules: import the module that the recipe's data names, also where nothing was trained on it here.

        Raises:
            UsageError: if the data is a function of a module that is not trusted, see ``sdcompress.user_code``.
            DataError: if it is not there or is not the same: its validation images may have been trained on.
        """
        spec = self.recipe.data.at(data_dir, download=download)
        return data.load(
            spec,
            seed=self.recipe.seed,
            fingerprint=self.data_fingerprint,
            stored_in=self.path,
            trust_modules=trust_modules,
        )


def open_trained_model(path: Path | str) -> TrainedModel:
    """Find out what a folder is, and check that it is intact.

    Raises:
        ArtifactError: if it is an artifact that is not intact.
        CheckpointError: if it is neither, or a checkpoint that is not intact.
    """
    path = Path(path)
    if not _has_manifest(path):
        checkpoint = open_checkpoint(path)
        return TrainedModel(
            "checkpoint", path, checkpoint.weights_sha256, checkpoint.recipe, checkpoint.data_fingerprint
        )
    manifest = open_artifact(path).manifest
    try:
        recipe = Recipe.model_validate(manifest.provenance.recipe)
    except ValidationError as error:
        raise ArtifactError(
            f"The recipe in {path} is not one that this version reads: {error.errors()[0]['msg']}.",
            next_step="use the version of sdcompress that wrote it, see provenance.versions in its manifest",
        ) from error
    return TrainedModel("artifact", path, manifest.digest, recipe, manifest.provenance.data_fingerprint)


def _has_manifest(path: Path) -> bool:
    """Whether there is a manifest of any kind, readable or not; what opens the folder says what is wrong with it."""
    try:
        (path / MANIFEST).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True
