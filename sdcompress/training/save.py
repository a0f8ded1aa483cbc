"""Writing a checkpoint and going on from it, bit for bit: tensors as safetensors, everything else as JSON."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor, nn

from sdcompress.checkpoint import STATE, STEPS, Checkpoint
from sdcompress.schema.manifest import FileEntry
from sdcompress.schema.training import TrainingState
from sdcompress.storage import digest_of, sha256_of, staged_folder, write_text
from sdcompress.training.sharding import load, placed_as, whole

__all__ = ["Resumable", "restore", "save"]

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


def save(out: Path, now: Resumable, *, write: bool = True, **facts: Any) -> Path:
    """Write ``out/steps/<step>`` as a whole and remove all but the newest two.

    Args:
        out: folder of the training run.
        now: what to keep.
        write: whether this process writes; all processes must call, because each may hold a share of the weights.
        facts: the other fields of ``TrainingState``.

    Returns:
        The folder of the checkpoint.
    """
    folder = out / STEPS / f"{facts['step']:08d}"
    weights, training, numbers = _tensors(now, keep=write)
    if not write:
        return folder
    if folder.exists():  # the same step again, e.g. an epoch's end and the run's end
        shutil.rmtree(folder)
    with staged_folder(folder) as staging:
        # safetensors' own save_file ignores the umask, and a full disk is no OSError to it
        (staging / "weights.safetensors").write_bytes(serialise(weights))
        (staging / "training.safetensors").write_bytes(serialise(training))
        fields = {
            "weights": _entry(staging / "weights.safetensors"),
            "training": _entry(staging / "training.safetensors"),
            "optimizer": numbers,
            "scaler": now.scaler,
            "versions": _versions(),
            **facts,
        }
        draft = TrainingState.model_construct(**fields)
        written = draft.model_dump(mode="json", exclude={"digest"}, warnings="none")
        state = TrainingState.model_validate({**written, "digest": digest_of(written)})
        write_text(staging / STATE, state.model_dump_json(indent=1))
    complete = sorted((out / STEPS).glob("[0-9]*"))
    for old in complete[:-KEPT]:
        shutil.rmtree(old)
    return folder


def restore(checkpoint: Checkpoint, now: Resumable) -> None:
    """Put a checkpoint's tensors into a freshly built run; ``now.scaler`` is replaced."""
    training = load_file(checkpoint.path / checkpoint.state.training.file)
    weights = load_file(checkpoint.path / checkpoint.state.weights.file)
    if now.average is None:
        load(now.net, weights)
    else:
        load(now.average, weights)
        load(now.net, _under("net.", training))
    load(now.state, _under("method.", training))
    if now.teacher is not None:
        load(now.teacher, _under("teacher.", training))
    parameters = [parameter for group in now.optimizer.param_groups for parameter in group["params"]]
    kept: dict[int, dict[str, Any]] = {}
    for key, value in {**_under("optimizer.", training), **checkpoint.state.optimizer}.items():
        index, _, name = key.partition(".")
        kept.setdefault(int(index), {})[name] = _laid_out_as(parameters[int(index)], value)
    # hyper-parameters come from the recipe, which is the same; only what was learnt comes from the checkpoint
    now.optimizer.load_state_dict({**now.optimizer.state_dict(), "state": kept})
    now.scaler = dict(checkpoint.state.scaler)


def _tensors(now: Resumable, *, keep: bool) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    weights = _plain("", (now.average or now.net).state_dict(), keep=keep)
    training = _plain("net.", now.net.state_dict(), keep=keep) if now.average is not None else {}
    training |= _plain("method.", now.state.state_dict(), keep=keep)
    if now.teacher is not None:
        training |= _plain("teacher.", now.teacher.state_dict(), keep=keep)
    learnt: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, values in now.optimizer.state_dict()["state"].items():
        for name, value in values.items():
            (learnt if isinstance(value, Tensor) else numbers)[f"{index}.{name}"] = value
    return weights, training | _plain("optimizer.", learnt, keep=keep), numbers


def _plain(prefix: str, tensors: dict[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """The whole tensors on the CPU; none if they are not to be kept, gathered all the same for those who keep them."""
    gathered = ((prefix + name, whole(tensor)) for name, tensor in tensors.items())
    # safetensors takes neither strided layouts nor two names for one storage (tied weights)
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in gathered if keep
    }


def _laid_out_as(parameter: Tensor, value: Any) -> Any:
    # a fused optimiser walks through parameter and momentum side by side, as they lie in memory
    if isinstance(value, Tensor) and value.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=value.dtype).copy_(placed_as(parameter, value))
    return value


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _entry(path: Path) -> FileEntry:
    return FileEntry(file=path.name, sha256=sha256_of(path), bytes=path.stat().st_size)


def _versions() -> dict[str, str]:
    installed = {found.name: found.version for found in distributions()}
    packages = ("sdcompress", "torch", "torchvision", "timm", "lightning-fabric", "numpy")
    return {package: installed[package] for package in packages if package in installed}
