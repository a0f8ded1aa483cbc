"""doctor: list installed packages by extra, and conditions that disturb measurements. Imports no torch."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version

from sdcompress.machine import machine, most_threads, visible_cores
from sdcompress.schema.base import Frozen
from sdcompress.schema.report import Machine
from sdcompress.tensorrt.nvidia.diagnose import TensorRtState, diagnose_tensorrt

__all__ = ["Diagnosis", "Extra", "Package", "doctor", "new_enough", "read_requirements"]

# extras that combine others, or are for development
_UNIONS = {"all", "dev", "docs"}
# builds for a GPU or a CUDA version that install the same module
_OTHER_NAMES = {
    "onnxruntime": ("onnxruntime-gpu",),
    "tensorrt": ("tensorrt-cu13", "tensorrt-cu12", "tensorrt-lean", "tensorrt-lean-cu13", "tensorrt-lean-cu12"),
}
_PYTHON = re.compile(r"python_version\s*(>=|<)\s*['\"](\d+\.\d+)['\"]")
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)(?:>=([0-9.]+))?[^;]*(?:;.*extra\s*==\s*['\"]([\w-]+)['\"])?")


class Package(Frozen):
    """A package of an extra with its required and installed versions."""

    name: str
    minimum: str | None
    installed: str | None
    right: bool


class Extra(Frozen):
    """The packages of one extra of sdcompress; "core" is always required."""

    name: str
    packages: tuple[Package, ...]
    complete: bool
    install: str


class Diagnosis(Frozen):
    """The result of ``sdcompress doctor``."""

    machine: Machine
    hardware_threads: int | None
    providers: tuple[str, ...]
    extras: tuple[Extra, ...]
    tensorrt: TensorRtState
    warnings: tuple[str, ...]


def doctor() -> Diagnosis:
    """Diagnose this machine. Takes about a second, changes nothing and works offline."""
    facts = machine()
    providers = _providers()
    extras = tuple(_extra(name, needs) for name, needs in read_requirements(requires("sdcompress") or ()).items())
    return Diagnosis(
        machine=facts,
        hardware_threads=os.cpu_count(),
        providers=providers,
        extras=extras,
        tensorrt=diagnose_tensorrt(),
        warnings=tuple(_warnings(facts, visible_cores(), providers)),
    )


def read_requirements(lines: Iterable[str]) -> dict[str, list[tuple[str, str | None]]]:
    """Return the packages of each extra with their minimum versions, from lines of installed metadata."""
    extras: dict[str, list[tuple[str, str | None]]] = {}
    for line in lines:
        match = _REQUIREMENT.match(line)
        if match and match.group(1) != "sdcompress" and match.group(3) not in _UNIONS and _for_this_python(line):
            extras.setdefault(match.group(3) or "core", []).append((match.group(1), match.group(2)))
    return extras


def _for_this_python(line: str) -> bool:
    """Return whether the Python version marker of a requirement applies here."""
    condition = _PYTHON.search(line)
    if condition is None:
        return True
    running, bound = list(sys.version_info[:2]), [int(part) for part in condition.group(2).split(".")]
    return running >= bound if condition.group(1) == ">=" else running < bound


def new_enough(installed: str, minimum: str | None) -> bool:
    """Return whether a version is at least the minimum. Suffixes such as rc1 and +cpu are ignored."""
    return minimum is None or _numbers(installed) >= _numbers(minimum)


def _numbers(text: str) -> list[int]:
    release = re.match(r"[0-9.]*[0-9]|", text)
    numbers = [int(part) for part in (release.group(0) if release else "").split(".") if part]
    while numbers and numbers[-1] == 0:  # 2.9.0 is 2.9
        numbers.pop()
    return numbers


def _extra(name: str, requirements: list[tuple[str, str | None]]) -> Extra:
    packages = tuple(_package(*need) for need in requirements)
    install = "pip install --upgrade " + ("sdcompress" if name == "core" else f"'sdcompress[{name}]'")
    return Extra(name=name, packages=packages, complete=all(p.right for p in packages), install=install)


def _package(name: str, minimum: str | None) -> Package:
    installed = _installed(name)
    right = installed is not None and new_enough(installed, minimum)
    return Package(name=name, minimum=minimum, installed=installed, right=right)


def _installed(name: str) -> str | None:
    for candidate in (name, *_OTHER_NAMES.get(name, ())):
        try:
            return version(candidate)
        except PackageNotFoundError:  # noqa: PERF203 - a few rounds at most
            continue
    return None


def _providers() -> tuple[str, ...]:
    try:
        import onnxruntime
    except ImportError:  # the list of packages shows it
        return ()
    return tuple(onnxruntime.get_available_providers())


def _warnings(facts: Machine, visible: int, providers: tuple[str, ...]) -> list[str]:
    warnings = []
    if facts.quota is not None and facts.quota < visible:
        warnings.append(
            f"A control group allows {facts.quota:g} of {visible} cores: more threads than that are throttled."
        )
    if facts.governor == "powersave":
        warnings.append("The clock governor is 'powersave', so that times drift. Setting 'performance' needs root.")
    if facts.busy_cores is not None and facts.busy_cores > 0.25:
        warnings.append(f"Other work is running ({facts.busy_cores:.1f} of {most_threads()} cores busy).")
    if facts.gpu and "CUDAExecutionProvider" not in providers:
        warnings.append("There is a GPU, but this onnxruntime cannot use it. Install onnxruntime-gpu instead.")
    if {"onnxruntime", "onnxruntime-gpu"} <= set(facts.versions):
        warnings.append(
            "onnxruntime and onnxruntime-gpu overwrite each other's files. Uninstall both, then install one."
        )
    return warnings
