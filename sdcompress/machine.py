"""Describe the machine: processor, usable cores, memory, GPU and versions. Imports nothing heavy."""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from sdcompress.errors import UsageError
from sdcompress.schema.report import Machine

__all__ = [
    "ThreadCount",
    "available_memory",
    "busy_cores",
    "check_threads",
    "cores",
    "default_threads",
    "describe_cpu",
    "gpu",
    "installed_versions",
    "machine",
    "memory_limit",
    "most_threads",
    "parse_quota",
    "processor",
    "quota",
    "visible_cores",
]

_CPUINFO = Path("/proc/cpuinfo")
_CGROUP = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_STAT = Path("/proc/stat")
_MEMINFO = Path("/proc/meminfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")

# vector extensions by which ONNX Runtime and oneDNN choose kernels, as in /proc/cpuinfo (x86, then Arm)
_ISA = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)


def machine() -> Machine:
    """Describe this machine now. Takes half a second to measure the load of other work."""
    name, isa = processor()
    return Machine(
        cpu=name,
        cores=cores(),
        quota=quota(),
        isa=isa,
        memory_gib=round(_memory_bytes() / 2**30, 1),
        gpu=gpu(),
        os=platform.platform(),
        python=platform.python_version(),
        governor=_read(_GOVERNOR),
        busy_cores=busy_cores(),
        versions=installed_versions(),
    )


def cores() -> int:
    """Return the cores that this process may use: its affinity mask, limited by the quota of control groups."""
    allowed = quota()
    return visible_cores() if allowed is None else max(1, min(visible_cores(), math.ceil(allowed)))


def visible_cores() -> int:
    """Return the cores in the affinity mask, which libraries count, without quotas."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def busy_cores(seconds: float = 0.5) -> float | None:
    """Return the cores that are busy while this process sleeps; None if the system does not tell.

    The load average is not used, because it includes earlier work of this process for minutes.

    Args:
        seconds: duration of the measurement.
    """
    before = _read(_STAT)
    if before is None:
        return None
    time.sleep(seconds)
    busy, total = (after - b for after, b in zip(_ticks(_read(_STAT) or before), _ticks(before), strict=True))
    return round((os.cpu_count() or 1) * busy / total, 2) if total else None


class ThreadCount(NamedTuple):
    """A number of threads with the reason for it."""

    threads: int
    reason: str


@cache
def default_threads() -> ThreadCount:
    """Return the default number of threads for heavy work: the usable cores that other work leaves free.

    More threads than free cores make work many times slower. The result is cached, because later this process itself is
    the load. The first call takes a fifth of a second.
    """
    named = os.environ.get("OMP_NUM_THREADS", "").strip()
    if named.isdecimal() and 1 <= int(named) <= most_threads():
        return ThreadCount(int(named), "OMP_NUM_THREADS is set")
    usable, allowed, busy = cores(), quota(), busy_cores(0.2) or 0.0
    reason = f"the cores that this process may use: {usable}"
    if allowed is not None and allowed < usable:
        usable, reason = max(1, int(allowed)), f"the control group allows {allowed:g} cores"
    free = max(1, round((os.cpu_count() or 1) - busy))
    if free < usable:
        return ThreadCount(free, f"other work keeps {busy:.1f} of {os.cpu_count()} cores busy")
    return ThreadCount(usable, reason)


def most_threads() -> int:
    """Return the number of threads that this machine can run at once."""
    return os.cpu_count() or 1


def check_threads(threads: int, name: str = "threads") -> None:
    """Refuse a number of threads below 1 or above what the machine runs at once.

    Args:
        threads: of one computation.
        name: of the setting, for the message.

    Raises:
        UsageError: if it is below 1, or more than this machine runs at once.
    """
    if not 1 <= threads <= most_threads():
        raise UsageError(
            f"{name} is {threads}.",
            allowed=f"1 to {most_threads()}, which this machine runs at once",
            next_step="lower it, or leave it out",
        )


def _ticks(stat: str) -> tuple[int, int]:
    """Return clock ticks of all cores since boot: busy, and total."""
    counts = [int(word) for word in stat.partition("\n")[0].split()[1:9]]  # the remaining fields repeat guest time
    return sum(counts) - sum(counts[3:5]), sum(counts)


def quota() -> float | None:
    """Return the cores that control groups allow this process, possibly a fraction; None without a limit.

    The limits of parent groups apply too (slices of systemd, jobs of SLURM), so that the smallest counts.
    """
    unified = (parse_quota(_read(group / "cpu.max") or "") for group in _groups())
    v1 = (
        parse_quota(" ".join(_read(group / f"cpu.cfs_{field}_us") or "" for field in ("quota", "period")))
        for group in _groups("cpu")
    )
    return min((allowed for allowed in (*unified, *v1) if allowed is not None), default=None)


def parse_quota(text: str) -> float | None:
    """Return the cores of a "quota period" line (microseconds) of a control group; None without a limit."""
    share, _, period = text.partition(" ")
    if not (share.isdigit() and period.strip().isdigit()):
        return None
    return int(share) / int(period)


def memory_limit() -> int | None:
    """Return the memory limit of the control groups in bytes; None without a limit."""
    unified = (_read(group / "memory.max") for group in _groups())
    v1 = (_read(group / "memory.limit_in_bytes") for group in _groups("memory"))
    limits = [int(text) for text in (*unified, *v1) if text and text.isdigit()]
    return min((limit for limit in limits if limit < 2**60), default=None)


def available_memory() -> int | None:
    """Return the bytes that this process can still take, by the system and the control groups; None if unknown.

    Pages of files count as available, because the system drops them when memory is needed.
    """
    found = re.search(r"(?m)^MemAvailable:\s*(\d+) kB", _read(_MEMINFO) or "")
    available = [1024 * int(found[1])] if found else []
    names = (("", "memory.max", "memory.current"), ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"))
    for controller, limit, usage in names:
        for group in _groups(controller):
            most, used = _read(group / limit) or "", _read(group / usage) or ""
            if most.isdigit() and used.isdigit():
                files = re.search(r"(?m)^(?:total_)?inactive_file (\d+)", _read(group / "memory.stat") or "")
                available.append(max(0, int(most) - int(used) + (int(files[1]) if files else 0)))
    return min(available, default=None)


def _groups(controller: str = "") -> Iterator[Path]:
    """Yield the folders of the control groups of this process, innermost first.

    Lines of /proc/self/cgroup are ``number:controllers:path`` (cgroups(7)); version 2 names no controllers.

    Args:
        controller: of version 1; empty for version 2.
    """
    # if both versions are mounted, systemd puts version 2 in "unified"
    mounts = [_CGROUP / controller] if controller else [_CGROUP, _CGROUP / "unified"]
    lines = [line.split(":", 2) for line in (_read(_OWN_GROUPS) or "").splitlines()]
    own_paths = (line[2] for line in lines if len(line) == 3 and controller in line[1].split(","))
    group = PurePosixPath("/", next(own_paths, "").strip("/"))
    for path in (group, *group.parents):
        # inside a container the path may be that of the host and not mounted; the root is then that of the container
        yield from (mount / path.relative_to("/") for mount in mounts)


def processor() -> tuple[str, tuple[str, ...]]:
    """Return the name of this machine's processor and its vector extensions."""
    return describe_cpu(_read(_CPUINFO) or "")


def describe_cpu(cpuinfo: str) -> tuple[str, tuple[str, ...]]:
    """Return the name of the processor and its vector extensions.

    Args:
        cpuinfo: text of /proc/cpuinfo; empty on other systems.
    """
    fields = {key: value.strip() for key, value in re.findall(r"(?m)^([\w ]+?)\s*:[ \t]*(.*)$", cpuinfo)}
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    name = fields.get("model name") or platform.processor() or platform.machine()
    return name, tuple(flag for flag in _ISA if flag in flags)


def gpu() -> str | None:
    """Return the NVIDIA GPUs with memory and driver, as named by ``nvidia-smi``; None without a GPU."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)  # noqa: S603 - fixed
    except (OSError, subprocess.SubprocessError):
        return None
    names = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    return "; ".join(names) or None


def installed_versions() -> dict[str, str]:
    """Return versions of sdcompress and its dependencies from installed metadata, without imports."""
    try:
        requirements = requires("sdcompress") or ()
    except PackageNotFoundError:  # a source tree that is not installed
        requirements = ()
    lines = [line for line in requirements if "'dev'" not in line.replace('"', "'")]
    names = {re.split(r"[\s\[<>=!~;(]", line, maxsplit=1)[0].lower() for line in lines}
    versions = {name: _version(name) for name in sorted({"sdcompress", "onnxruntime-gpu"} | names)}
    return {name: number for name, number in versions.items() if number is not None}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _memory_bytes() -> int:
    total = int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES")) if hasattr(os, "sysconf") else 0
    limit = memory_limit()
    return total if limit is None else min(total, limit)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
