"""No verb writes inside an artifact or a training run, and a read-only artifact is not replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

import sdcompress
from sdcompress import recipes
from sdcompress.artifact.output_path import check_outside
from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.write import staged
from sdcompress.errors import OutputExistsError, StorageError
from sdcompress.storage import staged_folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a training run looks like."""
    (tmp_path / "run" / "steps" / "00000010").mkdir(parents=True)
    (tmp_path / "run" / "steps" / "00000010" / "state.json").write_text("{}")
    return tmp_path / "run"


@pytest.mark.parametrize("inside", ["out", "engines/out", "deep/er/out"])
def test_an_output_inside_an_artifact_is_refused(artifact: Path, inside: str) -> None:
    for out in (artifact / inside, artifact / ".." / artifact.name / inside):
        with pytest.raises(OutputExistsError, match="lies inside the artifact"), staged(out):
            pytest.fail("the block must not run")
    assert open_artifact(artifact)


def test_a_link_into_an_artifact_is_followed(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(artifact)
    with pytest.raises(OutputExistsError, match="lies inside the artifact"):
        check_outside(tmp_path / "link" / "out")
    check_outside(tmp_path / "link")


def test_an_output_inside_a_training_run_is_refused_and_one_beside_it_is_not(run: Path) -> None:
    with pytest.raises(OutputExistsError, match="lies inside the training run"), staged(run / "artifact"):
        pytest.fail("the block must not run")
    check_outside(run)  # resumed
    check_outside(run.parent / "artifact")
    (run.parent / "manifest.json").write_text("{}")  # of another program
    check_outside(run)


@pytest.mark.parametrize("place", ["", "rep"])
def test_a_report_is_put_neither_into_an_artifact_nor_into_a_run(artifact: Path, run: Path, place: str) -> None:
    for folder in (artifact, run):
        with pytest.raises(OutputExistsError, match="the output would invalidate"):
            sdcompress.report({"a": artifact}, folder / place)
        with pytest.raises(OutputExistsError, match="the output would invalidate"):
            sdcompress.explain(artifact, folder / place)
    assert open_artifact(artifact)


def test_a_training_does_not_begin_inside_an_artifact(artifact: Path) -> None:
    tiny = recipes.read({"data": {"name": "digits"}, "method": "baseline"})
    with pytest.raises(OutputExistsError, match="lies inside the artifact"):
        sdcompress.train(tiny, artifact / "train")
    assert open_artifact(artifact)


@pytest.mark.parametrize("part", [".", "engines"])
def test_a_read_only_artifact_is_kept_and_said_to_be(artifact: Path, part: str) -> None:
    before = (artifact / "manifest.json").read_bytes()
    (artifact / "engines").mkdir()
    (artifact / part).chmod(0o555)
    try:
        with pytest.raises(StorageError, match="is read-only; it was not replaced"), staged(artifact, overwrite=True):
            pytest.fail("the block must not run")
        assert (artifact / "manifest.json").read_bytes() == before
        assert [path.name for path in artifact.parent.iterdir()] == [artifact.name]
    finally:
        (artifact / part).chmod(0o755)


def test_what_cannot_be_removed_after_the_swap_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    with (
        pytest.warns(UserWarning, match="could not be removed"),
        staged_folder(tmp_path / "out", replace=True) as folder,
    ):
        (folder / "new").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
