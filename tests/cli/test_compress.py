"""compress as a command, on a trained network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def test_the_exit_code_says_whether_anything_was_found(cli: Callable, made, tmp_path: Path) -> None:
    """Nothing takes a thousandth of a millisecond; the page says what comes nearest."""
    out = tmp_path / "out"
    done = cli("compress", made.train, "--target", "0.001ms", "--finalists", "1", "--no-ensembles", "--out", out)
    assert done.code == 4, done.err
    assert "No certified artifact takes 0.00100 ms or less; the fastest is" in done.out
    assert f"page: {out}/compress.html" in done.out
    assert "next:" not in done.out
    done = cli(
        "compress", made.train, "--target", "0.001ms", "--finalists", "1", "--no-ensembles", "--out", out, "--json"
    )
    record = json.loads(done.out)
    assert record["best"] is None
    assert record["settings"]["ensembles"] is False
    assert not [one for one in record["candidates"] if one["ensemble"]]
    assert "raw_ms" not in record["bench"]["records"][0]


def test_a_drop_and_a_time_exclude_each_other(cli: Callable, made, tmp_path: Path) -> None:
    done = cli("compress", made.train, "--target", "2ms", "--max-drop", "1%", "--out", tmp_path / "out")
    assert done.code == 2
    assert "Both --max-drop and --target are given." in done.err
    done = cli("compress", made.train, "--target", "2", "--out", tmp_path / "out")
    assert done.code == 2
    assert "e.g. 200ms" in done.err
    assert not (tmp_path / "out").exists()
