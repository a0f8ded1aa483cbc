"""Write a pruned checkpoint, and check that it opens as the network that was pruned."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save as serialise
from torch import Tensor

from sdcompress.artifact.write import entry
from sdcompress.checkpoint import STATE, Checkpoint, open_checkpoint
from sdcompress.errors import CheckpointError
from sdcompress.models.multiexit import MultiExit
from sdcompress.schema.pruning import Pruned
from sdcompress.schema.training import TrainingState
from sdcompress.storage import digest_of, write_text
from sdcompress.training.save import package_versions

__all__ = ["pruned_files", "write_pruned"]

_WEIGHTS = "weights.safetensors"


def write_pruned(
    parent: Checkpoint,
    net: MultiExit,
    pruned: Pruned,
    folder: Path,
    example: tuple[Tensor, ...],
    *,
    trust_modules: bool,
) -> None:
    """Write the checkpoint of a pruned network into an empty folder, and open it again.

    Args:
        parent: the checkpoint that was pruned.
        net: after it.
        pruned: the record.
        folder: of the checkpoint.
        example: inputs of the network.
        trust_modules: import the module that the recipe names.

    Raises:
        CheckpointError: if what was written gives other outputs than the network.
    """
    weights = {name: tensor.detach().clone().contiguous() for name, tensor in net.state_dict().items()}
    (folder / _WEIGHTS).write_bytes(serialise(weights))
    parent.modality.copy_files(folder)
    fields = {
        "weights": entry(folder, _WEIGHTS),
        "training": None,
        "finished": True,
        "epoch_losses": {},
        "epoch_seconds": 0.0,
        "optimizer": {},
        "scaler": {},
        "versions": package_versions(),
        "pruned": pruned,
    }
    written = parent.state.model_copy(update=fields).model_dump(mode="json", exclude={"digest"})
    state = TrainingState.model_validate({**written, "digest": digest_of(written)})
    write_text(folder / STATE, state.model_dump_json(indent=1))
    _check(open_checkpoint(folder), net, example, trust_modules=trust_modules)


@torch.no_grad()
def _check(written: Checkpoint, net: MultiExit, example: tuple[Tensor, ...], *, trust_modules: bool) -> None:
    reopened = written.network(trust_modules=trust_modules)
    if not all(map(torch.equal, reopened(*example).logits, net(*example).logits)):
        raise CheckpointError(
            "The pruned network gives other outputs once it is built from its checkpoint; nothing was written.",
            allowed="a network whose shape follows from the recipe and the channels that it keeps",
            next_step="this network cannot be pruned; please report it",
        )


def pruned_files(folder: Path) -> set[str]:
    """Return the files of a pruned checkpoint; none if a folder holds something else."""
    try:
        state = open_checkpoint(folder).state
    except CheckpointError:
        return set()
    return {STATE, state.weights.file, *(file.file for file in state.modality.files.values())}
