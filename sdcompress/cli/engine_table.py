"""The engines of an artifact as tables. Nothing is computed here."""

from __future__ import annotations

from sdcompress.cli.screen import say, table
from sdcompress.schema.engines import Engines, SiblingTime, Validation

__all__ = ["show_engines"]


def show_engines(built: Engines, precision: str) -> None:
    """The plans for one machine, how far they are from the graphs, and which precision is faster.

    Args:
        built: engines.
        precision: of the graphs that they were built from.
    """
    compatible = [] if built.hardware_compatibility == "none" else [f"other GPUs: {built.hardware_compatibility}"]
    compatible += ["later versions"] if built.version_compatible else []
    rows = [
        [
            plan.file,
            f"{plan.bytes / 2**20:.2f}",
            f"{plan.device_memory_bytes / 2**20:.2f}",
            ", ".join(f"{number} {kind}" for kind, number in plan.layers.items()),
        ]
        for plan in built.plans
    ]
    title = f"TensorRT {built.tensorrt} for {built.gpu} ({built.compute_capability})"
    table(["plan", "MiB", "scratch MiB", "layers"], rows, title)
    worst = max((record.max_abs / record.allowed for record in built.parity), default=None)
    say(
        f"batches {', '.join(f'{each.min}:{each.opt}:{each.max}' for each in built.profiles)}; TF32 "
        f"{'on' if built.tf32 else 'off'}; level {'default' if built.level is None else built.level}"
        + (f"; also for {' and '.join(compatible)}" if compatible else "")
        + ("" if worst is None else f"; logits within {worst:.0%} of what is allowed on the golden images")
    )
    if built.validation:
        _show_validation(built.validation)
    else:
        say("not held against validation images")
    for time in built.siblings:
        say(_raced(time, precision))


def _show_validation(found: Validation) -> None:
    rows = [
        [
            each.name,
            f"{each.accuracy_before:.2%}",
            f"{each.accuracy_after:.2%}",
            f"{each.changed}",
            f"{each.max_abs:.2g}",
        ]
        for each in found.exits
    ]
    columns = ["exit", "graphs", "engines", "other answers", "largest difference of a logit"]
    table(columns, rows, f"on {found.images} validation images (at most {found.max_drop:.2%} may be lost)")
    if policy := found.policy:
        say(
            f"by the policy: {policy.accuracy_before:.2%} by the graphs, {policy.accuracy_after:.2%} by the engines; "
            f"{policy.moved} images leave at another exit, {policy.changed} get another answer"
        )


def _raced(time: SiblingTime, precision: str) -> str:
    said = (
        f"{precision} is {time.verdict} here than" if time.verdict != "no difference" else f"{precision} is as fast as"
    )
    return (
        f"{said} {time.precision} ({time.digest[:12]}): {time.ms:.3f} ms against {time.sibling_ms:.3f} ms at batch "
        f"{time.batch}, {time.speedup:.2f}x [{time.low:.2f}, {time.high:.2f}]"
    )
