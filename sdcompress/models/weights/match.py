"""Match the tensors of a file with those of a network: by name, by name under other prefixes, or by order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Match", "Shapes", "match_names", "match_order"]

Shapes = Mapping[str, tuple[int, ...]]
_SHARE = 8  # a prefix of a file is looked at where at least one name of eight has it
_DEPTH = 5  # parts of a prefix


@dataclass(frozen=True)
class Match:
    """Which tensor of a file goes where.

    Attributes:
        pairs: name in the network -> name in the file; both have one shape.
        other_shape: likewise, of pairs that differ in shape and are not taken.
        prefixes: what was stripped from names of the file, and from names of the network.
    """

    pairs: Mapping[str, str]
    other_shape: Mapping[str, str]
    prefixes: tuple[str, str] = ("", "")


def match_names(file: Shapes, network: Shapes) -> Match:
    """Match equal names of equal shapes, under the two prefixes (or none) that match most.

    Prefixes such as ``module.`` or ``model.backbone.`` are found in the names themselves. A name without the prefix
    stays as it is. Of equal matches the one with the shortest prefixes is taken, then the one that the file has first.

    Args:
        file: name -> shape.
        network: name -> shape.
    """
    matches = (
        _match(file, network, of_file, of_network)
        for of_file in _prefixes(file, len(file) / _SHARE)
        for of_network in _prefixes(network, len(network) / 2)
    )
    return max(matches, key=lambda match: (len(match.pairs), -sum(map(len, match.prefixes))))


def match_order(file: Shapes, network: Shapes, last: Sequence[str] = ()) -> Match | None:
    """Match the tensors one after the other; None where the lists do not fit each other.

    Args:
        file: name -> shape, in the order of the file, without counters such as ``num_batches_tracked``.
        network: likewise, of the network.
        last: names of the network's output layer, which the file may lack, or have in another size.
    """
    body = [name for name in network if name not in last]
    names = list(network) if len(file) == len(network) else body
    if len(file) != len(names):
        return None
    pairs = dict(zip(names, file, strict=True))
    other = {name: source for name, source in pairs.items() if network[name] != file[source]}
    if any(name not in last for name in other):
        return None
    return Match({name: source for name, source in pairs.items() if name not in other}, other)


def _match(file: Shapes, network: Shapes, of_file: str, of_network: str) -> Match:
    sources = _stripped(file, of_file)
    equal = {name: sources[bare] for bare, name in _stripped(network, of_network).items() if bare in sources}
    pairs = {name: source for name, source in equal.items() if network[name] == file[source]}
    other = {name: source for name, source in equal.items() if name not in pairs}
    return Match(pairs, other, (of_file, of_network))


def _stripped(names: Iterable[str], prefix: str) -> dict[str, str]:
    """Return name without the prefix -> name; a name that has it goes before one that is so anyway."""
    names = list(names)
    kept = {name: name for name in names if not (prefix and name.startswith(prefix))}
    return {**kept, **{name.removeprefix(prefix): name for name in names if prefix and name.startswith(prefix)}}


def _prefixes(names: Iterable[str], least: float) -> list[str]:
    """Return no prefix, and every dotted beginning that at least so many names have, in the order of the names."""
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        counts.update(".".join(parts[:depth]) + "." for depth in range(1, min(len(parts), _DEPTH + 1)))
    return ["", *(prefix for prefix, count in counts.items() if count >= least)]
