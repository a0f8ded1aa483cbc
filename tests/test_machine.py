"""What is said of a machine, from the files that systems really have."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from sdcompress.machine import busy_cores, cores, describe_cpu, installed_versions, machine, parse_quota

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


def test_this_machine() -> None:
    found = machine()
    assert 1 <= found.cores == cores() <= (os.cpu_count() or 1)
    assert found.python == sys.version.split()[0]
    assert found.memory_gib > 0.1


def test_versions_are_of_what_is_installed_and_used() -> None:
    found = installed_versions()
    assert found["numpy"] == version("numpy")
    assert "sdcompress" in found
    assert "pytest" not in found


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux says what other processes do")
def test_work_of_others_is_seen() -> None:
    burn = [sys.executable, "-c", "import time; end = time.time() + 3\nwhile time.time() < end: pass"]
    with subprocess.Popen(burn) as other:
        time.sleep(0.3)
        seen = busy_cores()
        other.kill()
    assert seen is not None
    assert seen > 0.5
