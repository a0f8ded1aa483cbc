"""Checkpoints: folders with weights, the state for an exact resume, and a record of both. No pickle.

A training run writes its checkpoints to ``steps/<step>/``, each atomically.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from sdcompress import modalities, tasks
from sdcompress.errors import ArtifactError, CheckpointError, requires_extra
from sdcompress.modalities import Modality
from sdcompress.models.backbones import is_users_own
from sdcompress.schema.manifest import FileEntry
from sdcompress.schema.pruning import UNDERSTOOD as PRUNED
from sdcompress.schema.recipe import Recipe
from sdcompress.schema.training import TrainingState
from sdcompress.storage import digest_of, sha256_of
from sdcompress.tasks import Task
from sdcompress.untrusted import Refused, parse_json, read_bytes
from sdcompress.user_code import check_trusted

if TYPE_CHECKING:
    from torch import Tensor

    from sdcompress.models.multiexit import MultiExit

__all__ = [
    "METRICS",
    "STATE",
    "STEPS",
    "Checkpoint",
    "broken_checkpoint",
    "checkpoints",
    "is_artifact",
    "newest",
    "no_training",
    "open_checkpoint",
    "read_metrics",
    "read_tensors",
    "start_setting",
    "step_of",
]

STATE = "state.json"
STEPS = "steps"
METRICS = "metrics.jsonl"
UNDERSTOOD = 2
_ARTIFACT = ("manifest.json", "golden.npz")  # the first alone proves nothing: many programs write one
_WEIGHTS = {".bin", ".ckpt", ".pt", ".pth", ".safetensors"}  # suffixes of weight files

_MAX_STATE_BYTES = 2**24  # bytes
_METRICS = TypeAdapter(dict[str, float])


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were checked.

    Attributes:
        path: its folder.
        state: its record.
    """

    path: Path
    state: TrainingState

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe of the training."""
        return self.state.recipe

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights that are evaluated and exported."""
        return self.state.weights.sha256

    @cached_property
    def task(self) -> Task:
        """What its outputs mean.

        Raises:
            CheckpointError: if this version has no such task, or it has other parameters.
        """
        record = self.state.task
        with self._entries():
            return tasks.restore(record.name, self.state.outputs, record.parameters)

    @cached_property
    def modality(self) -> Modality:
        """What it is given.

        Raises:
            CheckpointError: if this version has no such modality, or it has other parameters.
        """
        record = self.state.modality
        with self._entries():
            return modalities.restore(record.name, record.parameters).located(self.path)

    @contextmanager
    def _entries(self) -> Iterator[None]:
        try:
            yield
        except ArtifactError as error:
            raise CheckpointError(
                f"The checkpoint {self.path} cannot be used here: {error.problem}",
                allowed=error.allowed,
                next_step=error.next_step,
            ) from error

    @property
    def data_fingerprint(self) -> str:
        """Fingerprint of the data and its split."""
        return self.state.data_fingerprint

    def network(self, *, trust_modules: bool = False) -> MultiExit:
        """Build the trained network on the CPU in evaluation mode; with EMA, its weights are the averaged ones.

        Args:
            trust_modules: import the module that the recipe names, even if the user did not train it here.

        Raises:
            CheckpointError: if the weights do not match the network of the recipe.
            MissingExtraError: if torch is not installed.
            UsageError: if it names a module that is not trusted, see ``sdcompress.user_code``.
        """
        recipe = self.recipe
        if is_users_own(recipe.model.name):
            check_trusted(self.path, recipe.model.name, recipe.model.options, trust=trust_modules)
        with requires_extra("train"):
            from sdcompress.models.build import build  # imports torch
        tensors = self.tensors()
        heads = any(name.startswith("heads.") for name in tensors)
        # without pretrained weights, which would be overwritten
        outputs, inputs = self.task.output_shape, self.modality.tensors
        model = recipe.model.untrained
        model = model.model_copy(update={"options": model.options | self.state.backbone_options})
        net = build(model, recipe.exits, outputs=outputs, inputs=inputs, heads=heads, cuts=self.state.pruned)
        try:
            net.load_state_dict(tensors)
        except RuntimeError as error:
            raise CheckpointError(
                f"The weights in {self.path} do not match '{recipe.model.name}': {str(error).splitlines()[0]}",
                allowed="weights of the network that the recipe builds",
                next_step="install the versions it was trained with: "
                + ", ".join(f"{name} {version}" for name, version in self.state.versions.items()),
            ) from error
        return net.eval()

    def tensors(self) -> dict[str, Tensor]:
        """Read the weights that are evaluated and exported, by their names in the network.

        Raises:
            CheckpointError: if the file is not a safetensors file.
            MissingExtraError: if torch is not installed.
        """
        return read_tensors(self.path / self.state.weights.file)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file of a checkpoint, on the CPU.

    Raises:
        CheckpointError: if the file is not a safetensors file. A matching digest does not prove it.
        MissingExtraError: if torch is not installed.
    """
    with requires_extra("train"):
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, KeyError, OSError, ValueError) as error:  # KeyError: a dtype unknown to torch
        raise broken_checkpoint(path.parent, f"{path.name} is not a safetensors file: {error}") from error
    return tensors


def newest(folder: Path) -> Path | None:
    """Return the newest complete checkpoint of a training run, or None."""
    return next(reversed(checkpoints(folder)), None)


def checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints of a training run, oldest first. Folders with other names are ignored."""
    steps = {path: step_of(path) for path in (folder / STEPS).glob("[0-9]*") if (path / STATE).is_file()}
    return sorted((path for path, step in steps.items() if step is not None), key=lambda path: int(path.name))


def step_of(path: Path) -> int | None:
    """Return the step in the name of a checkpoint folder, or None for other names."""
    return int(path.name) if re.fullmatch("[0-9]{8,18}", path.name) else None


def open_checkpoint(source: Checkpoint | Path | str) -> Checkpoint:
    """Open a checkpoint and check its files; what is opened already is given back as it is.

    Args:
        source: a checkpoint, or a training run, whose newest checkpoint is opened.

    Raises:
        CheckpointError: if there is none, or it was truncated, edited or written by a newer version.
    """
    if isinstance(source, Checkpoint):
        return source
    path = Path(source)
    try:
        folder = path if (path / STATE).is_file() else newest(path)
        if folder is None and (path.is_file() or path.suffix in _WEIGHTS):
            raise _no_folder(path)
        if folder is None and is_artifact(path):
            raise CheckpointError(
                f"{path} is an artifact: it holds graphs, and no weights that a training could take.",
                allowed=f"a folder with {STATE}, or the folder of a training run (with {STEPS}/)",
                next_step="name the training that it was exported from: provenance in its manifest.json has the "
                "SHA-256 of its weights",
            )
        if folder is None:
            raise CheckpointError(
                f"There is no checkpoint in {path}.",
                allowed=f"a folder with {STATE}, or the folder of a training run (with {STEPS}/)",
                next_step=f"train one: sdcompress train -c recipe.yaml --out {shlex.quote(str(path))}",
            )
        state = _read(folder / STATE)
        for entry in (state.weights, state.training, *state.modality.files.values()):
            if entry is not None:
                _check(folder, entry)
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or path} cannot be read: {error.strerror or error}.",
            allowed="a checkpoint whose files and folders this user may read",
            next_step="check its permissions",
        ) from error
    return Checkpoint(folder, state)


def is_artifact(folder: Path) -> bool:
    """Return whether a folder is an artifact by the names of its files."""
    return all((folder / name).is_file() for name in _ARTIFACT)


def _no_folder(path: Path) -> CheckpointError:
    inside = (path.parent / STATE).is_file()
    start = f"to start a training from it: sdcompress train -c recipe.yaml --set {start_setting(path)}"
    if path.suffix == ".onnx":
        start = "name the folder that 'sdcompress export' wrote; it does not read graphs of other programs"
    return CheckpointError(
        f"{path} is {'a file' if path.exists() else 'not there'}, and a checkpoint is a folder: weights with the "
        "record of how they were trained.",
        allowed=f"a folder with {STATE}, or the folder of a training run (with {STEPS}/)",
        next_step=f"name its folder: {path.parent}" if inside else start,
    )


def start_setting(path: Path) -> str:
    """Return the setting by which a training starts from these weights, as a shell takes it."""
    return shlex.quote(f"model.weights={path}")


def read_metrics(folder: Path) -> tuple[dict[str, float], ...]:
    """Read metrics.jsonl of a training run, one line for each epoch; empty if there is none.

    Raises:
        CheckpointError: if a line is not an object of numbers, or the file is unreadable.
    """
    path = folder / METRICS
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.", next_step="check its permissions") from error
    # a full disk or a killed process may leave a partial last line
    return tuple(_metrics(path, number, line) for number, line in enumerate(lines, 1) if line.endswith("\n"))


def _metrics(path: Path, number: int, line: str) -> dict[str, float]:
    try:
        metrics: dict[str, float] = _METRICS.validate_json(line)
        if not {"epoch", "step"} <= metrics.keys():
            raise Refused("it lacks 'epoch' or 'step'")
    except (ValidationError, Refused) as error:
        problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise CheckpointError(
            f"Line {number} of {path} is damaged: {problem}.",
            allowed="a JSON object of numbers, with 'epoch' and 'step'",
            next_step="remove that line; training does not read it",
        ) from error
    return metrics


def _read(path: Path) -> TrainingState:
    try:
        text = read_bytes(path, _MAX_STATE_BYTES, follow=True)
        fields = parse_json(text)
    except Refused as error:
        raise broken_checkpoint(path.parent, f"{STATE}: {error}") from error
    _check_schema(path, fields)
    _check_pruned(path, fields)
    try:
        state = TrainingState.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        raise broken_checkpoint(
            path.parent, f"{STATE}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
        ) from error
    # the digest covers the fields as written, without defaults that validation adds
    if state.digest != digest_of({key: value for key, value in fields.items() if key != "digest"}):
        raise broken_checkpoint(path.parent, f"{STATE} was edited: its digest does not match")
    return state


def _check_schema(path: Path, fields: Any) -> None:
    """Refuse a checkpoint of another version, which is not damaged and must not be removed."""
    version = fields.get("schema_version", UNDERSTOOD) if isinstance(fields, dict) else UNDERSTOOD
    if isinstance(version, int) and version != UNDERSTOOD:
        raise CheckpointError(
            f"The checkpoint {path.parent} has the schema version {version}.",
            allowed=f"{UNDERSTOOD}, which this version of sdcompress reads",
            next_step="pip install --upgrade sdcompress"
            if version > UNDERSTOOD
            else "train it again with this version, or use the version that wrote it",
        )


def _check_pruned(path: Path, fields: Any) -> None:
    """Refuse a record of pruning of another version, which is not damaged either."""
    record = fields.get("pruned") if isinstance(fields, dict) else None
    version = record.get("version", PRUNED) if isinstance(record, dict) else PRUNED
    if version != PRUNED:
        raise CheckpointError(
            f"The checkpoint {path.parent} was pruned by another version of sdcompress: its record of kept channels "
            f"has the version {version}.",
            allowed=f"{PRUNED}, which this version reads",
            next_step="use the version that wrote it, or prune the checkpoint before it again",
        )


def _check(folder: Path, entry: FileEntry) -> None:
    file = folder / entry.file
    if not file.is_file():
        raise broken_checkpoint(folder, f"{entry.file} is missing")
    if (size := file.stat().st_size) != entry.bytes:
        raise broken_checkpoint(folder, f"{entry.file} has {size} bytes instead of {entry.bytes}")
    if sha256_of(file) != entry.sha256:
        raise broken_checkpoint(folder, f"{entry.file} was changed: its SHA-256 does not match")


def no_training(checkpoint: Checkpoint) -> CheckpointError:
    """Return the error for a checkpoint that 'prune' wrote, where a training was to go on from it."""
    return CheckpointError(
        f"{checkpoint.path} was written by 'prune', and there is no training in it that could go on.",
        allowed="a training run",
        next_step=f"fine-tune it: sdcompress train -c recipe.yaml --set {start_setting(checkpoint.path)}",
    )


def broken_checkpoint(folder: Path, why: str) -> CheckpointError:
    """Return the error for a checkpoint that was truncated, edited or damaged.

    Args:
        folder: of the checkpoint.
        why: the problem, as the end of a sentence.
    """
    return CheckpointError(
        f"The checkpoint {folder} is not intact: {why}.",
        next_step=f"remove the folder {folder}; training then resumes from the checkpoint before it",
    )
