"""doctor: show which packages and devices are available."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sdcompress
from sdcompress.cli.console import say, write_json
from sdcompress.cli.options import Json

if TYPE_CHECKING:
    from sdcompress.verbs.doctor import Diagnosis

__all__ = ["doctor"]


def doctor(json: Json = False) -> None:
    """Show what is installed, how to install what is missing, and what disturbs measurements here.

    Example: sdcompress doctor --json
    """
    diagnosis = sdcompress.doctor()
    if json:
        write_json(diagnosis.model_dump(mode="json"))
    else:
        _show(diagnosis)


def _show(result: Diagnosis) -> None:
    """Print the diagnosis."""
    machine = result.machine
    say(f"{machine.cpu}: {machine.cores} usable cores, {machine.memory_gib:.1f} GiB, {', '.join(machine.isa)}")
    say(f"{machine.os}, Python {machine.python}, GPU: {machine.gpu or 'none'}")
    say(f"onnxruntime providers: {', '.join(result.providers) or 'none'}")
    for extra in result.extras:
        missing = [p.name + (f">={p.minimum}" if p.minimum else "") for p in extra.packages if not p.right]
        state = "complete" if extra.complete else f"missing {', '.join(missing)}: {extra.install}"
        say(f"{extra.name:<8} {state}")
    trt = result.tensorrt
    say(f"TensorRT: {trt.tensorrt or 'none'}, cuda-bindings {trt.cuda_bindings or 'none'}, on {trt.gpu or 'no GPU'}")
    for piece in trt.missing:
        say(f"  missing for build-engines: {piece}")
    for warning in result.warnings:
        say(f"warning: {warning}")
