"""Try an export before a training, where a refusal would come when the training is done."""

from __future__ import annotations

import warnings

from sdcompress.data.samples import Dataset
from sdcompress.errors import MissingExtraError, SdcompressError, requires_extra
from sdcompress.schema.recipe import Recipe

__all__ = ["check_export", "warn_of_export"]


def check_export(recipe: Recipe, dataset: Dataset) -> None:
    """Export the untrained network; nothing is written.

    Raises:
        DataError: if no image is held out to prove the export on.
        UsageError, ParityError: if the network cannot be exported.
        MissingExtraError: if what an export needs is not installed.
    """
    with requires_extra("export"):
        from sdcompress.exporting.checkpoint_outputs import held_out
        from sdcompress.exporting.dry_export import dry_export
        from sdcompress.verification import parity  # onnx

    proving = held_out(dataset)
    if weaker := parity.weaker(proving, recipe.export.parity_samples):
        warnings.warn(weaker, stacklevel=3)
    dry_export(recipe, dataset)


def warn_of_export(recipe: Recipe, dataset: Dataset) -> None:
    """Say before a training what its export will refuse; nothing, where what an export needs is not installed.

    Args:
        recipe: what is to be trained.
        dataset: on what.
    """
    try:
        check_export(recipe, dataset)
    except MissingExtraError:
        return
    except SdcompressError as error:
        warnings.warn(
            f"What this training gives cannot be exported. {error.problem} It can be evaluated; to export it: "
            f"{error.next_step}.",
            stacklevel=2,
        )
