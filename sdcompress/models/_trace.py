"""Record a backbone as nodes in order of execution, with a marker at every module's output, and count its MACs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from sdcompress.errors import RecipeError

__all__ = ["MacCounter", "Trace", "evaluating", "main_output", "trace", "with_main_output"]

# What tracing raises for code that it cannot follow; anything else is a bug of ours and keeps its traceback.
_TRACING_ERRORS = (RuntimeError, ValueError, TypeError, AssertionError, AttributeError, KeyError)


@torch.library.custom_op("sdcompress::mark", mutates_args=(), schema="(Tensor x, str name) -> Tensor")
def _mark(x: Tensor, name: str) -> Tensor:  # noqa: ARG001 - the name is read from the graph
    return x.clone()


@_mark.register_fake
def _(x: Tensor, name: str) -> Tensor:  # noqa: ARG001
    return torch.empty_like(x)


class Trace:
    """The nodes between a backbone's inputs and its output.

    Args:
        program: what ``torch.export`` made of the marked backbone.

    Attributes:
        order: the nodes that depend on the inputs and that the output depends on, in order of execution.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self.order = _between_input_and_output(program)
        self._light = _light(program, self.order)
        self._position = {node: i for i, node in enumerate(self.order)}
        self._last_use = [
            max((self._position.get(user, len(self.order)) for user in node.users if self._matters(user)), default=i)
            for i, node in enumerate(self.order)
        ]
        self._macs = _cumulative_macs(self.order)
        self.calls = Counter(str(node.args[1]) for node in self.order if _is_marker(node))

    def cuts(self) -> Iterator[tuple[list[str], tuple[int, ...], float]]:
        """Each value after which nothing older is needed: modules that end there, its shape, share of the MACs.

        In a network of several inputs an input, such as a mask, and what is computed of it without weights do not
        count: a cut hands them on beside the value.

        The modules are in order of execution, so that the last is the outermost of those that hold one another.
        A value that is overwritten in place later is excluded: a kept reference to it would hold other numbers.
        """
        needed_until = -1
        for i, node in enumerate(self.order):
            if _is_marker(node) and needed_until <= i and not _is_marker(self._source(node)):
                names = [str(member.args[1]) for member in self._same_value(node)]
                if not _overwritten(node):
                    yield names, tuple(node.meta["val"].shape), self._macs[i] / max(1, self._macs[-1])
            if node not in self._light:
                needed_until = max(needed_until, self._last_use[i])

    def _matters(self, user: fx.Node) -> bool:
        return user in self._position or user.op == "output"

    def _source(self, marker: fx.Node) -> fx.Node:
        return marker.all_input_nodes[0]

    def _same_value(self, marker: fx.Node) -> Iterator[fx.Node]:
        """Yield the marker and those that mark its output again without anything in between."""
        yield marker
        for user in marker.users:
            if _is_marker(user):
                yield from self._same_value(user)


def trace(backbone: nn.Module, example: tuple[Tensor, ...]) -> Trace:
    """Record what a backbone computes in evaluation mode; the backbone is left as it was.

    Args:
        backbone: any network with one output.
        example: its inputs, each [B, ...], on the backbone's device.

    Raises:
        RecipeError: if ``torch.export`` cannot follow it.
    """
    try:
        with _marked(backbone), evaluating(backbone), torch.no_grad():
            program = torch.export.export(backbone, example, strict=False)
    except _TRACING_ERRORS as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise RecipeError(
            f"torch.export cannot follow this backbone, so it can be neither cut nor exported: {reason}",
            next_step="choose another backbone in model.name, or rewrite the code that branches on a tensor's values",
        ) from error
    return Trace(program)


def main_output(output: Any) -> Tensor | None:
    """The floats that a module gives: its output, or the first of a tuple (as transformers' layers have it)."""
    first = output[0] if type(output) is tuple and output else output
    return first if isinstance(first, Tensor) and first.is_floating_point() else None


def with_main_output(output: Any, value: Tensor) -> Any:
    """The output of a module with other floats in the place of ``main_output``."""
    return (value, *output[1:]) if type(output) is tuple else value


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; every submodule gets its own mode back.

    Networks that cache in evaluation mode (LeViT its attention biases) forget it when they go to training mode: so no
    cache of before is seen inside, and none of the inside, which may hold no real data, is seen after.
    """
    modes = [(member, member.training) for member in module.modules()]
    module.train()
    module.eval()
    try:
        yield
    finally:
        module.train()
        for member, mode in modes:
            member.training = mode


@contextmanager
def _marked(backbone: nn.Module) -> Iterator[None]:
    def marker(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            value = main_output(output)
            return None if value is None else with_main_output(output, _mark(value, name))

        return hook

    handles = [module.register_forward_hook(marker(name)) for name, module in backbone.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _light(program: ExportedProgram, order: list[fx.Node]) -> set[fx.Node]:
    """The inputs of a network of several, and what is computed of them without weights; nothing where there is one."""
    specs = program.graph_signature.input_specs
    if sum(spec.kind is InputKind.USER_INPUT for spec in specs) < 2:
        return set()
    weights = {spec.arg.name for spec in specs if spec.kind is InputKind.PARAMETER}
    learned: set[fx.Node] = set()
    for node in program.graph.nodes:
        if node.name in weights or any(source in learned for source in node.all_input_nodes):
            learned.add(node)
    return {node for node in order if node not in learned}


def _is_marker(node: fx.Node) -> bool:
    return node.op == "call_function" and node.target is torch.ops.sdcompress.mark.default


def _between_input_and_output(program: ExportedProgram) -> list[fx.Node]:
    specs = program.graph_signature.input_specs
    inputs = {spec.arg.name for spec in specs if spec.kind is InputKind.USER_INPUT}
    dependent: set[fx.Node] = set()
    for node in program.graph.nodes:
        if (node.op == "placeholder" and node.name in inputs) or any(n in dependent for n in node.all_input_nodes):
            dependent.add(node)
    needed: set[fx.Node] = set()
    for node in reversed(list(program.graph.nodes)):
        if node in dependent and (node.op == "output" or any(user in needed for user in node.users)):
            needed.add(node)
    return [node for node in program.graph.nodes if node in needed and node.op != "output"]


def _cumulative_macs(order: list[fx.Node]) -> list[int]:
    """MACs spent up to and with each node, counted by running every node once on tensors without data."""
    fake = next(node.meta["val"].fake_mode for node in order if isinstance(node.meta.get("val"), Tensor))
    totals = []
    with fake, torch.no_grad(), MacCounter() as counter:
        for node in order:
            if isinstance(node.target, torch._ops.OpOverload) and not _is_marker(node):  # noqa: SLF001 - no public name
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
                node.target(*args, **kwargs)
            totals.append(counter.total)
    return totals


def _overwritten(node: fx.Node) -> bool:
    """Return whether an operator writes into this value, or into a view of it."""
    for user in node.users:
        if _is_marker(user):
            if _overwritten(user):
                return True
        elif isinstance(user.target, torch._ops.OpOverload):  # noqa: SLF001 - no public name
            for given, formal in zip(user.args, user.target._schema.arguments, strict=False):  # noqa: SLF001
                alias = formal.alias_info
                if given is node and alias is not None and (alias.is_write or _overwritten(user)):
                    return True
    return False


class MacCounter:
    """Counts the MACs of convolutions, matrix products and attention that run inside its context.

    A MAC is two of torch's floating-point operations. Norms, activations and poolings count as nothing, as in the
    figures that papers print.
    """

    def __init__(self) -> None:
        kernels = (torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,)  # noqa: SLF001 - an operator's name
        self._flops = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(kernels, _attention_flops))

    def __enter__(self) -> MacCounter:
        self._flops.__enter__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return self

    def __exit__(self, *raised: Any) -> None:
        self._flops.__exit__(*raised)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    @property
    def total(self) -> int:
        """MACs so far."""
        return int(self._flops.get_total_flops()) // 2


def _attention_flops(query: Any, key: Any, value: Any, *_args: Any, out_shape: Any = None, **_kwargs: Any) -> int:  # noqa: ARG001
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]  # torch leaves it untyped
