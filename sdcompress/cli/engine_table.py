"""The engines of an artifact as a table. Nothing is computed here."""

from __future__ import annotations

from sdcompress.cli.screen import say, table
from sdcompress.schema.engines import Engines

__all__ = ["show_engines"]


def show_engines(built: Engines) -> None:
    """The plans for one machine."""
    batches = ", ".join(f"{profile.min}:{profile.opt}:{profile.max}" for profile in built.profiles)
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
        f"batches {batches}; TF32 {'on' if built.tf32 else 'off'}; level "
        f"{'default' if built.level is None else built.level}"
        + (f"; also for {' and '.join(compatible)}" if compatible else "")
        + ("" if worst is None else f"; logits within {worst:.0%} of what is allowed on the golden images")
    )
