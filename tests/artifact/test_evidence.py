"""Evidence is two plain arrays, and nothing else is read as evidence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sdcompress.artifact.evidence import Evidence
from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.write import staged
from sdcompress.errors import ArtifactError, OutputExistsError


def evidence() -> Evidence:
    rng = np.random.default_rng(0)
    return Evidence(rng.random((2, 9), np.float32), rng.integers(0, 2, (3, 9), np.uint8))


def test_a_file_holds_what_was_saved_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    saved = evidence()
    for name in ("a.npz", "b.npz"):
        saved.save(tmp_path / name)
    loaded = Evidence.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(loaded.confidences, saved.confidences)
    np.testing.assert_array_equal(loaded.right, saved.right)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


WRONG = {
    "a dtype": {"confidences": evidence().confidences.astype(np.float64), "right": evidence().right},
    "axes": {"confidences": evidence().confidences[0], "right": evidence().right},
    "values other than 0 and 1": {"confidences": evidence().confidences, "right": evidence().right * 2},
    "an array too few": {"confidences": evidence().confidences},
    "objects, which would be unpickled": {"confidences": np.array([print], object), "right": evidence().right},
}


@pytest.mark.parametrize("arrays", WRONG.values(), ids=WRONG.keys())
def test_anything_else_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ArtifactError, match=r"evidence 'a\.npz' cannot be read") as caught:
        Evidence.load(tmp_path / "a.npz")
    assert "confidences float32" in caught.value.allowed


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    evidence().save(tmp_path / "a.npz")
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match="cannot be read"):
        Evidence.load(tmp_path / "a.npz")


def test_it_is_a_file_of_the_artifact_under_its_hash(certified_artifact: Path) -> None:
    file = certified_artifact / "certificate.npz"
    assert open_artifact(certified_artifact).evidence().right.shape == (3, 3334)
    content = bytearray(file.read_bytes())
    content[-200] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"certificate\.npz"):
        open_artifact(certified_artifact)
    file.unlink()
    with pytest.raises(ArtifactError, match=r"lacks certificate\.npz"):
        open_artifact(certified_artifact)


def test_it_is_replaced_with_its_artifact_and_is_no_stranger_in_it(certified_artifact: Path) -> None:
    with pytest.raises(OutputExistsError, match="already holds an artifact"), staged(certified_artifact):
        pytest.fail("the block must not run")
    with staged(certified_artifact, overwrite=True) as folder:
        (folder / "file").write_text("x")
    assert [path.name for path in certified_artifact.iterdir()] == ["file"]


def test_an_artifact_without_a_certificate_has_no_evidence(artifact: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no certificate"):
        open_artifact(artifact).evidence()
