"""Train heads on a frozen backbone: what is refused, when the backbone runs only once, and how a training does that."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Generator, Tensor

from sdcompress.data.samples import Dataset
from sdcompress.errors import RecipeError
from sdcompress.methods._base import Method, Needs
from sdcompress.models.backbones import is_users_own
from sdcompress.models.multiexit import MultiExit
from sdcompress.objectives.batch import Minibatch
from sdcompress.schema.recipe import Recipe
from sdcompress.storage import digest_of, sha256_of
from sdcompress.training.batches import Batches, MicroBatch, Positions
from sdcompress.training.feature_cache import (
    FeatureCache,
    Form,
    Plan,
    bytes_of,
    cache_folder,
    fill,
    key_of,
    room_for,
)
from sdcompress.training.prepare_batch import BatchPreparer
from sdcompress.training.save import package_versions
from sdcompress.training.validation_scores import rows_of_a_pass
from sdcompress.user_code import check_module

__all__ = ["CachedInputs", "Source", "check_frozen", "compute_features"]


def check_frozen(recipe: Recipe, method: Method) -> None:
    """Refuse a frozen backbone for a method that teaches the backbone.

    Raises:
        RecipeError: says what the method does with the backbone.
    """
    if recipe.train.backbone != "frozen":
        return
    needs = method.needs
    if any(phase.restart for phase in method.phases):
        why = "it trains the network again from other random weights"
    elif needs.maps:
        why = "it teaches the backbone's own maps, which do not change"
    elif needs.dropout:
        why = "it compares two passes with dropout, and a frozen backbone drops nothing"
    else:
        return
    raise RecipeError(
        f"The method '{recipe.method.name}' cannot train on a frozen backbone: {why}.",
        allowed="train.backbone=tuned, or a method that teaches heads, such as byot, eed or fastbert",
        next_step="--set train.backbone=tuned, or choose another method: sdcompress list methods",
    )


class CachedInputs:
    """Moves features to the device; takes the place of ``BatchPreparer`` where the backbone does not run.

    Args:
        needs: of the method: whether it has a further view.
        device: of the training.
    """

    def __init__(self, needs: Needs, device: torch.device) -> None:
        self._view, self._device = needs.view, device

    def __call__(self, part: MicroBatch, generator: Generator) -> tuple[Minibatch, Minibatch | None]:  # noqa: ARG002
        """Return the step's samples, and those of the further view."""
        primary = self._on_device(part.primary)
        if self._view is None:
            return primary, None
        return primary, self._on_device(part.companions) if part.companions else primary

    def _on_device(self, samples: Minibatch) -> Minibatch:
        inputs = tuple(values.to(self._device, non_blocking=True) for values in samples.inputs)
        return Minibatch(inputs, samples.targets.to(self._device), samples.positions.to(self._device))


@dataclass(frozen=True)
class Source:
    """What the features of a training are made of.

    Attributes:
        recipe: of the training.
        dataset: its data.
        net: the network, with the weights that stay.
        needs: of the method.
        batches: of the training.
        prepare: makes inputs of training samples.
        fabric: the processes and the device.
    """

    recipe: Recipe
    dataset: Dataset
    net: MultiExit
    needs: Needs
    batches: Batches
    prepare: BatchPreparer
    fabric: Fabric


def compute_features(source: Source, note: Callable[[str], None] | None = None) -> dict[str, FeatureCache] | None:
    """Run the frozen backbone once over training and validation samples; a warning says why not, where it cannot.

    Args:
        source: what they are made of.
        note: called with a sentence before the backbone runs.

    Returns:
        What heads see of the splits ``train`` and ``val``; None: the backbone runs in every step.
    """
    spec = source.recipe.train
    if spec.backbone != "frozen" or not spec.feature_cache_gb:
        return None
    if (why := _differs(source)) is not None:
        _say_without(why)
        return None
    plans, net = _plans(source), source.net
    mode = net.training
    net.eval()
    try:
        first, _ = next(plans["train"].passes())
        direct = plans["train"].run(first)
        if not _ends_in_output_layer(source, first, direct):
            _say_without("the backbone computes further after its output layer")
            return None
        shapes = tuple(tuple(values.shape[1:]) for values in direct)
        size, folder = bytes_of(plans, shapes), cache_folder() / key_of(net, _facts(source, plans))
        # what is there needs no further room, and must not be removed to make some
        if not (known := folder.is_dir()) and (why := room_for(size, spec.feature_cache_gb * 1e9, folder.parent)):
            _say_without(why)
            return None
        if note:
            _announce(note, plans, size, known=known)
        forms = {"train": tuple(map(Form.of, direct))}
        forms["val"] = tuple(form._replace(dtype=torch.float32) for form in forms["train"])  # as validation computes
        features = {split: replace(cache, forms=forms[split]) for split, cache in fill(plans, shapes, folder).items()}
        _compare(plans["train"], source.batches, features["train"])
    finally:
        net.train(mode)
    return features


def _differs(source: Source) -> str | None:
    """Return why a sample is not the same in every epoch, or cannot be kept; None: it can."""
    recipe, modality = source.recipe, source.dataset.modality
    settings = modality.augmentation_settings(recipe.train.augment)
    augmented = [*settings.model_dump(exclude_defaults=True), *(["mixup"] if recipe.train.augment.mixup else [])]
    if augmented:
        return f"train.augment.{augmented[0]} changes inputs in every epoch"
    if source.needs.view is not None and source.needs.view.mixed:
        return f"the method '{recipe.method.name}' mixes inputs"
    if any(isinstance(size, str) for tensor in modality.tensors for size in tensor.shape[1:]) or source.net.masked:
        return "inputs differ in length"
    if not all(name.startswith(f"{source.net.output_layer}.") for name in source.net.classifier):
        return "the network's own classifier is more than its output layer"
    reasons = {
        "several processes train": source.fabric.world_size > 1,
        "train.compile is on": recipe.train.compile,
        "the trained teacher runs in every step too": source.needs.teacher,
    }
    return next((why for why, holds in reasons.items() if holds), None)


def _say_without(why: str) -> None:
    warnings.warn(
        f"The frozen backbone runs in every step, because its outputs are not kept: {why}. Heads learn the same, "
        "but slower.",
        stacklevel=4,
    )


def _plans(source: Source) -> dict[str, Plan]:
    view = source.needs.view
    rows = source.batches.size * (2 if view is not None and view.gradient else 1)
    plans = {"train": Plan(len(source.dataset.train), rows, padded=True, run=_of_training(source))}
    if len(source.dataset.val):
        of_validation = rows_of_a_pass(source.dataset.task, source.net)
        plans["val"] = Plan(len(source.dataset.val), of_validation, padded=False, run=_of_validation(source))
    return plans


def _of_training(source: Source) -> Callable[[Positions], tuple[Tensor, ...]]:
    def run(positions: Positions) -> tuple[Tensor, ...]:
        inputs = _training_inputs(source, positions)
        with torch.no_grad(), source.fabric.autocast():
            return source.net.head_inputs(*inputs)[0]

    return run


def _training_inputs(source: Source, positions: Positions) -> tuple[Tensor, ...]:
    unused = Generator().manual_seed(0)
    primary, _ = source.prepare(MicroBatch(source.batches.fetch(positions)), unused)
    return primary.inputs


def _of_validation(source: Source) -> Callable[[Positions], tuple[Tensor, ...]]:
    dataset = source.dataset

    def run(positions: Positions) -> tuple[Tensor, ...]:
        arrays = dataset.modality.ordered(dataset.modality.collate(dataset.val.examples(positions)))
        inputs = (torch.from_numpy(array).to(source.fabric.device) for array in arrays)
        with torch.no_grad():  # in full precision, as validation computes
            return source.net.head_inputs(*inputs)[0]

    return run


def _ends_in_output_layer(source: Source, positions: Positions, features: tuple[Tensor, ...]) -> bool:
    with torch.no_grad(), source.fabric.autocast():
        _, outputs = source.net.head_inputs(*_training_inputs(source, positions))
        return torch.equal(source.net.from_head_inputs(*features).logits[-1], outputs)


def _facts(source: Source, plans: dict[str, Plan]) -> dict[str, object]:
    recipe, heads = source.recipe, source.recipe.exits.model_dump(include={"head", "width_cap", "pool"})
    return {
        "model": recipe.model.untrained.model_dump(mode="json"),
        "code": _users_code(recipe.model.name),
        "vectors": heads if any(source.net.pooled_taps) else {},
        "data": source.dataset.fingerprint,
        "rows": {split: plan.rows for split, plan in plans.items()},
        "precision": recipe.train.precision,
        "channels_last": recipe.train.channels_last,
        "device": source.fabric.device.type,
        "threads": torch.get_num_threads(),
        "versions": package_versions(),
    }


def _users_code(name: str) -> str | None:
    """Return the SHA-256 of the user's files that a backbone is built by; None where a family builds it."""
    if not is_users_own(name):
        return None
    top = check_module(name)
    return digest_of([sha256_of(file) for file in (sorted(top.rglob("*.py")) if top.is_dir() else [top])])


def _announce(note: Callable[[str], None], plans: dict[str, Plan], size: int, *, known: bool) -> None:
    count = " + ".join(str(plan.samples) for plan in plans.values())
    what = f"{count} samples, {size / 1e6:.0f} MB"
    note(f"what heads see is known already: {what}" if known else f"the frozen backbone runs once over {what}")


def _compare(plan: Plan, batches: Batches, cache: FeatureCache) -> None:
    """Say where a pass of the first training batch gives other bits than what is kept."""
    positions = np.resize(batches.example().primary.positions.cpu().numpy(), plan.rows)
    pairs = zip(plan.run(positions), cache.at(positions), strict=True)
    largest = max(float((direct.float().cpu() - kept).abs().max()) for direct, kept in pairs)
    if largest:
        warnings.warn(
            f"What is kept of the frozen backbone differs from a pass of the first batch by up to {largest:.1e}: this "
            "machine computes a sample differently beside others. The training is not bit for bit the one that "
            "train.feature_cache_gb=0 gives.",
            stacklevel=4,
        )
