"""Streams that are closed, full or not UTF-8, a working directory that is gone, names that no system takes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sdcompress.errors import StorageError
from sdcompress.storage import staged_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")


@pytest.fixture
def shell(environment, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """``shell("sdcompress inspect x >&-")``: a line of a shell in an empty folder, and variables by keyword."""

    def run(line: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
        line = line.replace("sdcompress", f"{shlex.quote(sys.executable)} -m sdcompress", 1)
        done = subprocess.run(
            ["sh", "-c", line], env={**environment, **variables}, cwd=tmp_path, capture_output=True, check=False
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        assert b"Exception ignored" not in done.stderr, done.stderr.decode()
        return done

    return run


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_leads_nowhere(shell, tiny_artifact, closed: str) -> None:
    done = shell(f"sdcompress inspect {tiny_artifact()} {closed}")
    assert done.returncode == 0
    assert (b"cascade" in done.stdout) == (closed == "2>&-")


def test_a_file_is_not_taken_for_a_closed_stream(shell, tiny_artifact, tmp_path: Path) -> None:
    """Or what is printed would stand in the file that was opened next."""
    done = shell(f"sdcompress report {tiny_artifact()} --out report >&-")
    assert done.returncode == 0
    assert json.loads((tmp_path / "report" / "report.json").read_text())["rows"]


@needs_full
@pytest.mark.parametrize("command", ["inspect {}", "inspect {} --json", "--help", "train --print-config", "list"])
def test_a_full_stdout_is_3_and_says_so(shell, tiny_artifact, command: str) -> None:
    done = shell(f"sdcompress {command.format(tiny_artifact())} >/dev/full")
    assert done.returncode == 3
    assert done.stderr.startswith(b"error: The standard output cannot be used: No space left on device.")


@needs_full
def test_a_full_stderr_stops_no_work(shell, tiny_artifact) -> None:
    assert b"intact" in shell(f"sdcompress verify {tiny_artifact()} 2>/dev/full").stdout
    assert shell("sdcompress verify nothing 2>/dev/full").returncode == 4
    assert shell("sdcompress verify nothing >/dev/full 2>&1").returncode == 4


def test_what_an_encoding_lacks_is_escaped_and_json_stays_json(shell, tiny_artifact) -> None:
    folder = tiny_artifact(name="ärt→")
    for encoding in ("ascii", "latin-1"):
        shown = shell(f"sdcompress inspect {folder}", PYTHONIOENCODING=encoding)
        assert shown.returncode == 0
        # where the locale is ASCII, click writes UTF-8 all the same
        assert ("→: cascade".encode() if encoding == "ascii" else b"\\u2192: cascade") in shown.stdout
        refused = shell(f"sdcompress verify {folder}→", PYTHONIOENCODING=encoding)
        assert refused.returncode == 4
        assert b"\\u2192\\u2192' is not there" in refused.stderr
        measured = shell(
            f"sdcompress bench {folder} --samples golden --scenario single-stream --duration 50ms --warmup 1ms "
            "--rounds 5 --json",
            PYTHONIOENCODING=encoding,
        )
        assert json.loads(measured.stdout.decode(encoding))["records"][0]["name"] == "ärt→"


def test_a_working_directory_that_is_gone_is_3(shell, tiny_artifact) -> None:
    done = shell(f"mkdir gone && cd gone && rmdir ../gone && sdcompress inspect {tiny_artifact()}")
    assert done.returncode == 3
    assert b"The working directory does not exist any more" in done.stderr


LONG = "a" * 300


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["inspect", LONG], 4),
        (["verify", LONG * 20], 4),
        (["evaluate", LONG], 4),
        (["train", "-c", "digits", "--out", LONG], 3),
        (["train", "-c", "digits", "--data", "imagefolder", "--data-dir", LONG, "--out", "x"], 3),
        (["report", "{}", "--out", LONG], 3),
        (["calibrate", LONG, "--out", "x"], 4),
        (["report", "{}", "--bench", LONG, "--out", "x"], 2),
    ],
)
def test_a_name_that_is_too_long_is_named_without_a_traceback(
    cli, tiny_artifact, monkeypatch, command: list[str], code: int
) -> None:
    artifact = tiny_artifact()
    monkeypatch.chdir(artifact.parent)
    done = cli(*(word.format(artifact) for word in command))
    assert done.code == code, done.err
    assert done.err.count("error: ") == 1
    assert "aaaa" in done.err
    assert len(done.err) < 10_000


def test_a_folder_whose_name_is_too_long_to_write_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="too long"), staged_folder(tmp_path / ("a" * 250)):
        pass  # it fits, but the folder beside it does not


@pytest.mark.parametrize("command", ["inspect", "train --print-config --data-dir", "report art --out", "run"])
def test_a_name_that_is_no_text_is_2(cli, command: str) -> None:
    done = cli(*command.split(), os.fsdecode(b"b\xffd"))
    assert done.code == 2
    assert "An argument is not text in the encoding 'utf-8': 'b\\udcffd'" in done.err


def test_a_working_directory_whose_name_is_no_text_is_fine(cli, tiny_artifact, tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / os.fsdecode(b"b\xffd")
    folder.mkdir()
    monkeypatch.chdir(folder)
    tiny_artifact().rename(folder / "art")
    assert cli("inspect", "art").code == 0
    assert cli("report", "art", "--out", "report").code == 0
