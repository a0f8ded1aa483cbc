"""What is said of a machine, from the files that systems really have."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from sdcompress import machine as machine_module
from sdcompress.errors import UsageError
from sdcompress.machine import (
    available_memory,
    busy_cores,
    check_threads,
    cores,
    default_threads,
    describe_cpu,
    installed_versions,
    machine,
    memory_limit,
    most_threads,
    parse_quota,
    quota,
)

X86 = """processor	: 0
model name	: AMD EPYC 9R14
flags		: fpu sse4_2 avx avx2 fma avx512f avx512_vnni avx5124

processor	: 1
model name	: AMD EPYC 9R14
flags		: fpu sse4_2 avx avx2 fma avx512f avx512_vnni avx5124
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nCPU part\t: 0xd40\n"


def test_cpu_of_x86_and_arm() -> None:
    assert describe_cpu(X86) == ("AMD EPYC 9R14", ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni"))
    assert describe_cpu(ARM)[1] == ("asimd", "asimddp", "i8mm")
    assert describe_cpu("")[1] == ()


@pytest.mark.parametrize(
    ("text", "allowed"), [("max 100000", None), ("150000 100000", 1.5), ("-1 100000", None), (" ", None)]
)
def test_the_quota_of_a_control_group(text: str, allowed: float | None) -> None:
    assert parse_quota(text) == allowed


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes the files that the kernel has of control groups: ``groups(own, {path: text})``."""
    monkeypatch.setattr("sdcompress.machine._CGROUP", tmp_path / "mount")
    monkeypatch.setattr("sdcompress.machine._OWN_GROUPS", tmp_path / "cgroup")

    def write(own: str, files: dict[str, str]) -> None:
        (tmp_path / "cgroup").write_text(own)
        for path, text in files.items():
            (tmp_path / "mount" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "mount" / path).write_text(text + "\n")

    return write


JOB = "system.slice/slurmstepd.scope/job_7"


@pytest.mark.parametrize(
    ("own", "files", "allowed"),
    [
        (f"0::/{JOB}\n", {f"{JOB}/cpu.max": "50000 100000"}, 0.5),
        (f"0::/{JOB}\n", {f"{JOB}/cpu.max": "max 100000", "system.slice/cpu.max": "300000 100000"}, 3.0),
        (f"0::/{JOB}\n", {f"{JOB}/cpu.max": "200000 100000", "system.slice/cpu.max": "100000 100000"}, 1.0),
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        (f"0::/{JOB}\n", {"cpu.max": "150000 100000"}, 1.5),  # a container that sees the host's path
        ("0::/../../elsewhere\n", {"cpu.max": "max 100000"}, None),
        (
            f"4:memory:/x\n3:cpu,cpuacct:/{JOB}\n0::/\n",
            {f"cpu/{JOB}/cpu.cfs_quota_us": "50000", f"cpu/{JOB}/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        (
            f"1:cpu:/\n0::/{JOB}\n",
            {f"unified/{JOB}/cpu.max": "25000 100000", "cpu/cpu.cfs_quota_us": "-1"},
            0.25,
        ),
        ("", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/a\nnonsense\n", {}, None),
    ],
)
def test_the_least_quota_of_the_groups_around_a_process(
    groups: Callable[..., None], own: str, files: dict[str, str], allowed: float | None
) -> None:
    groups(own, files)
    assert quota() == allowed


def test_the_memory_that_is_available_is_the_least_that_the_system_and_the_groups_leave(
    groups: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemFree: 1 kB\nMemAvailable:    10 kB\n")
    monkeypatch.setattr(machine_module, "_MEMINFO", meminfo)
    groups(f"0::/{JOB}\n", {f"{JOB}/memory.max": "max", f"{JOB}/memory.current": "5"})
    assert available_memory() == 10 * 1024
    files = {"memory.max": "9000", "memory.current": "7000", "memory.stat": "anon 1\ninactive_file 500"}
    groups(f"0::/{JOB}\n", {f"system.slice/{name}": text for name, text in files.items()})
    assert available_memory() == 2500
    old = {"memory.limit_in_bytes": "4000", "memory.usage_in_bytes": "9000"}
    groups(f"3:memory:/{JOB}\n", {f"memory/{JOB}/{name}": text for name, text in old.items()})
    assert available_memory() == 0
    meminfo.unlink()
    groups("0::/elsewhere\n", {})
    assert available_memory() is None


def test_the_least_memory_of_the_groups_around_a_process(groups: Callable[..., None]) -> None:
    groups(f"0::/{JOB}\n", {f"{JOB}/memory.max": "max", "system.slice/memory.max": "4096"})
    assert memory_limit() == 4096
    groups(f"3:memory:/{JOB}\n", {f"memory/{JOB}/memory.limit_in_bytes": "2048"})
    assert memory_limit() == 2048
    assert machine().memory_gib == 0.0


def test_this_machine() -> None:
    facts = machine()
    assert 1 <= facts.cores == cores() <= (os.cpu_count() or 1)
    assert facts.python == sys.version.split()[0]
    assert facts.memory_gib > 0.1


def test_versions_are_of_what_is_installed_and_used() -> None:
    versions = installed_versions()
    assert versions["numpy"] == version("numpy")
    assert "sdcompress" in versions
    assert "pytest" not in versions


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux says what other processes do")
def test_work_of_others_is_seen() -> None:
    burn = [sys.executable, "-c", "import time; end = time.time() + 3\nwhile time.time() < end: pass"]
    with subprocess.Popen(burn) as other:
        time.sleep(0.3)
        seen = busy_cores()
        other.kill()
    assert seen is not None
    assert seen > 0.5


# cores that the process may use, the group's quota, cores kept busy, OMP_NUM_THREADS -> threads, and why
DEFAULTS = {
    "an idle machine": (8, None, 0.0, None, 8, "may use: 8"),
    "a system that does not say": (8, None, None, None, 8, "may use: 8"),
    "half of the cores": (4, None, 0.3, None, 4, "may use: 4"),
    "a quota": (3, 2.5, 0.0, None, 2, "allows 2.5 cores"),
    "less than a core": (1, 0.5, 0.0, None, 1, "allows 0.5 cores"),
    "other work": (8, None, 5.4, None, 3, "other work keeps 5.4 of 8 cores busy"),
    "nothing but other work": (8, None, 8.0, None, 1, "other work keeps 8.0 of 8"),
    "other work and a quota": (4, 3.5, 6.2, None, 2, "other work"),
    "the user's word": (8, None, 5.4, "6", 6, "OMP_NUM_THREADS"),
    "a word that is no number": (8, None, 0.0, "many", 8, "may use: 8"),
    "a word that is too much": (8, None, 0.0, "100000", 8, "may use: 8"),
}


@pytest.mark.parametrize("what", DEFAULTS)
def test_the_default_of_threads_follows_quota_and_load_and_says_so(what: str, monkeypatch) -> None:
    usable, allowed, busy, named, threads, reason = DEFAULTS[what]
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(machine_module, "cores", lambda: usable)
    monkeypatch.setattr(machine_module, "quota", lambda: allowed)
    monkeypatch.setattr(machine_module, "busy_cores", lambda _seconds: busy)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if named is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", named)
    default_threads.cache_clear()
    try:
        count = default_threads()
    finally:
        default_threads.cache_clear()
    assert count.threads == threads
    assert reason in count.reason


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_more_threads_than_the_machine_runs_are_refused(threads: int) -> None:
    with pytest.raises(UsageError, match=f"bench.threads is {threads}") as caught:
        check_threads(threads, "bench.threads")
    assert f"1 to {os.cpu_count()}" in caught.value.allowed
    check_threads(1)
    check_threads(most_threads())
