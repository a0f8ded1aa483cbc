"""Run a frozen backbone once over the data and keep what heads see, in memory or on disk."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdcompress.data.samples import Samples, row_batches
from sdcompress.models.multiexit import MultiExit
from sdcompress.objectives.batch import Minibatch
from sdcompress.storage import clear_leftovers, digest_of, staged_folder
from sdcompress.training.batches import Positions
from sdcompress.training.sharding import full_value

__all__ = ["FeatureCache", "Form", "Plan", "bytes_of", "cache_folder", "fill", "key_of", "room_for"]

Features = tuple[npt.NDArray[np.float32], ...]
Run = Callable[[Positions], tuple[Tensor, ...]]
IN_MEMORY = 2**26  # bytes; more lies on disk


@dataclass(frozen=True)
class Plan:
    """How a split runs through the backbone.

    Attributes:
        samples: N of them.
        rows: of a pass. The bits of a product depend on it, so it is that of the training.
        padded: whether the last pass is filled up to as many rows, with samples that are there already.
        run: gives what heads see of the samples at some positions, on the device.
    """

    samples: int
    rows: int
    padded: bool
    run: Run

    def passes(self) -> Iterator[tuple[Positions, int]]:
        """Yield the positions of each pass, and how many of its rows are new."""
        for positions in row_batches(self.samples, self.rows):
            yield np.resize(positions, self.rows) if self.padded else positions, len(positions)


class Form(NamedTuple):
    """How the backbone gives a tensor, on which the bits of what is computed of it depend.

    Attributes:
        dtype: of its numbers.
        axes: in the order in which they lie in memory.
    """

    dtype: torch.dtype
    axes: tuple[int, ...]

    @classmethod
    def of(cls, values: Tensor) -> Form:
        """Return the form of a tensor."""
        strides = values.stride()
        return cls(values.dtype, tuple(sorted(range(values.dim()), key=lambda axis: -strides[axis])))

    def cast(self, values: Tensor) -> Tensor:
        """Return the same values in this form."""
        return torch.empty_permuted(values.shape, self.axes, dtype=self.dtype).copy_(values)


@dataclass(frozen=True)
class FeatureCache:
    """What heads see of a split's samples.

    Attributes:
        features: one array for each input of heads and of the output layer, float32 [N, ...] each.
        forms: of the tensors that they were; empty: float32, the axes in their order.
    """

    features: Features
    forms: tuple[Form, ...] = ()

    def at(self, positions: Positions) -> tuple[Tensor, ...]:
        """Return the rows of some samples, on the CPU."""
        rows = [torch.from_numpy(np.ascontiguousarray(array[positions])) for array in self.features]
        return tuple(form.cast(one) for form, one in zip(self.forms or map(Form.of, rows), rows, strict=True))

    def fetch(self, samples: Samples) -> Callable[[Positions], Minibatch]:
        """Return what fetches training samples with these inputs in the place of examples."""

        def fetch(index: Positions) -> Minibatch:
            return Minibatch(self.at(index), torch.from_numpy(samples.targets[index]), torch.from_numpy(index))

        return fetch


def key_of(net: MultiExit, facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all that decides what heads see: weights, where heads look, data, preparation, machine.

    Args:
        net: its backbone, and which maps or vectors are kept.
        facts: everything else, as JSON values.
    """
    digest = hashlib.sha256()
    for name, tensor in net.backbone.state_dict().items():
        if name not in net.classifier:  # it learns
            values = full_value(tensor).detach().cpu().contiguous()
            digest.update(f"{name}{values.dtype}{list(values.shape)}".encode())
            digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest_of({"weights": digest.hexdigest(), "taps": net.taps, "pooled": net.pooled_taps, **facts})


def cache_folder() -> Path:
    """Return where features are kept: ``sdcompress/features`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdcompress" / "features"


def room_for(size: int, limit: float, folder: Path) -> str | None:
    """Return why new features of that size cannot be kept; None: they can. Older ones are removed to make room.

    Args:
        size: bytes.
        limit: bytes, of all features together.
        folder: of all features.
    """
    if size > limit:
        return f"they take {size / 1e9:.2f} GB, and train.feature_cache_gb is {limit / 1e9:g}"
    if size <= IN_MEMORY:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(".*"):  # of killed processes; what another one is filling stays
        clear_leftovers(folder / path.name[1:].partition(".")[0])
    kept = {path: _last_use_and_bytes(path) for path in folder.glob("[!.]*") if path.is_dir()}
    for path in sorted(kept, key=lambda path: kept[path][0]):
        if sum(taken for _, taken in kept.values()) + size <= limit:
            break
        shutil.rmtree(path, ignore_errors=True)  # another process may do the same
        del kept[path]
    free = shutil.disk_usage(folder).free
    return None if size < free else f"they take {size / 1e9:.2f} GB, and {folder} has {free / 1e9:.2f} GB free"


def fill(plans: Mapping[str, Plan], shapes: tuple[tuple[int, ...], ...], folder: Path) -> dict[str, FeatureCache]:
    """Return what heads see of each split: read from the folder, or computed, and stored there where it is large.

    Args:
        plans: of each split.
        shapes: of what is kept of one sample.
        folder: of these features, named by their key; it is written in one step.
    """
    if folder.is_dir():
        os.utime(folder)  # the last ones used are the last to be removed
        return _opened(plans, len(shapes), folder)
    if bytes_of(plans, shapes) <= IN_MEMORY:
        return {
            split: _computed(plan, tuple(np.empty((plan.samples, *shape), np.float32) for shape in shapes))
            for split, plan in plans.items()
        }
    try:
        with staged_folder(folder) as staging:
            for split, plan in plans.items():
                _computed(
                    plan,
                    tuple(
                        np.lib.format.open_memmap(_file(staging, split, at), "w+", np.float32, (plan.samples, *shape))
                        for at, shape in enumerate(shapes)
                    ),
                )
    except OSError:
        if not folder.is_dir():  # otherwise another process was faster, with the same features
            raise
    return _opened(plans, len(shapes), folder)


def bytes_of(plans: Mapping[str, Plan], shapes: tuple[tuple[int, ...], ...]) -> int:
    """Return the bytes of what heads see of all samples."""
    return sum(plan.samples for plan in plans.values()) * sum(4 * int(np.prod(shape)) for shape in shapes)


def _last_use_and_bytes(folder: Path) -> tuple[float, int]:
    try:
        return folder.stat().st_mtime, sum(file.stat().st_size for file in folder.iterdir())
    except FileNotFoundError:  # another process has just removed it
        return 0.0, 0


def _computed(plan: Plan, features: Features) -> FeatureCache:
    for positions, count in plan.passes():
        for array, values in zip(features, plan.run(positions), strict=True):
            array[positions[:count]] = values[:count].float().cpu().numpy()
    return FeatureCache(features)


def _opened(plans: Mapping[str, Plan], count: int, folder: Path) -> dict[str, FeatureCache]:
    return {
        split: FeatureCache(tuple(np.load(_file(folder, split, at), mmap_mode="r") for at in range(count)))
        for split in plans
    }


def _file(folder: Path, split: str, at: int) -> Path:
    return folder / f"{split}-{at}.npy"
