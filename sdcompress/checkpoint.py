"""The checkpoint: a folder with weights, the state for exact resume, and the record of both. No pickle.

A training run keeps its checkpoints under ``steps/<step>/``; each is written beside its place and renamed when whole.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from sdcompress import data
from sdcompress.errors import CheckpointError, requires_extra
from sdcompress.schema.manifest import FileEntry, Preprocess
from sdcompress.schema.recipe import Recipe
from sdcompress.schema.training import TrainingState
from sdcompress.storage import digest_of, sha256_of

if TYPE_CHECKING:
    from torch import Tensor

    from sdcompress.data.samples import Dataset
    from sdcompress.models.multiexit import MultiExit

__all__ = ["METRICS", "STATE", "STEPS", "Checkpoint", "newest", "open_checkpoint", "read_metrics"]

STATE = "state.json"
STEPS = "steps"
METRICS = "metrics.jsonl"
UNDERSTOOD = 1


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint, its files checked.

    Attributes:
        path: its folder.
        state: what it holds.
    """

    path: Path
    state: TrainingState

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe that it was trained by."""
        return self.state.recipe

    @property
    def weights_sha256(self) -> str:
        """Identity of the weights that are evaluated and exported."""
        return self.state.weights.sha256

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes."""
        return self.state.classes

    @property
    def image(self) -> tuple[int, int, int]:
        """C, H, W of the network's input."""
        return self.state.image

    @property
    def preprocess(self) -> Preprocess:
        """From an image to the network's input."""
        return self.state.preprocess

    @property
    def data_fingerprint(self) -> str:
        """Identity of the data and its split."""
        return self.state.data_fingerprint

    def network(self) -> MultiExit:
        """The trained network on the CPU in evaluation mode; with averaged weights where EMA was on.

        Raises:
            CheckpointError: if the weights do not fit the network of the recipe.
            MissingExtraError: if torch is not installed.
        """
        with requires_extra("train"):
            from sdcompress.models.build import build  # torch only where a network is asked for
        recipe = self.recipe
        tensors = self.tensors()
        heads = any(name.startswith("heads.") for name in tensors)
        # other weights would be fetched only to be overwritten
        net = build(recipe.model.untrained, recipe.exits, classes=len(self.classes), image=self.image, heads=heads)
        try:
            net.load_state_dict(tensors)
        except RuntimeError as error:
            raise CheckpointError(
                f"The weights in {self.path} do not fit '{recipe.model.name}': {str(error).splitlines()[0]}",
                allowed="weights of the network that the recipe builds",
                next_step="use the version of the backbone's package that trained it: "
                + ", ".join(f"{name} {version}" for name, version in self.state.versions.items()),
            ) from error
        return net.eval()

    def tensors(self) -> dict[str, Tensor]:
        """The weights that are evaluated and exported, by their names in the network.

        Raises:
            MissingExtraError: if torch is not installed.
        """
        with requires_extra("train"):
            from safetensors.torch import load_file
        found: dict[str, Tensor] = load_file(self.path / self.state.weights.file)
        return found

    def dataset(self, data_dir: Path | str | None = None) -> Dataset:
        """The data that it was trained on, loaded by its recipe.

        Args:
            data_dir: where the data lies on this machine, if elsewhere than in the recipe.

        Raises:
            DataError: if the data or its split is not the same.
        """
        return data.load(self.recipe.data.at(data_dir), seed=self.recipe.seed, fingerprint=self.data_fingerprint)


def newest(folder: Path) -> Path | None:
    """The newest complete checkpoint of a training run, or None."""
    steps = [path for path in (folder / STEPS).glob("[0-9]*") if (path / STATE).is_file()]
    return max(steps, key=lambda path: int(path.name), default=None)


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Open a checkpoint and check its files.

    Args:
        path: a checkpoint, or the folder of a training run, whose newest checkpoint is taken.

    Raises:
        CheckpointError: if there is none, or it was truncated, edited or written by a newer version.
    """
    path = Path(path)
    folder = path if (path / STATE).is_file() else newest(path)
    if folder is None and path.is_file():
        raise _no_folder(path)
    if folder is None:
        raise CheckpointError(
            f"There is no checkpoint in {path}.",
            allowed=f"a folder with {STATE}, or the folder of a training run (with {STEPS}/)",
            next_step=f"train one: sdcompress train -c recipe.yaml --out {path}",
        )
    state = _read(folder / STATE)
    for entry in (state.weights, state.training):
        _check(folder, entry)
    return Checkpoint(folder, state)


def _no_folder(path: Path) -> CheckpointError:
    inside = (path.parent / STATE).is_file()
    return CheckpointError(
        f"{path} is a file, and a checkpoint is a folder: weights with the record of how they were trained.",
        allowed=f"a folder with {STATE}, or the folder of a training run (with {STEPS}/)",
        next_step=f"name its folder: {path.parent}"
        if inside
        else "load the file in a function of your own that returns the network, and name that: "
        "model.name=your_module:your_function; for timm: model.pretrained=true with "
        f"model.options={{pretrained_cfg_overlay: {{file: {path}}}}}",
    )


def read_metrics(folder: Path) -> tuple[dict[str, float], ...]:
    """The lines of a training run's metrics.jsonl, one per epoch; empty if there is none."""
    path = folder / METRICS
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    # a full disk or a kill can leave half of the last line
    return tuple(json.loads(line) for line in lines if line.endswith("\n"))


def _read(path: Path) -> TrainingState:
    text = path.read_bytes()
    _check_schema(path, text)
    try:
        state = TrainingState.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        raise _broken(path.parent, f"{STATE}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error
    # of the fields as they were written: a recipe of an older version lacks keys that have a default now
    if state.digest != digest_of({key: value for key, value in json.loads(text).items() if key != "digest"}):
        raise _broken(path.parent, f"{STATE} was edited: its digest does not fit")
    return state


def _check_schema(path: Path, text: bytes) -> None:
    """Tell a checkpoint of a newer sdcompress from a broken one: that one must not be removed."""
    try:
        found = json.loads(text).get("schema_version", UNDERSTOOD)
    except (ValueError, AttributeError):
        return  # broken; what reads it next says how
    if isinstance(found, int) and found > UNDERSTOOD:
        raise CheckpointError(
            f"The checkpoint {path.parent} has the schema version {found}.",
            allowed=f"up to {UNDERSTOOD}, which this version of sdcompress reads",
            next_step="pip install --upgrade sdcompress",
        )


def _check(folder: Path, entry: FileEntry) -> None:
    file = folder / entry.file
    if not file.is_file():
        raise _broken(folder, f"{entry.file} is missing")
    if (size := file.stat().st_size) != entry.bytes:
        raise _broken(folder, f"{entry.file} has {size} bytes instead of {entry.bytes}")
    if sha256_of(file) != entry.sha256:
        raise _broken(folder, f"{entry.file} was changed: its SHA-256 does not fit")


def _broken(folder: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"The checkpoint {folder} is not intact: {why}.",
        next_step=f"remove the folder {folder}; training then goes on from the checkpoint before it",
    )
