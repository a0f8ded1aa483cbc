"""Files are whole or not there, and an error names the right folder."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from sdcompress.errors import StorageError
from sdcompress.storage import digest_of, replace_folder, sha256_of, staged_folder, write_text


def test_a_staged_folder_appears_whole(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


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


def test_replacing_puts_the_old_folder_back_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "missing", tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "old"]


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
