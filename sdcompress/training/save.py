"""Save a checkpoint and resume from it, bit for bit: tensors as safetensors, everything else as JSON."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialise
from torch import Tensor, nn

from sdcompress.checkpoint import STATE, STEPS, Checkpoint, broken_checkpoint, checkpoints, no_training, read_tensors
from sdcompress.modalities import Modality
from sdcompress.schema.manifest import FileEntry
from sdcompress.schema.training import TrainingState
from sdcompress.storage import digest_of, sha256_of, staged_folder, write_text
from sdcompress.training.sharding import distribute_like, full_value, load

__all__ = ["Resumable", "package_versions", "restore", "save"]

# what torch's optimisers keep of each parameter
_LEARNT = {torch.optim.SGD: {"momentum_buffer"}, torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"}}
KEPT = 2  # a checkpoint that turns out broken still has one before it


@dataclass
class Resumable:
    """Everything that changes while training.

    Attributes:
        net: the network.
        state: the method's adapters and memories.
        optimizer: torch's own, not a wrapper of it.
        average: the averaged network, if there is one.
        teacher: the network that teaches, if there is one besides the method's state.
        scaler: the loss scale of fp16, or empty.
    """

    net: nn.Module
    state: nn.Module
    optimizer: torch.optim.Optimizer
    average: nn.Module | None
    teacher: nn.Module | None
    scaler: dict[str, int | float]


def save(out: Path, resumable: Resumable, modality: Modality, *, write: bool = True, **facts: Any) -> Path:
    """Write ``out/steps/<step>`` as a whole and remove all but the newest two.

    Args:
        out: folder of the training run.
        resumable: what to keep.
        modality: of the network; its files are kept too.
        write: whether this process writes; all processes must call, because each may hold a share of the weights.
        facts: the other fields of ``TrainingState``.

    Returns:
        The folder of the checkpoint.
    """
    folder = out / STEPS / f"{facts['step']:08d}"
    weights, training, numbers = _tensors(resumable, keep=write)
    if not write:
        return folder
    if folder.exists():  # the same step again, e.g. an epoch's end and the run's end
        shutil.rmtree(folder)
    with staged_folder(folder) as staging:
        # safetensors' own save_file ignores the umask, and a full disk is no OSError to it
        (staging / "weights.safetensors").write_bytes(serialise(weights))
        (staging / "training.safetensors").write_bytes(serialise(training))
        modality.copy_files(staging)
        fields = {
            "modality": modality.record,
            "weights": _entry(staging / "weights.safetensors"),
            "training": _entry(staging / "training.safetensors"),
            "optimizer": numbers,
            "scaler": resumable.scaler,
            "versions": package_versions(),
            **facts,
        }
        draft = TrainingState.model_construct(**fields)
        written = draft.model_dump(mode="json", exclude={"digest"}, warnings="none")
        state = TrainingState.model_validate({**written, "digest": digest_of(written)})
        write_text(staging / STATE, state.model_dump_json(indent=1))
    for old in checkpoints(out)[:-KEPT]:
        shutil.rmtree(old)
    return folder


def restore(checkpoint: Checkpoint, resumable: Resumable, *, all_learn: bool = False) -> None:
    """Put a checkpoint's tensors into a freshly built run; ``now.scaler`` is replaced.

    Args:
        checkpoint: what is restored.
        resumable: where it is put.
        all_learn: whether every parameter learns in every step, so that the optimiser has learnt something of each.

    Raises:
        CheckpointError: if 'prune' wrote it, or names, shapes or dtypes are not those of the run. All is compared
            before anything is loaded: a fused optimiser reads and writes as far as the parameter reaches, whatever its
            state holds.
    """
    weights = read_tensors(checkpoint.path / checkpoint.state.weights.file)
    training_file = checkpoint.state.training
    if training_file is None:
        raise no_training(checkpoint)
    training = read_tensors(checkpoint.path / training_file.file)
    parts = {
        "weights": (resumable.average or resumable.net, weights),
        "method": (resumable.state, _under("method.", training)),
    }
    if resumable.average is not None:
        parts["net"] = (resumable.net, _under("net.", training))
    if resumable.teacher is not None:
        parts["teacher"] = (resumable.teacher, _under("teacher.", training))
    for part, (module, tensors) in parts.items():
        _check_tensors(checkpoint, part, module.state_dict(), tensors)
    learnt = _optimizer_state(checkpoint, resumable.optimizer, _under("optimizer.", training))
    parameters = sum(len(group["params"]) for group in resumable.optimizer.param_groups)
    if all_learn and checkpoint.state.step and 0 < len(learnt) < parameters:
        raise broken_checkpoint(checkpoint.path, f"its optimizer knows {len(learnt)} of {parameters} parameters")
    for module, tensors in parts.values():
        load(module, tensors)
    # hyper-parameters come from the recipe, which is the same; only what was learnt comes from the checkpoint
    resumable.optimizer.load_state_dict({**resumable.optimizer.state_dict(), "state": learnt})
    resumable.scaler = dict(checkpoint.state.scaler)


def _check_tensors(
    checkpoint: Checkpoint, part: str, current: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> None:
    if missing := sorted(current.keys() ^ tensors.keys()):
        kind = "lacks" if missing[0] in current else "has, unlike the run,"
        raise broken_checkpoint(checkpoint.path, f"its {part} {kind} '{missing[0]}'")
    for name, value in tensors.items():
        _check_alike(checkpoint, f"{part}.{name}", current[name], value)


def _check_alike(checkpoint: Checkpoint, name: str, current: Tensor, value: Tensor) -> None:
    if (value.shape, value.dtype) != (current.shape, current.dtype):
        raise broken_checkpoint(
            checkpoint.path,
            f"{name} is {value.dtype} {[*value.shape]}, where the run has {current.dtype} {[*current.shape]}",
        )


def _optimizer_state(
    checkpoint: Checkpoint, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> dict[int, dict[str, Any]]:
    """Return the optimiser's state by parameter number, in the parameters' memory layout."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = {f"{index}": parameter for index, parameter in enumerate(parameters)}
    learnt: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **checkpoint.state.optimizer}.items():
        index, _, name = key.partition(".")
        if index not in numbers or name not in _LEARNT[type(optimizer)]:
            raise broken_checkpoint(checkpoint.path, f"its optimizer has '{key}', which the run's has not")
        parameter = numbers[index]
        expected = torch.empty((), dtype=torch.float32) if name == "step" else parameter
        if isinstance(value, Tensor):
            _check_alike(checkpoint, f"optimizer.{key}", expected, value)
        elif value is not None:
            raise broken_checkpoint(checkpoint.path, f"optimizer.{key} is no tensor")
        learnt.setdefault(int(index), {})[name] = value if name == "step" else _laid_out_as(parameter, value)
    for number, values in learnt.items():
        if lacking := _LEARNT[type(optimizer)] - values.keys():
            raise broken_checkpoint(checkpoint.path, f"its optimizer lacks '{number}.{min(lacking)}'")
    return learnt


def _tensors(resumable: Resumable, *, keep: bool) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    weights = _plain("", (resumable.average or resumable.net).state_dict(), keep=keep)
    training = _plain("net.", resumable.net.state_dict(), keep=keep) if resumable.average is not None else {}
    training |= _plain("method.", resumable.state.state_dict(), keep=keep)
    if resumable.teacher is not None:
        training |= _plain("teacher.", resumable.teacher.state_dict(), keep=keep)
    learnt: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, values in resumable.optimizer.state_dict()["state"].items():
        for name, value in values.items():
            (learnt if isinstance(value, Tensor) else numbers)[f"{index}.{name}"] = value
    return weights, training | _plain("optimizer.", learnt, keep=keep), numbers


def _plain(prefix: str, tensors: dict[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """The full tensors on the CPU; none if they are not kept here, but gathered for the process that keeps them."""
    gathered = ((prefix + name, full_value(tensor)) for name, tensor in tensors.items())
    # safetensors takes neither strided layouts nor two names for one storage (tied weights)
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in gathered if keep
    }


def _laid_out_as(parameter: Tensor, value: Tensor | None) -> Tensor | None:
    # a fused optimiser walks through parameter and momentum side by side, as they lie in memory
    return None if value is None else torch.empty_like(parameter).copy_(distribute_like(parameter, value))


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _entry(path: Path) -> FileEntry:
    return FileEntry(file=path.name, sha256=sha256_of(path), bytes=path.stat().st_size)


def package_versions() -> dict[str, str]:
    """Return the version of each installed package that decides what a network computes, by its name."""
    packages = ("sdcompress", "torch", "torchvision", "timm", "transformers", "lightning-fabric", "numpy")
    return {package: installed for package in packages if (installed := _version(package)) is not None}


@cache  # it is read from the disk
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
