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
    return Evidence(rng.random((2, 9), np.float32), rng.random((3, 9), np.float32))


def test_a_file_holds_what_was_saved_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    saved = evidence()
    for name in ("a.npz", "b.npz"):
        saved.save(tmp_path / name)
    loaded = Evidence.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(loaded.scores, saved.scores)
    np.testing.assert_array_equal(loaded.loss, saved.loss)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


WRONG = {
    "a dtype": {"scores": evidence().scores.astype(np.float64), "loss": evidence().loss},
    "axes": {"scores": evidence().scores[0], "loss": evidence().loss},
    "values other than 0 and 1": {"scores": evidence().scores, "loss": evidence().loss * 2},
    "NaN": {"scores": evidence().scores, "loss": evidence().loss * np.float32(np.nan)},
    "scores of other samples": {"scores": evidence().scores[:, 1:], "loss": evidence().loss},
    "an array too few": {"scores": evidence().scores},
    "objects, which would be unpickled": {"scores": np.array([print], object), "loss": evidence().loss},
}


@pytest.mark.parametrize("arrays", WRONG.values(), ids=WRONG.keys())
def test_anything_else_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ArtifactError, match=r"evidence 'a\.npz' cannot be read") as caught:
        Evidence.load(tmp_path / "a.npz")
    assert "scores float32" in caught.value.allowed


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    evidence().save(tmp_path / "a.npz")
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match="cannot be read"):
        Evidence.load(tmp_path / "a.npz")


def test_it_is_a_file_of_the_artifact_under_its_hash(certified_artifact: Path) -> None:
    file = certified_artifact / "certificate.npz"
    assert open_artifact(certified_artifact).evidence().loss.shape == (3, 3334)
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
