"""Find where a backbone can be cut in two: the modules whose output is the only thing that later computation needs.

Every module's output gets a marker, ``torch.export`` records the computation, and the markers that dominate the output
on the data edges are the legal cut points. Nothing is known about any family of networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch import Tensor, nn

from sdcompress.errors import RecipeError, UnknownNameError
from sdcompress.models._trace import trace

__all__ = ["CutPoint", "before", "choose", "cut_points", "deepest", "named"]

_LATEST = 0.93  # an exit after this share of the MACs saves nothing
_Way = tuple[tuple[int, ...], tuple["CutPoint", ...]]  # cost, and the exits placed so far


@dataclass(frozen=True)
class CutPoint:
    """A module after which the backbone can be cut.

    Attributes:
        name: the outermost module that ends here.
        shape: shape of its output without the batch axis, as the backbone has it.
        fraction: share of the backbone's MACs spent up to here, 0..1.
        level: nesting depth of the module, plus 1 where no submodule has parameters, so that the end of a stage is
            preferred to a norm beside it.
        aliases: other modules with the same output.
    """

    name: str
    shape: tuple[int, ...]
    fraction: float
    level: int = 0
    aliases: tuple[str, ...] = ()


def cut_points(backbone: nn.Module, example: tuple[Tensor, ...]) -> tuple[CutPoint, ...]:
    """Return all legal cut points that give a map (3-D or 4-D with the batch), in order of execution.

    A module that is called more than once, or whose output is later overwritten in place, is no cut point.

    Args:
        backbone: any network that ``torch.export`` can follow; it is left as it was.
        example: its inputs, each [B, ...], on the backbone's device.

    Raises:
        RecipeError: if the backbone cannot be followed, or cannot be cut anywhere.
    """
    recorded = trace(backbone, example)
    points, flat = [], []
    for modules, shape, fraction in recorded.cuts():
        if len(shape) not in (3, 4):
            flat += modules
        names = [name for name in modules if recorded.calls[name] == 1]
        if names and len(shape) in (3, 4):
            outermost = min(names, key=lambda name: name.count("."))
            aliases = tuple(name for name in names if name != outermost)
            level = outermost.count(".") + (not _has_learning_parts(backbone.get_submodule(outermost)))
            points.append(CutPoint(outermost, shape[1:], fraction, level, aliases))
    if not points:
        why = (
            f"what its parts hand on are flat vectors ({', '.join(flat[:3])}), and an exit looks at a map"
            if flat
            else "several branches run side by side from its input"
        )
        raise RecipeError(
            f"This backbone has no place where it could be cut: {why}.",
            allowed="a part whose output [B, C, H, W] or [B, N, C] is all that later parts need" if flat else "",
            next_step="train without exits (a method such as 'baseline'), choose another backbone in model.name, or "
            "make the stages of your own network modules",
        )
    return tuple(points)


def choose(points: Sequence[CutPoint], count: int) -> tuple[CutPoint, ...]:
    """Place ``count`` exits evenly by MACs: as near as possible to the shares k / (count + 1).

    Within 0.2 / (count + 1) of its share, an exit prefers the outermost module (the end of a stage to the middle of a
    block). No two exits stand at the same MACs, none after 93 % of them.

    Args:
        points: of ``cut_points``.
        count: how many, at least 1.

    Raises:
        RecipeError: if there are fewer places.
    """
    candidates = _one_per_fraction(points)
    if count > len(candidates):
        raise RecipeError(
            f"exits.count asks for {count} exits, and this backbone has {len(candidates)} places for one.",
            allowed=", ".join(f"{point.name} ({point.fraction:.0%} of the MACs)" for point in candidates) or "none",
            next_step=f"set exits.count to at most {len(candidates)}, or choose another backbone in model.name"
            if candidates
            else "name modules in exits.modules, or choose another backbone in model.name",
        )
    ways: dict[int, _Way] = {-1: ((0, 0, 0), ())}
    for k in range(1, count + 1):
        target, slack = k / (count + 1), 0.2 / (count + 1)
        ways = {
            j: _extend(min(earlier, key=lambda way: way[0]), point, target, slack)
            for j, point in enumerate(candidates)
            if (earlier := [way for last, way in ways.items() if last < j])
        }
    return min(ways.values(), key=lambda way: way[0])[1]


def named(points: Sequence[CutPoint], names: Sequence[str]) -> tuple[CutPoint, ...]:
    """Return the cut points that a recipe names, in order of execution.

    Args:
        points: of ``cut_points``.
        names: modules of the backbone, in any order.

    Raises:
        UnknownNameError: if a name is no legal cut point.
        RecipeError: if two names mean the same place.
    """
    index = {name: i for i, point in enumerate(points) for name in (point.name, *point.aliases)}
    for name in names:
        if name not in index:
            raise UnknownNameError("legal cut points of this backbone", name, [point.name for point in points])
    chosen = sorted({index[name] for name in names})
    if len(chosen) < len(names):
        raise RecipeError(
            f"exits.modules names the same place twice: {', '.join(names)}.",
            allowed="one name for each place",
            next_step=f"write exits.modules: [{', '.join(points[i].name for i in chosen)}]",
        )
    return tuple(points[i] for i in chosen)


def before(points: Sequence[CutPoint], module: str) -> list[CutPoint]:
    """Return the cut points before the module whose outputs are the network's: dense outputs are maps too.

    Args:
        points: of ``cut_points``.
        module: its name; what ends with it, such as the part that holds it, is left out as well.
    """
    ends = [any(name == module for name in (point.name, *point.aliases)) for point in points]
    return list(points[: ends.index(True)] if True in ends else points)


def deepest(points: Sequence[CutPoint]) -> CutPoint:
    """Return the last map that is more than one cell wide: the map before pooling."""
    wide = [point for point in points if prod(point.shape) > max(point.shape)]
    return (wide or list(points))[-1]


def _has_learning_parts(module: nn.Module) -> bool:
    return any(True for child in module.children() for _ in child.parameters())


def _extend(way: _Way, point: CutPoint, target: float, slack: float) -> _Way:
    # whole millionths of the MACs: sums of floats would decide between equals by their rounding
    distance = round(1e6 * abs(point.fraction - target))
    cost = (max(0, distance - round(1e6 * slack)), point.level, distance)
    return tuple(a + b for a, b in zip(way[0], cost, strict=True)), (*way[1], point)


def _one_per_fraction(points: Sequence[CutPoint]) -> list[CutPoint]:
    """Of the places with the same MACs the outermost and, of these, the last (after the activation, not before)."""
    best: dict[float, CutPoint] = {}
    for point in points[: points.index(deepest(points)) + 1]:  # what follows is pooled, not a map
        other = best.get(point.fraction)
        if other is None or point.level <= other.level:
            best[point.fraction] = point
    return [point for fraction, point in best.items() if 0.0 < fraction <= _LATEST]
