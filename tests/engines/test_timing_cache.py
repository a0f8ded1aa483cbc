"""Where the builder's measurements are kept."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sdcompress.engines.timing_cache import cache_file, engines_folder, read_cache, write_cache
from sdcompress.errors import StorageError
from sdcompress.nvidia.probe import Gpu
from sdcompress.schema.graphs import FileEntry

H100 = Gpu("NVIDIA H100 80GB HBM3", "9.0", 80 * 2**30, "580.82.07", "13.0")


def test_each_machine_has_a_file_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = cache_file("10.9.0.34", H100)
    assert file == tmp_path / "sdcompress" / "tensorrt" / "nvidia-h100-80gb-hbm3-trt10.9.0.34-580.82.07.timing"
    other = [cache_file("11.4.0.106", H100), cache_file("10.9.0.34", H100._replace(name="NVIDIA L4"))]
    other.append(cache_file("10.9.0.34", H100._replace(driver="570.1")))
    assert len({file, *other}) == 4


@pytest.mark.parametrize("name", ["NVIDIA H100 80GB HBM3", "../etc", "GeForce RTX\N{TRADE MARK SIGN} 4090", "", "..."])
def test_a_gpus_folder_is_a_name_that_a_manifest_may_list(name: str) -> None:
    folder = engines_folder("10.9.0.34", H100._replace(name=name))
    assert FileEntry(file=f"{folder}/segment-0.plan", sha256="0" * 64, bytes=1)
    assert re.fullmatch(r"engines/[a-z0-9.-]+-trt10\.9\.0\.34", folder)


def test_what_is_written_is_read_and_nothing_is_left_beside(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "a.timing"
    assert read_cache(file) == b""
    write_cache(file, b"one")
    write_cache(file, b"two")
    assert read_cache(file) == b"two"
    assert list(file.parent.iterdir()) == [file]


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        write_cache(tmp_path / "file" / "a.timing", b"")
