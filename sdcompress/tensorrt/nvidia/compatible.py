"""Choose which of an artifact's engines this machine can load, from the manifest alone."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from sdcompress.errors import SetupError
from sdcompress.schema.engines import Engines
from sdcompress.tensorrt.nvidia.gpu_query import Gpu

__all__ = ["choose_engines", "incompatibility", "same_machine"]

# majors whose version-compatible plans a major loads; 8.6 is the first that makes them
_LOADS = {8: (8,), 10: (8, 10), 11: (10, 11)}
_AMPERE = (8, 0)


def choose_engines(
    engines: Sequence[Engines], *, tensorrt: str, gpu: Gpu, artifact: str, lean: bool = False
) -> Engines:
    """Return the engines to load: those built for exactly this machine, else the last that it can load.

    Args:
        engines: of the artifact's manifest.
        tensorrt: version that is installed here.
        gpu: that is here.
        artifact: its folder, for the message.
        lean: whether only tensorrt_lean is here, which loads version-compatible plans and no others.

    Raises:
        SetupError: if there are none for this machine; it names the command that builds them.
    """
    incompatibilities = [incompatibility(built, tensorrt=tensorrt, gpu=gpu, lean=lean) for built in engines]
    usable = [built for built, reason in zip(engines, incompatibilities, strict=True) if reason is None]
    exact = [built for built in usable if same_machine(built, tensorrt=tensorrt, gpu=gpu)]
    if usable:
        return (exact or usable)[-1]
    reasons = [str(reason) for reason in incompatibilities]
    problem = "; ".join(reasons) if reasons else f"'{artifact}' has no TensorRT engines"
    folder = shlex.quote(str(artifact))
    raise SetupError(
        f"{problem[0].upper()}{problem[1:]}.",
        allowed=f"engines that TensorRT {tensorrt} can load on {gpu.name} ({gpu.compute_capability})",
        next_step=f"sdcompress build-engines {folder} --out {folder} --overwrite",
    )


def same_machine(engines: Engines, *, tensorrt: str, gpu: Gpu) -> bool:
    """Whether engines were built with this TensorRT on this kind of GPU."""
    built = (engines.tensorrt, engines.gpu, engines.compute_capability)
    return built == (tensorrt, gpu.name, gpu.compute_capability)


def incompatibility(engines: Engines, *, tensorrt: str, gpu: Gpu, lean: bool = False) -> str | None:
    """Return why engines cannot be loaded here, as the beginning of a sentence; None if they can.

    A plan runs with the TensorRT version that built it, all four numbers, and on the same GPU. A version-compatible
    plan (from 8.6) also runs with later versions, up to the next major one. A hardware-compatible plan also runs on
    other GPUs: on all from Ampere (compute capability 8.0), or on all of its compute capability. Source: TensorRT's
    documentation, "Engine compatibility" of 11.1 and "Version compatibility" of 10.16.

    Args:
        engines: of the artifact's manifest.
        tensorrt: version that is installed here.
        gpu: that is here.
        lean: see ``choose_engines``.
    """
    if _loads(engines, tensorrt) and _runs_on(engines, gpu):
        if lean and not engines.version_compatible:
            return "the engines were built without --version-compatible, which tensorrt_lean, alone here, needs"
        return None
    return (
        f"the engines were built with TensorRT {engines.tensorrt} for {engines.gpu} ({engines.compute_capability})"
        f"{_widened(engines)}, here are TensorRT {tensorrt} and {gpu.name} ({gpu.compute_capability})"
    )


def _loads(engines: Engines, tensorrt: str) -> bool:
    if engines.tensorrt == tensorrt:
        return True
    built, installed = _numbers(engines.tensorrt), _numbers(tensorrt)
    return engines.version_compatible and (8, 6) <= built <= installed and built[0] in _LOADS.get(installed[0], ())


def _runs_on(engines: Engines, gpu: Gpu) -> bool:
    built, present = _numbers(engines.compute_capability), _numbers(gpu.compute_capability)
    if engines.hardware_compatibility == "ampere_plus":
        return present >= _AMPERE
    if engines.hardware_compatibility == "same_compute_capability":
        return built == present
    return built == present and engines.gpu == gpu.name


def _widened(engines: Engines) -> str:
    wider = ["later versions"] if engines.version_compatible else []
    if engines.hardware_compatibility == "ampere_plus":
        wider.append("every GPU from 8.0")
    elif engines.hardware_compatibility == "same_compute_capability":
        wider.append(f"every GPU of {engines.compute_capability}")
    return f" and {' and '.join(wider)}" if wider else ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))
