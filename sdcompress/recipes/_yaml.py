"""YAML that may come from a stranger: bounded in size, depth and what its aliases stand for."""

from __future__ import annotations

import re
from typing import Any

import yaml

from sdcompress.errors import RecipeError

__all__ = ["MOST_BYTES", "dump_yaml", "load_yaml"]

MOST_BYTES = 2**14  # five times a recipe with every key written out; takes PyYAML half a second
MOST_VALUES = 10_000  # with every alias written out
DEEPEST = 20
_LARGEST_INTEGER = 2**64

_NULL, _BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
_MERGE = "tag:yaml.org,2002:merge"
_KNOWN = (_NULL, _BOOL, *(f"tag:yaml.org,2002:{name}" for name in ("int", "float", "str", "seq", "map")))
# YAML 1.1, which PyYAML reads, takes 1e-1 for text, 1:30 for 90 and 2024-01-01 for a date; YAML 1.2 does not
_FLOATS = re.compile(
    r"""[-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?$
       |[-+]?\.[0-9][0-9_]*([eE][-+]?[0-9]+)?$
       |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$
       |[-+]?\.(inf|Inf|INF)$
       |\.(nan|NaN|NAN)$""",
    re.VERBOSE,
)
_INTEGERS = re.compile(r"[-+]?(0b[0-1_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$")


def load_yaml(text: str, description: str) -> Any:
    """The value of a YAML text, of mappings, lists, texts, numbers, booleans and null alone.

    Args:
        text: the YAML.
        description: names it in an error.

    Raises:
        RecipeError: if it is no valid YAML, or larger, deeper or of other kinds than a recipe needs.
    """
    if len(text) > MOST_BYTES:
        raise RecipeError(
            f"There are more than {MOST_BYTES:,} characters in {description}.",
            allowed=f"a recipe of at most {MOST_BYTES:,} bytes",
            next_step="check that it is a recipe: 'sdcompress train --print-config' shows what one looks like",
        )
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, TypeError) as error:  # the last two: !!int of a word, a list as a key
        problem = getattr(error, "problem", None) or (str(error) or "it cannot be read").splitlines()[0]
        mark = getattr(error, "problem_mark", None)
        position = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RecipeError(
            f"There is no valid YAML in {description}: {problem[:200]}{position}.", next_step="correct the text"
        ) from error


def dump_yaml(tree: Any) -> str:
    """A value as YAML that ``load_yaml`` and readers of YAML 1.1 read back as the same."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """A SafeLoader with numbers as in YAML 1.2, in which no key may stand twice, within the bounds of this module."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as in the base class
        first: [(tag, form) for tag, form in resolvers if tag in (_NULL, _BOOL, _MERGE)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012 - as in the base class
        tag: make for tag, make in yaml.SafeLoader.yaml_constructors.items() if tag is None or tag in _KNOWN
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._measured: dict[int, tuple[int, int]] = {}  # values and depth of each node that is complete

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._measured:
                raise yaml.MarkedYAMLError(problem="an alias stands within what it names", problem_mark=mark)
            return node
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"it is nested more than {DEEPEST} deep", problem_mark=mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._measure(node, mark)
        return node

    def _measure(self, node: yaml.Node | None, mark: yaml.Mark) -> None:
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inner = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        sizes = [self._measured[id(child)] for child in inner]
        values, depth = 1 + sum(size for size, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)
        if values > MOST_VALUES or depth > DEEPEST:
            raise yaml.MarkedYAMLError(
                problem=f"with its aliases written out it holds more than {MOST_VALUES:,} values, or more than "
                f"{DEEPEST} levels",
                problem_mark=mark,
            )
        self._measured[id(node)] = values, depth

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is a list or a mapping", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def _integer(self, node: yaml.ScalarNode) -> int:
        # Python refuses thousands of digits by itself; nothing here needs more than 64 bits
        value = self.construct_yaml_int(node) if len(node.value) < 100 else _LARGEST_INTEGER
        if abs(value) >= _LARGEST_INTEGER:
            raise yaml.MarkedYAMLError(problem="an integer has more than 64 bits", problem_mark=node.start_mark)
        return int(value)


class _Dumper(yaml.SafeDumper):
    """A SafeDumper that quotes what either version of YAML takes for a number."""


_Loader.add_constructor(_INT, _Loader._integer)  # noqa: SLF001 - this module's
_Loader.add_implicit_resolver(_INT, _INTEGERS, list("-+0123456789"))
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_FLOAT, _FLOATS, list("-+.0123456789"))
