"""prune: remove channels of a trained network."""

from __future__ import annotations

from pathlib import Path

from sdcompress import recipes
from sdcompress.artifact.output_path import check_outside
from sdcompress.checkpoint import Checkpoint
from sdcompress.errors import requires_extra
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.options import Options
from sdcompress.schema.recipe_compression import Prune
from sdcompress.verbs._types import Folder, Overrides, Source

__all__ = ["prune"]


def prune(
    source: Source,
    out: Folder,
    settings: Prune | Overrides | None = None,
    options: Options | None = None,
    *,
    overwrite: bool = False,
) -> Checkpoint:
    """Remove the least important channels, attention heads and hidden units of a trained network.

    Backbone and exits are pruned together, so that exits stay where they are. The result is a checkpoint without a
    training: evaluate or export it, fine-tune it with ``model.weights``, or prune it again. Its ``state.pruned``
    records which channels are kept, and the cost before and after.

    Args:
        source: a checkpoint, or the folder of a training run.
        out: folder of the new checkpoint.
        settings: target, importance, ranking and rounding; default: the section ``prune`` of the recipe.
        options: folder of the data (for taylor and ms), trusted modules, threads of torch. Progress in steps of the
            search.
        overwrite: replace a pruned checkpoint.

    Raises:
        CheckpointError: if the checkpoint is not intact.
        UsageError: if nothing can be pruned, or the target cannot be met; the message names the smallest cost.
        DataError: if taylor or ms needs data that is missing.
        OutputExistsError, StorageError: if ``out`` cannot be written.
        MissingExtraError: if the extra 'prune' is not installed.
    """
    check_outside(out)
    with requires_extra("prune"):
        from sdcompress.pruning.prune import prune_checkpoint

    model = open_trained_model(source, options)
    section = recipes.override(model.checkpoint().recipe.prune, settings)
    return prune_checkpoint(model, Path(out), section, model.options, overwrite=overwrite)
