"""An artifact is there as a whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.write import entry, rewrite, staged
from sdcompress.errors import OutputExistsError, StorageError


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_and_raise(out: Path, error: type[BaseException], *, overwrite: bool = False) -> None:
    with staged(out, overwrite=overwrite) as folder:
        (folder / "file").write_text("x")
        raise error


def test_the_output_appears_only_when_the_block_is_done(tmp_path: Path) -> None:
    out = tmp_path / "new" / "artifact"
    with staged(out) as folder:
        (folder / "file").write_text("x")
        assert not out.exists()
        assert folder.parent == out.parent  # the same file system: the rename is atomic
    assert tree(tmp_path) == {"new/artifact/file": b"x"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        write_and_raise(tmp_path / "artifact", error)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "artifact").mkdir()
    with staged(tmp_path / "artifact") as folder:
        (folder / "file").write_text("x")
    assert tree(tmp_path) == {"artifact/file": b"x"}


def test_an_artifact_is_replaced_only_when_asked(artifact: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    with pytest.raises(OutputExistsError, match="--overwrite"), staged(artifact):
        pytest.fail("the block must not run")
    assert tree(tmp_path) == before
    with staged(artifact, overwrite=True) as folder:
        (folder / "file").write_text("x")
        assert open_artifact(artifact)  # the old one stays until the new one is whole
    assert tree(tmp_path) == {"artifact/file": b"x"}


def test_a_failed_replacement_keeps_the_old_artifact(artifact: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write_and_raise(artifact, KeyboardInterrupt, overwrite=True)
    assert tree(tmp_path) == before


def test_a_damaged_artifact_can_be_replaced(artifact: Path) -> None:
    (artifact / "segment-0.onnx").unlink()
    with staged(artifact, overwrite=True) as folder:
        (folder / "file").write_text("x")
    assert tree(artifact) == {"file": b"x"}


def test_what_is_not_an_artifact_is_never_replaced(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("x")
    (tmp_path / "file").write_text("x")
    (artifact / "notes.txt").write_text("mine")
    before = tree(tmp_path)
    for out, word in (("photos", "cat.png"), ("file", "is a file"), ("artifact", "notes.txt")):
        with pytest.raises(OutputExistsError, match=word), staged(tmp_path / out, overwrite=True):
            pytest.fail("the block must not run")
    assert tree(tmp_path) == before


def test_a_folder_filled_meanwhile_is_not_lost(tmp_path: Path) -> None:
    out = tmp_path / "artifact"

    def write_while_another_does() -> None:
        with staged(out) as folder:
            (folder / "file").write_text("ours")
            out.mkdir()
            (out / "file").write_text("theirs")

    with pytest.raises(OutputExistsError):
        write_while_another_does()
    assert tree(tmp_path) == {"artifact/file": b"theirs"}


def test_a_link_to_an_artifact_stays_a_link(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(artifact)
    with staged(tmp_path / "latest", overwrite=True) as folder:
        (folder / "file").write_text("x")
    assert (tmp_path / "latest").is_symlink()
    assert tree(artifact) == {"file": b"x"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_a_storage_error(tmp_path: Path, code: int) -> None:
    with pytest.raises(StorageError) as caught, staged(tmp_path / "artifact"):
        raise OSError(code, os.strerror(code), str(tmp_path / "artifact" / "model.onnx"))
    assert os.strerror(code) in caught.value.problem
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_the_system_are_not_blamed_on_the_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), staged(tmp_path / "artifact"):
        (tmp_path / "nowhere").read_text()


def test_entry_hashes_the_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    listed = entry(tmp_path, "f")
    assert listed.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert listed.bytes == 3


def test_the_digest_is_the_hash_of_the_canonical_json_of_all_other_fields(artifact: Path) -> None:
    fields = json.loads((artifact / "manifest.json").read_text(encoding="utf-8"))
    digest = fields.pop("digest")
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    assert digest == hashlib.sha256(canonical).hexdigest()


def test_the_same_content_gets_the_same_digest(
    artifact: Path, tmp_path: Path, write_artifact: Callable[..., Path]
) -> None:
    again = write_artifact(tmp_path / "again")
    assert tree(artifact) == tree(again)
    other = write_artifact(tmp_path / "other", outputs=("cat", "dog"))
    assert open_artifact(other).manifest.digest != open_artifact(again).manifest.digest


def test_a_working_tree_that_is_not_installed_derives_artifacts_too(
    tiny_artifact: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU machine without pip, where engines are built."""

    def not_installed(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", not_installed)
    with staged(tmp_path / "out") as folder:
        made = rewrite(open_artifact(tiny_artifact()), folder)
    assert made.provenance.versions["sdcompress"] == "0+unknown"
