"""The commit of the user's own repository, where there is one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sdcompress.exporting.provenance import git_commit


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_says_when_files_differ_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() is None
    git("init", "-q")
    assert git_commit() is None  # nothing is committed yet
    (tmp_path / "recipe.yaml").write_text("seed: 0\n")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    git("tag", "v1")
    commit = git("rev-parse", "HEAD")
    assert git_commit() == commit
    (tmp_path / "recipe.yaml").write_text("seed: 1\n")
    assert git_commit() == f"{commit}-dirty"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit() is None
