"""Build a network from a recipe's model and exits: backbone, cut points, heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from torch import Tensor, nn

from sdcompress import registry
from sdcompress.errors import RecipeError, UnknownNameError
from sdcompress.models import _feature_layout
from sdcompress.models.backbones import ROOM as BACKBONES
from sdcompress.models.cutpoints import before, choose, cut_points, deepest, named
from sdcompress.models.heads import ROOM as HEADS
from sdcompress.models.heads._base import Head
from sdcompress.models.inputs import example_inputs, map_size, mask_position
from sdcompress.models.kept_channels import keep_channels, unfit
from sdcompress.models.multiexit import MultiExit, Tap
from sdcompress.models.output_layer import output_layer
from sdcompress.schema import graphs, recipe
from sdcompress.schema.pruning import ChannelCuts
from sdcompress.user_code import module_exists, names_file

__all__ = ["build", "pretrained_config"]


def build(
    model: recipe.Model,
    exits: recipe.Exits,
    *,
    outputs: tuple[int, ...],
    inputs: Sequence[graphs.Tensor],
    heads: bool = True,
    maps: bool = False,
    cuts: ChannelCuts | None = None,
) -> MultiExit:
    """The network of a recipe. Set ``torch.manual_seed`` before: heads do not change the backbone's first weights.

    Args:
        model: which backbone: ``family:name`` of the room, or ``module:function`` of the user's own, which is called
            with ``outputs=``, ``inputs=`` and model.options and returns an nn.Module.
        exits: where the exits are and what they are made of.
        outputs: shape of one sample's outputs, as the task has it.
        inputs: the tensors of the modality; the network is called with them by position.
        heads: False for the final exit alone.
        maps: without heads, still give the maps where they would be.
        cuts: what pruning has cut; exits stand where they stand in the whole network.

    Raises:
        UsageError: if a name, an option, a cut point or the size of the inputs does not fit.
        SetupError: if a package or the published weights are missing.
        CheckpointError: if the cuts are of another network.
    """
    backbone, image = _backbone(model, outputs, inputs), map_size(inputs)
    example = example_inputs(inputs)
    last_layer = output_layer(backbone, example, outputs)
    if not (heads or maps):
        if cuts is not None:
            _cut_backbone(backbone, example, outputs, cuts)
        return MultiExit(backbone, output_layer=last_layer)
    mask = mask_position(inputs)
    length = None if mask is None else example[mask].shape[1]
    points = [point for point in cut_points(backbone, example) if _feature_layout.is_map(point, image, length)]
    if len(outputs) > 1:
        points = before(points, last_layer)
    if not points:
        raise RecipeError(
            "This backbone can be cut only where its outputs are no map of the input: exits cannot look at them.",
            allowed="a part whose output [B, C, H, W], [B, H, W, C] or [B, N, C] is all that later parts need",
            next_step="train without exits (a method such as 'baseline'), or choose another backbone in model.name",
        )
    chosen = named(points, exits.modules) if exits.modules else choose(points, exits.count)
    whole = [_feature_layout.tap(point, backbone, image, length) for point in (*chosen, deepest(points))]
    *taps, last = whole if cuts is None else _cut_taps(whole, backbone, example, cuts)
    *of_heads, of_last = _made_for(cuts, whole, (*taps, last))
    made = nn.ModuleList([_head(exits, tap, of_last, outputs, backbone) for tap in of_heads] if heads else [])
    if cuts is not None:
        keep_channels(made, cuts, "heads.")
    return MultiExit(
        backbone,
        output_layer=last_layer,
        taps=taps,
        heads=[cast("Head", head) for head in made],
        deepest=last,
        mask=mask,
        equilibrium=exits.gradient_scaling == "equilibrium",
    )


def pretrained_config(
    model: recipe.Model, *, outputs: tuple[int, ...], inputs: Sequence[graphs.Tensor]
) -> Mapping[str, Any]:
    """Return a backbone's record of its published weights: its ``pretrained_cfg``, as timm's networks have one.

    The network is built without weights, so that nothing is downloaded.

    Args:
        model: which backbone.
        outputs: shape of one sample's outputs.
        inputs: the tensors of the modality.

    Returns:
        Names such as ``mean``, ``std``, ``interpolation`` and ``crop_pct``; empty where the backbone says nothing.

    Raises:
        UsageError: if a name or an option does not fit.
    """
    backbone = _backbone(model.untrained, outputs, inputs)
    config = getattr(backbone, "pretrained_cfg", None)
    return config if isinstance(config, Mapping) else {}


def _cut_backbone(
    backbone: nn.Module, example: tuple[Tensor, ...], outputs: tuple[int, ...], cuts: ChannelCuts
) -> None:
    keep_channels(backbone, cuts, "backbone.")
    try:
        output_layer(backbone, example, outputs)
    except RecipeError as error:  # layers that keep other channels than those before them give
        raise unfit(error.problem.rstrip(".")) from error


def _cut_taps(taps: Sequence[Tap], backbone: nn.Module, example: tuple[Tensor, ...], cuts: ChannelCuts) -> list[Tap]:
    """Cut a backbone, and return the taps with the shapes that their maps have then."""
    keep_channels(backbone, cuts, "backbone.")
    try:
        shapes = {point.name: point.shape for point in cut_points(backbone, example)}
    except RecipeError as error:  # layers that keep other channels than those before them give
        raise unfit(error.problem.rstrip(".")) from error
    if missing := [tap.name for tap in taps if tap.name not in shapes]:
        raise unfit(f"without the removed channels there is no exit at {missing[0]}")
    return [
        replace(tap, shape=(shapes[tap.name][-1], *tap.shape[1:]) if tap.channels_last else shapes[tap.name])
        for tap in taps
    ]


def _made_for(cuts: ChannelCuts | None, whole: Sequence[Tap], cut: Sequence[Tap]) -> list[Tap]:
    """Return the taps with the shapes for which heads are made, before these are cut."""
    if cuts is None or cuts.heads_for is None:
        return [*whole]
    if not cuts.heads_for:
        return [*cut]
    if len(cuts.heads_for) != len(whole) or not all(map(_between, whole, cuts.heads_for, cut)):
        raise unfit("its heads are made for other maps")
    return [replace(tap, shape=shape) for tap, shape in zip(cut, cuts.heads_for, strict=True)]


def _between(whole: Tap, made_for: tuple[int, ...], cut: Tap) -> bool:
    """Return whether a map has at most the channels of the whole network, and at least those that are left."""
    axis = 0 if len(cut.shape) == 3 else -1
    return len(made_for) == len(cut.shape) and cut.shape[axis] <= made_for[axis] <= whole.shape[axis]


def _head(exits: recipe.Exits, tap: Tap, last: Tap, outputs: tuple[int, ...], backbone: nn.Module) -> Head:
    kind = registry.load(HEADS, exits.head, extra="train")
    pool = _feature_layout.pooling(tap, backbone) if exits.pool == "auto" else exits.pool
    head: Head = kind(tap.shape, outputs, width=exits.width_cap, final_shape=last.shape, pool=pool)
    return head


def _backbone(model: recipe.Model, outputs: tuple[int, ...], inputs: Sequence[graphs.Tensor]) -> nn.Module:
    family, colon, name = model.name.partition(":")
    if not (family and colon and name):
        raise RecipeError(
            f"model.name is '{model.name}'.",
            allowed="family:name, such as cifar:resnet18 or timm:resnet50, or module:function of your own",
            next_step=f"write for instance 'timm:{model.name.strip(':')}'",
        )
    try:
        if family in registry.names(BACKBONES):
            make = registry.load(BACKBONES, family, extra="vision")
            backbone = make(name, outputs=outputs, inputs=tuple(inputs), pretrained=model.pretrained, **model.options)
        else:
            backbone = _users(model, outputs, inputs)
    except TypeError as error:
        if "keyword argument" not in str(error):
            raise
        raise RecipeError(
            f"The backbone '{model.name}' cannot be called with these model.options: {error}",
            next_step="remove the option it does not know, or add the one it needs, under model.options",
        ) from error
    if not isinstance(backbone, nn.Module):
        raise RecipeError(
            f"'{model.name}' returned a {type(backbone).__name__}.",
            allowed="a torch.nn.Module",
            next_step="return the network itself",
        )
    return backbone


def _users(model: recipe.Model, outputs: tuple[int, ...], inputs: Sequence[graphs.Tensor]) -> object:
    module = model.name.partition(":")[0]
    if not (names_file(model.name) or module_exists(model.name)):
        raise UnknownNameError(
            "families of backbones",
            module,
            registry.names(BACKBONES),
            next_step=f"choose a family, or set PYTHONPATH to the folder that holds your module '{module}'",
        )
    weights = {"pretrained": True} if model.pretrained else {}
    try:
        return registry.call_user_function(
            model.name, outputs=outputs, inputs=tuple(inputs), **weights, **model.options
        )
    except registry.ArgumentsError as error:
        keywords = ", ".join(("outputs", "inputs", *weights, *model.options))
        raise RecipeError(
            f"The backbone '{model.name}' cannot be called with {keywords}: {error}.",
            allowed="a function that takes outputs, inputs and the keys of model.options, and returns the network",
            next_step="write one around your network, such as 'def make(*, outputs, inputs): return Net(outputs[0])', "
            "or correct model.options",
        ) from error
