"""What a shell offers while a command is typed: names of methods, models and the like. Loads nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

__all__ = ["complete_from", "complete_method", "complete_model", "complete_recipe"]

Offer = tuple[str, str]  # a word and what it means


def complete_from(room: str) -> Callable[[str], list[Offer]]:
    """Return a completion of the entries of a room, such as ``sdcompress.policies``."""

    def complete(incomplete: str) -> list[Offer]:
        return [offer for offer in _entries(room) if offer[0].startswith(incomplete)]

    return complete


def complete_method(incomplete: str) -> list[Offer]:
    """Methods; behind a plus the second one of two."""
    first, plus, second = incomplete.rpartition("+")
    offers = complete_from("sdcompress.methods")(second)
    return [(f"{first}{plus}{name}", text) for name, text in offers]


def complete_model(incomplete: str) -> list[Offer]:
    """Families of backbones with a colon; behind it the networks that the family names."""
    from sdcompress import registry

    room = "sdcompress.models.backbones"
    family, colon, name = incomplete.partition(":")
    if not colon:
        return [(f"{known}:", text) for known, text in complete_from(room)(family)]
    networks = registry.members(room, family) if family in registry.names(room) else ()
    return [(f"{family}:{network}", "") for network in networks if network.startswith(name)]


def complete_recipe(incomplete: str) -> list[Offer]:
    """Shipped recipes; where none fits, the shell offers files."""
    from sdcompress import recipes

    return [(name, recipes.describe(name)) for name in recipes.names() if name.startswith(incomplete)]


def _entries(room: str) -> Iterator[Offer]:
    from sdcompress import registry

    return ((name, registry.describe(room, name)) for name in registry.names(room))
