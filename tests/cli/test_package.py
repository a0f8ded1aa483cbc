"""package on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_it_writes_a_repository_and_says_how_to_start_it(
    cli: Callable[..., Any], tiny_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    artifact, out = tiny_artifact(policy=(0.85, 0.75)), tmp_path / "repository"
    done = cli("package", artifact, "--to", "triton", "--set", "name=net", "--set", "max_batch_size=8", "--out", out)
    assert "the model net, which runs net-segment-0, net-segment-1, net-segment-2" in done.out
    assert "Guarantee: none." in done.out
    assert f"tritonserver --model-repository={out}" in done.out
    assert "max_batch_size: 8" in (out / "net" / "config.pbtxt").read_text()
    record = json.loads(cli("package", artifact, "--to", "triton", "--out", out, "--overwrite", "--json").out)
    assert record["models"][0] == "tiny"


def test_a_setting_that_the_target_lacks_is_refused(
    cli: Callable[..., Any], tiny_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    done = cli("package", tiny_artifact("single"), "--to", "triton", "--set", "batch=8", "--out", tmp_path / "out")
    assert done.code == 2
    assert "unknown key 'batch'" in done.err
