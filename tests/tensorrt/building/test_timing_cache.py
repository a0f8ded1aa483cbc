"""Where the builder's measurements are kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sdcompress.artifact.read import open_artifact
from sdcompress.errors import OutputExistsError, ParityError, StorageError, UsageError
from sdcompress.schema.graphs import FileEntry
from sdcompress.tensorrt.building.settings import BuildSettings
from sdcompress.tensorrt.building.timing_cache import (
    Timings,
    cache_file,
    engines_folder,
    open_timings,
    read_cache,
    saved_log,
    write_cache,
)
from sdcompress.tensorrt.nvidia.gpu_query import Gpu
from sdcompress.tensorrt.nvidia.log import Log

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


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        write_cache(tmp_path / "file" / "a.timing", b"")


def test_no_timing_cache_is_put_inside_an_artifact(tiny_artifact: Callable[..., Path]) -> None:
    folder = tiny_artifact()
    with pytest.raises(OutputExistsError, match="lies inside the artifact"):
        open_timings(folder / "a.timing", tensorrt="10.9.0.34", gpu=H100, log=Log())
    assert open_artifact(folder)


def test_a_cache_folder_that_cannot_be_used_costs_time_and_no_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    log = Log()
    timings = open_timings(None, tensorrt="10.9.0.34", gpu=H100, log=log)
    assert "built without a timing cache" in log.all_lines[-1]
    timings.keep(b"measured")
    assert (timings.file, timings.data) == (None, b"")


def test_a_user_without_a_home_builds_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert open_timings(None, tensorrt="10.9.0.34", gpu=H100, log=Log()).file is None


def test_a_named_file_that_cannot_be_written_is_refused_before_the_build(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.timing").mkdir()
    for named in (tmp_path / "file" / "a.timing", tmp_path / "folder.timing"):
        with pytest.raises(UsageError, match="cannot be used") as caught:
            open_timings(named, tensorrt="10.9.0.34", gpu=H100, log=Log())
        assert "--timing-cache" in caught.value.next_step


def test_a_disk_that_fills_up_after_a_build_does_not_end_it(tmp_path: Path) -> None:
    timings = open_timings(tmp_path / "deep" / "a.timing", tensorrt="10.9.0.34", gpu=H100, log=Log())
    timings.keep(b"one")
    assert read_cache(tmp_path / "deep" / "a.timing") == b"one"
    (tmp_path / "deep" / "a.timing").unlink()
    (tmp_path / "deep").rmdir()
    (tmp_path / "deep").touch()
    timings.keep(b"two")
    assert "not saved" in timings.log.all_lines[-1]


@pytest.mark.parametrize("name", ["a.timing", None])
def test_the_log_of_a_build_that_fails_is_kept_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    log = Log()
    log.note("tactic 7")
    timings = Timings(tmp_path / name if name else None, b"", log)
    with pytest.raises(ParityError, match="off by 1") as caught, saved_log(timings):
        raise ParityError("off by 1.", allowed="0", next_step="report it")
    (file,) = tmp_path.glob("*.log")
    assert file.read_text(encoding="utf-8") == "tactic 7\n"
    assert caught.value.next_step == f"report it; the build log is '{file}'"
    assert str(file) in str(caught.value)
    assert caught.value.allowed == "0"


def test_a_log_that_cannot_be_saved_hides_no_error(tmp_path: Path) -> None:
    with pytest.raises(ParityError) as caught, saved_log(Timings(tmp_path / "no" / "a.timing", b"", Log())):
        raise ParityError("off by 1.", next_step="report it")
    assert caught.value.next_step == "report it"


@pytest.mark.parametrize("name", ["segment-0.onnx", "timing", "a.log"])
def test_a_name_that_is_no_caches_is_refused_before_it_is_written_over(name: str) -> None:
    with pytest.raises(UsageError, match="write over") as caught:
        BuildSettings(timing_cache=Path(name))
    assert ".timing" in caught.value.next_step
    assert BuildSettings(timing_cache=Path("trtexec.cache")).timing_cache
