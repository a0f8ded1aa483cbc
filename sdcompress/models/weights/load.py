"""Copy the tensors of a weights file into the backbone of a network, or refuse them with the counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from sdcompress.errors import RecipeError
from sdcompress.models.multiexit import MultiExit
from sdcompress.models.weights.files import WeightsFile, read_weights
from sdcompress.models.weights.match import Match, Shapes, match_names, match_order
from sdcompress.schema.training import LoadedWeights

__all__ = ["describe", "load_weights"]

_SHOWN = 4  # names in a message


def load_weights(net: MultiExit, source: str, how: Literal["name", "partial", "order"], network: str) -> LoadedWeights:
    """Copy weights into a backbone. Its last head starts anew where the file has another size of it, or none.

    Args:
        net: the network, whose heads are left as they are.
        source: a file or a folder of weights, see ``files.read_weights``.
        how: ``model.match`` of the recipe.
        network: its name, for messages.

    Returns:
        What was taken, what starts anew, and what was left over.

    Raises:
        RecipeError: if the weights are of another network; the message has the counts.
        SetupError: if they are not there.
        WeightsError: if they cannot be read.
    """
    file = read_weights(Path(source))
    backbone = net.backbone
    tensors = backbone.state_dict()
    last = [name for name in tensors if name in net.classifier]
    dictionary, match = _best(file, _shapes(tensors), last, how, network)
    anew = [name for name in tensors if name not in match.pairs and name in _needed(backbone)]
    body = [name for name in anew if name not in last]
    if not match.pairs or (body and how != "partial"):
        raise _other_network(file, dictionary, match, network, here=tensors, missing=body)
    values = file.dictionaries[dictionary]
    backbone.load_state_dict({name: values[of_file] for name, of_file in match.pairs.items()}, strict=False)
    used = set(match.pairs.values())
    return LoadedWeights(
        source=source,
        file=str(file.path),
        sha256=file.sha256,
        dictionary=dictionary,
        match=how,
        stripped=match.prefixes,
        taken=len(match.pairs),
        anew=(*(f"backbone.{name}" for name in anew), *(f"heads.{name}" for name in net.heads.state_dict())),
        left=tuple(name for name in values if name not in used and not _is_counter(values[name])),
    )


def describe(loaded: LoadedWeights) -> str:
    """Return a sentence for users: how many tensors were taken, what starts anew, what was left over."""
    modules = sorted(
        {
            ".".join(name.split(".")[:2]) if name.startswith("heads.") else name.removeprefix("backbone.")
            for name in loaded.anew
        }
    )
    where = f" ('{loaded.dictionary}' in it)" if loaded.dictionary else ""
    prefixes = "; ".join(
        f"without '{prefix}' of {whose}"
        for prefix, whose in zip(loaded.stripped, ("its names", "the network's names"), strict=True)
        if prefix
    )
    how = "by order and shape" if loaded.match == "order" else "by name"
    return (
        f"{loaded.taken} tensors are taken from {loaded.file}{where} {how}{f', {prefixes}' if prefixes else ''}; "
        f"trained anew: {_listed(modules)}; left over in the file: {_listed(loaded.left)}"
    )


def _best(
    file: WeightsFile, network: Shapes, last: list[str], how: Literal["name", "partial", "order"], name: str
) -> tuple[str, Match]:
    """Return the dictionary of the file that fits best, an average (EMA) first among equals, and its match."""
    ranked = sorted(file.dictionaries, key=lambda where: "ema" not in where)
    if how != "order":
        matches = [(where, match_names(_shapes(file.dictionaries[where]), network)) for where in ranked]
        return max(matches, key=lambda found: len(found[1].pairs))
    if ".safetensors" in file.path.name:
        raise RecipeError(
            f"model.match is order, and {file.path} is a file of safetensors, which keeps no order.",
            allowed="what torch.save wrote of a state_dict",
            next_step="leave model.match out, or name the original file",
        )
    floats = {one: shape for one, shape in network.items() if not _is_counter_name(one)}
    sources = {where: _ordered(file.dictionaries[where]) for where in ranked}
    for where, shapes in sources.items():
        if (match := match_order(shapes, floats, last)) is not None:
            return where, match
    raise _other_order(file, sources, floats, name)


def _ordered(tensors: Mapping[str, Tensor]) -> Shapes:
    return {name: shape for name, shape in _shapes(tensors).items() if not _is_counter_name(name)}


def _shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _is_counter_name(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _is_counter(tensor: Tensor) -> bool:
    """Return whether a tensor counts or indexes, which a network has by its construction."""
    return not (tensor.is_floating_point() or tensor.is_complex())


def _needed(backbone: nn.Module) -> set[str]:
    return {name for name, tensor in backbone.state_dict().items() if not _is_counter(tensor)}


def _other_network(
    file: WeightsFile, dictionary: str, match: Match, network: str, *, here: Mapping[str, Tensor], missing: list[str]
) -> RecipeError:
    values = file.dictionaries[dictionary]
    differ = [name for name in missing if name in match.other_shape]
    absent = [name for name in missing if name not in match.other_shape]
    parts = [f"{len(absent)} are not in the file ({_listed(absent)})"] if absent else []
    if differ:
        name = differ[0]
        sizes = f"{name} is {[*values[match.other_shape[name]].shape]} there and {[*here[name].shape]} here"
        parts.append(f"{len(differ)} have another shape ({sizes})")
    left = len(values) - len(match.pairs)
    return RecipeError(
        f"{file.path} does not fit '{network}': {len(match.pairs)} of its {len(here)} tensors are in the file with "
        f"their shapes, {', '.join(parts) or 'none fits'}; {left} of the file's {len(values)} are left over.",
        allowed="weights of the same network; its classifier alone may be another",
        next_step="correct model.name, or for the same network with other names set model.match=order; to train "
        "what is missing from random weights set model.match=partial",
    )


def _other_order(file: WeightsFile, sources: Mapping[str, Shapes], network: Shapes, name: str) -> RecipeError:
    shapes = max(sources.values(), key=len)
    pairs = enumerate(zip(shapes.items(), network.items(), strict=False), start=1)
    first = next(
        (
            f"the first that differs is number {at}: '{one[0]}' {[*one[1]]} there, '{other[0]}' {[*other[1]]} here"
            for at, (one, other) in pairs
            if one[1] != other[1]
        ),
        "as far as both go, they fit",
    )
    return RecipeError(
        f"{file.path} does not fit '{name}' by order: it has {len(shapes)} tensors without counters, the network "
        f"{len(network)}; {first}.",
        allowed="as many tensors of the same shapes in the same order; the classifier alone may be another",
        next_step="correct model.name, or leave model.match out where names are the same",
    )


def _listed(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "nothing"
