"""Start a training from weights: another training's, or those of a file; refuse what would freeze random weights."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path

from sdcompress import methods
from sdcompress.checkpoint import STATE, STEPS, Checkpoint, is_artifact, open_checkpoint
from sdcompress.errors import RecipeError
from sdcompress.models.backbones import is_users_own
from sdcompress.models.multiexit import MultiExit
from sdcompress.models.weights.files import weights_file, weights_sha256
from sdcompress.models.weights.load import describe, load_weights
from sdcompress.printable import printable
from sdcompress.schema.pruning import Pruned
from sdcompress.schema.recipe import Recipe
from sdcompress.schema.training import LoadedWeights

__all__ = [
    "check_start",
    "check_trained_classifier",
    "check_trained_start",
    "load_start",
    "start_checkpoint",
    "start_cuts",
    "start_sha256",
    "warn_of_other_versions",
]

DECIDE_BITS = ("sdcompress", "torch", "numpy")


def start_checkpoint(recipe: Recipe) -> Checkpoint | None:
    """Return the checkpoint that ``model.weights`` names; None if it names other weights, or none.

    Raises:
        CheckpointError: if it is not intact, or an artifact.
    """
    source = recipe.model.weights
    if source is None or not (_is_training(Path(source)) or is_artifact(Path(source))):
        return None
    return open_checkpoint(source)


def start_sha256(recipe: Recipe) -> str | None:
    """Return the SHA-256 of the weights that ``model.weights`` names, as ``LoadedWeights`` records it; None: of none.

    Raises:
        CheckpointError: if it is a checkpoint that is not intact.
        SetupError, WeightsError: if there are no such weights.
    """
    if recipe.model.weights is None:
        return None
    checkpoint = start_checkpoint(recipe)
    return weights_sha256(Path(recipe.model.weights)) if checkpoint is None else checkpoint.weights_sha256


def start_cuts(recipe: Recipe, *, exits: bool) -> Pruned | None:
    """Return how the network that a training starts from was pruned; None: it is whole.

    Heads are cut like those of the checkpoint where it has the same exits; else they are made for its backbone.

    Args:
        recipe: names the checkpoint in ``model.weights``.
        exits: whether the network has heads.

    Raises:
        CheckpointError: if it is not intact.
    """
    checkpoint = start_checkpoint(recipe)
    if checkpoint is None or (pruned := checkpoint.state.pruned) is None:
        return None
    return pruned if exits and _same_exits(checkpoint, recipe) else pruned.only("backbone.").with_heads_for(())


def check_start(recipe: Recipe) -> None:
    """Refuse to start from weights that are not there, or from a checkpoint of another network.

    Raises:
        RecipeError: if the checkpoint is of another backbone.
        SetupError: if there are no weights.
    """
    if recipe.model.weights is None:
        return
    checkpoint = start_checkpoint(recipe)
    if checkpoint is None:
        weights_file(Path(recipe.model.weights))
        return
    source, target = checkpoint.recipe.model, recipe.model
    if (source.name, source.options) != (target.name, target.options):
        raise RecipeError(
            f"model.weights is a checkpoint of '{source.name}' {source.options or ''}".rstrip()
            + f", the recipe trains '{target.name}' {target.options or ''}".rstrip()
            + ".",
            allowed="a checkpoint of the same backbone; method, exits, data and schedule may differ",
            next_step=f"--set model.name={source.name}, or train a checkpoint of '{target.name}' first",
        )


def check_trained_start(recipe: Recipe) -> None:
    """Refuse to freeze a backbone that nothing has trained: its exits would learn random answers.

    A function of the user's own may load weights itself, so there it is a warning.

    Raises:
        RecipeError: if the backbone is frozen from the first step, and no weights are taken from anywhere.
    """
    model = recipe.model
    if (who := _freezing(recipe)) is None or model.untrained != model:
        return
    if not is_users_own(model.name):
        raise _untrained(who, f"'{model.name}' starts with random weights")
    warnings.warn(
        f"{who} freezes the backbone from the first step. If '{model.name}' does not load "
        "trained weights itself, its exits learn random answers.",
        stacklevel=2,
    )


def check_trained_classifier(net: MultiExit, recipe: Recipe) -> None:
    """Refuse published weights whose classifier is replaced, where the method freezes it from the first step.

    Raises:
        RecipeError: if the record of the weights names another number of outputs than the network has.
    """
    model = recipe.model
    if not _first_phase_freezes(recipe) or not model.pretrained:
        return
    record = getattr(net.backbone, "pretrained_cfg", None)
    published = record.get("num_classes") if isinstance(record, dict) else None
    outputs = getattr(net.backbone.get_submodule(net.output_layer), "out_features", None)
    if published is not None and outputs is not None and published != outputs:
        raise _untrained(
            _method(recipe), f"the weights of '{model.name}' are for {published} outputs, so that its classifier is new"
        )


def load_start(net: MultiExit, recipe: Recipe, outputs: tuple[str, ...], fingerprint: str) -> LoadedWeights:
    """Copy the weights that ``model.weights`` names into a network, and say in a warning what became of them.

    Of a checkpoint the heads are taken, too, where they stand at the same places.

    Args:
        net: the network that is to start from them.
        recipe: names the weights, the backbone and the exits.
        outputs: names of what the outputs stand for in the data, such as those of classes.
        fingerprint: of the data. With another one the checkpoint may have learnt the validation samples.

    Raises:
        RecipeError: if they are of another network, or a part of it that is frozen from the first step is new or, as
            its classifier may be, for other outputs.
        SetupError: if they are not there.
        CheckpointError, WeightsError: if they are not intact.
    """
    model = recipe.model
    assert model.weights is not None
    checkpoint = start_checkpoint(recipe)
    if checkpoint is None:
        loaded = load_weights(net, model.weights, model.match, model.name)
    else:
        check_start(recipe)
        _check_frozen_outputs(checkpoint, recipe, outputs)
        if checkpoint.data_fingerprint != fingerprint:
            _warn_of_learnt_validation(checkpoint, recipe, outputs)
        loaded = _from_checkpoint(net, checkpoint, recipe)
    learns = frozenset() if _first_phase_freezes(recipe) else {f"backbone.{name}" for name in net.classifier}
    frozen = [name for name in loaded.anew if name.startswith("backbone.") and name not in learns]
    if frozen and (who := _freezing(recipe)) is not None:
        raise _untrained(who, f"{', '.join(frozen[:4])} of {loaded.file} does not fit and is new")
    warnings.warn(describe(loaded), stacklevel=2)
    return loaded


def _check_frozen_outputs(checkpoint: Checkpoint, recipe: Recipe, outputs: tuple[str, ...]) -> None:
    """Refuse a classifier that stays as it is, and means other classes than the data, or the same in another order."""
    trained = checkpoint.state.outputs
    if not _first_phase_freezes(recipe) or trained == outputs or len(trained) != len(outputs):
        return
    at = next(at for at, (one, other) in enumerate(zip(trained, outputs, strict=True)) if one != other)
    raise _untrained(
        _method(recipe),
        f"output {at} of the classifier in {checkpoint.path} stands for '{trained[at]}', and in the data for "
        f"'{outputs[at]}'",
    )


def _warn_of_learnt_validation(checkpoint: Checkpoint, recipe: Recipe, outputs: tuple[str, ...]) -> None:
    """Say where the validation samples may be some that the checkpoint was trained on: its seed held out others."""
    before, now = checkpoint.recipe, recipe
    same_data = (before.data.name, checkpoint.state.outputs) == (now.data.name, outputs)
    if not same_data or not now.data.validation:
        return
    if before.seed == now.seed and before.data.validation >= now.data.validation:
        return  # the same samples are held out, or the first of them
    warnings.warn(
        f"The weights of {checkpoint.path} may have learnt the validation samples of this training: with the seed "
        f"{before.seed} it held out {before.data.validation:.4g} of the training samples, and this one holds out "
        f"{now.data.validation:.4g} with the seed {now.seed}. Then validation figures are too good, and a certificate "
        f"does not hold. To hold out the same: --set seed={before.seed} --set "
        f"data.validation={before.data.validation:.4g}. A validation split of the data's own is not concerned.",
        stacklevel=2,
    )


def _is_training(path: Path) -> bool:
    """Return whether a path is the folder of a checkpoint or of a training."""
    return (path / STATE).is_file() or (path / STEPS).is_dir()


def _from_checkpoint(net: MultiExit, checkpoint: Checkpoint, recipe: Recipe) -> LoadedWeights:
    current, tensors = net.state_dict(), checkpoint.tensors()
    taken = {
        name: value
        for name, value in tensors.items()
        if name in current
        and current[name].shape == value.shape
        and (_same_exits(checkpoint, recipe) or not name.startswith("heads."))
    }
    net.load_state_dict({**current, **taken})
    return LoadedWeights(
        source=recipe.model.weights or "",
        file=str(checkpoint.path),
        sha256=checkpoint.weights_sha256,
        match="checkpoint",
        taken=len(taken),
        anew=tuple(name for name in current if name not in taken),
        left=tuple(name for name in tensors if name not in taken),
    )


def _same_exits(checkpoint: Checkpoint, recipe: Recipe) -> bool:
    exits = [one.exits.model_dump(exclude={"gradient_scaling"}) for one in (checkpoint.recipe, recipe)]
    trained_with_heads = checkpoint.state.pruned is None or checkpoint.state.pruned.heads_for != ()
    return exits[0] == exits[1] and trained_with_heads


def _freezing(recipe: Recipe) -> str | None:
    """Return what freezes the backbone from the first step, as the beginning of a sentence; None: nothing does."""
    if _first_phase_freezes(recipe):
        return _method(recipe)
    return "train.backbone=frozen" if recipe.train.backbone == "frozen" else None


def _first_phase_freezes(recipe: Recipe) -> bool:
    return methods.build(recipe.method).phases[0].freeze_backbone


def _method(recipe: Recipe) -> str:
    return f"The method '{recipe.method.name}'"


def _untrained(who: str, why: str) -> RecipeError:
    return RecipeError(
        f"{who} freezes the backbone from the first step, and {why}: the exits would learn random answers.",
        allowed="a backbone and a classifier that are trained, or a first phase that trains them",
        next_step="--set model.weights=RUN, a finished training of the same backbone and classes, or a file of its "
        "weights; or give the backbone epochs of its own (fastbert: method.backbone_share=0.5)",
    )


def warn_of_other_versions(checkpoint: Checkpoint) -> None:
    """Say if a run goes on with packages that may give other bits than those that it began with."""
    changed = [
        f"{name} {checkpoint.state.versions[name]} -> {version(name)}"
        for name in DECIDE_BITS
        if name in checkpoint.state.versions and checkpoint.state.versions[name] != version(name)
    ]
    if changed:
        warnings.warn(
            f"{checkpoint.path} was written by other versions: {printable(', '.join(changed))}. The run goes on from "
            "it, but not with the bits that it would have had.",
            stacklevel=2,
        )
