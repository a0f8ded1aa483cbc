"""Files are whole or not there, and an error names the right folder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdcompress.errors import OutputExistsError, StorageError
from sdcompress.storage import (
    LOCK,
    clear_leftovers,
    digest_of,
    locked_folder,
    make_room,
    sha256_of,
    staged_folder,
    write_text,
)


def test_a_staged_folder_appears_whole(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_files_and_their_names_are_on_the_disk_before_a_staged_folder_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = list[int]()
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    out = tmp_path / "out"
    with staged_folder(out) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("1")
    inodes = {path: path.stat().st_ino for path in (out / "sub" / "a", out / "sub", out, tmp_path)}
    assert set(synced) == set(inodes.values())
    assert synced[-2:] == [inodes[out], inodes[tmp_path]]


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")]
)
def test_a_staged_folder_vanishes_when_its_block_fails(tmp_path: Path, error: BaseException) -> None:
    def fail() -> None:
        with staged_folder(tmp_path / "out") as folder:
            (folder / "a").write_text("1")
            raise error

    with pytest.raises((type(error), StorageError)) as caught:
        fail()
    assert isinstance(caught.value, StorageError) == isinstance(error, OSError)
    assert list(tmp_path.iterdir()) == []


def test_what_the_block_may_not_read_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    def read_secret() -> None:
        with staged_folder(tmp_path / "out"):
            raise PermissionError(errno.EACCES, "Permission denied", "images/7.png")

    with pytest.raises(PermissionError, match=r"images/7\.png"):
        read_secret()


def test_a_folder_is_replaced_as_a_whole_and_its_old_content_goes(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with staged_folder(tmp_path / "out", replace=True) as folder:
        (folder / "new").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["new", "out"]


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "gone"), KeyboardInterrupt("gone")])
def test_the_old_folder_is_put_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.suffix == ".tmp":
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(type(error), match="gone"), staged_folder(tmp_path / "out", replace=True):
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["old", "out"]


WRITE = """
import sys, time
from pathlib import Path
from sdcompress.storage import staged_folder
with staged_folder(Path(sys.argv[1])) as folder:
    (folder / "half").touch()
    print(folder.name, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    for name in (".out.notours.tmp", ".other.00000000.tmp", ".out.00000000.keep"):
        (tmp_path / name).mkdir()
    command = [sys.executable, "-c", WRITE, str(tmp_path / "out")]
    dead, alive = (subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2))
    assert dead.stdout is not None
    assert alive.stdout is not None
    left, written = dead.stdout.readline().strip(), alive.stdout.readline().strip()
    dead.kill()
    dead.wait()
    clear_leftovers(tmp_path / "out")
    present = {path.name for path in tmp_path.iterdir()}
    alive.kill()
    alive.wait()
    assert left not in present
    assert present == {written, ".out.notours.tmp", ".other.00000000.tmp", ".out.00000000.keep"}


def test_a_folder_whose_replacement_was_cut_off_comes_back(tmp_path: Path) -> None:
    (tmp_path / ".out.01234567.old").mkdir()
    (tmp_path / ".out.01234567.old" / "a").touch()
    clear_leftovers(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "out"]
    (tmp_path / ".out.01234567.old").mkdir()
    clear_leftovers(tmp_path / "out")  # now it is whole
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "out"]


def test_a_lock_makes_no_folder_that_stays_and_takes_over_a_file_that_a_dead_process_left(tmp_path: Path) -> None:
    with locked_folder(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).exists()
    assert not (tmp_path / "run").exists()
    (tmp_path / LOCK).write_text("process 1 on elsewhere")
    with locked_folder(tmp_path):
        (tmp_path / "kept").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_text_is_replaced_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "a.txt", "one")
    write_text(tmp_path / "deep" / "a.txt", "two")
    assert [(path.name, path.read_text()) for path in (tmp_path / "deep").iterdir()] == [("a.txt", "two")]


def test_digests_are_those_that_others_compute(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_of({"b": 1.5, "a": "ä"}) == digest_of({"a": "ä", "b": 1.5})
    with pytest.raises(ValueError, match="Out of range float"):
        digest_of({"a": float("nan")})


def test_what_a_killed_search_left_is_removed_and_other_things_are_refused(tmp_path: Path) -> None:
    (tmp_path / ".steps.json.0123abcd.tmp").touch()
    (tmp_path / ".best.0123abcd.tmp").mkdir()
    (tmp_path / "parts").mkdir()
    (tmp_path / "journal.log.lock").touch()
    files = {"steps.json", "best", "parts", "journal.log*"}
    make_room(tmp_path, files, overwrite=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal.log.lock", "parts"]
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(OutputExistsError, match=r"thesis\.tex"):
        make_room(tmp_path, files, overwrite=True)
    (tmp_path / "thesis.tex").unlink()
    make_room(tmp_path, files, overwrite=True, kept={"parts"})
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]
    make_room(tmp_path, files, overwrite=True)
    assert not list(tmp_path.iterdir())
