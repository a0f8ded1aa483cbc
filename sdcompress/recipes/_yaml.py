"""Read untrusted YAML with limits on size, depth and expanded aliases."""

from __future__ import annotations

import re
from typing import Any

import yaml

from sdcompress.errors import RecipeError

__all__ = ["MAX_BYTES", "dump_yaml", "load_yaml"]

MAX_BYTES = 2**14  # five times a recipe with all keys; PyYAML takes half a second for it
MAX_VALUES = 10_000  # with aliases expanded
MAX_DEPTH = 20
_MAX_INTEGER = 2**64

_NULL, _BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
_MERGE = "tag:yaml.org,2002:merge"
_KNOWN = (_NULL, _BOOL, *(f"tag:yaml.org,2002:{name}" for name in ("int", "float", "str", "seq", "map")))
# PyYAML reads YAML 1.1, in which 1e-1 is text, 1:30 is 90 and 2024-01-01 is a date; YAML 1.2 differs
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
    """Return the value of a YAML text of mappings, lists, strings, numbers, booleans and null.

    Args:
        text: the YAML.
        description: of the text, for errors.

    Raises:
        RecipeError: if it is not valid YAML, or exceeds the limits or types of a recipe.
    """
    if len(text) > MAX_BYTES:
        raise RecipeError(
            f"There are more than {MAX_BYTES:,} characters in {description}.",
            allowed=f"a recipe of at most {MAX_BYTES:,} bytes",
            next_step="check that it is a recipe; 'sdcompress train --print-config' shows an example",
        )
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, TypeError) as error:  # ValueError: !!int of a word; TypeError: a list as a key
        problem = getattr(error, "problem", None) or (str(error) or "it cannot be read").splitlines()[0]
        mark = getattr(error, "problem_mark", None)
        position = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RecipeError(
            f"There is no valid YAML in {description}: {problem[:200]}{position}.", next_step="correct the text"
        ) from error


def dump_yaml(tree: Any) -> str:
    """Return a value as YAML that ``load_yaml`` and YAML 1.1 readers read back unchanged."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """A SafeLoader with numbers of YAML 1.2, unique keys, and the limits of this module."""

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
        self._measured: dict[int, tuple[int, int]] = {}  # values and depth of each complete node

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._measured:
                raise yaml.MarkedYAMLError(problem="an alias refers to a node that contains it", problem_mark=mark)
            return node
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"it is nested more than {MAX_DEPTH} deep", problem_mark=mark)
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
        if values > MAX_VALUES or depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"with its aliases expanded it holds more than {MAX_VALUES:,} values, or more than "
                f"{MAX_DEPTH} levels",
                problem_mark=mark,
            )
        self._measured[id(node)] = values, depth

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is a list or a mapping", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' is repeated", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def _integer(self, node: yaml.ScalarNode) -> int:
        # Python itself limits digits to thousands; recipes need at most 64 bits
        value = self.construct_yaml_int(node) if len(node.value) < 100 else _MAX_INTEGER
        if abs(value) >= _MAX_INTEGER:
            raise yaml.MarkedYAMLError(problem="an integer has more than 64 bits", problem_mark=node.start_mark)
        return int(value)


class _Dumper(yaml.SafeDumper):
    """A SafeDumper that quotes text that YAML 1.1 or 1.2 reads as a number."""


_Loader.add_constructor(_INT, _Loader._integer)  # noqa: SLF001 - this module's
_Loader.add_implicit_resolver(_INT, _INTEGERS, list("-+0123456789"))
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_FLOAT, _FLOATS, list("-+.0123456789"))
