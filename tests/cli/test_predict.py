"""Predictions on the command line: a table, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Write = Callable[..., Path]
CLASSES = ("square", "disc", "star")

Cli = Callable[..., Any]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, name in enumerate(("plain.png", "with, comma.png")):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 6), np.uint8)).save(folder / name)
    (folder / "zero.png").touch()
    return folder


@pytest.mark.filterwarnings("ignore:1 of 3 files")
def test_the_three_forms_say_the_same(cli: Cli, tiny_artifact: Write, photos: Path) -> None:
    path = tiny_artifact(policy=(0.6, 0.6))
    with pytest.warns(UserWarning, match="1 of 3 examples have no prediction"):
        table = cli("predict", path, photos, "--top", "2")
    assert table.code == 2  # for one file there is no prediction
    as_json = json.loads(cli("predict", path, photos, "--top", "2", "--json").out)
    rows = list(csv.DictReader(io.StringIO(cli("predict", path, photos, "--top", "2", "--csv").out)))
    assert [row["file"] for row in rows] == [one["file"] for one in as_json]
    for row, one in zip(rows[:2], as_json, strict=False):
        assert [row["class_1"], row["class_2"]] == [each["name"] for each in one["stated"]]
        assert float(row["probability_1"]) == pytest.approx(one["stated"][0]["value"], abs=1e-6)
        assert row["exit"] == one["exit"]
        assert row["class_1"] in CLASSES
        assert f"{row['class_1']} {one['stated'][0]['value']:.1%}" in table.out
    assert rows[2]["error"] == as_json[2]["error"] != ""
    assert rows[2]["class_1"] == rows[2]["run_ms"] == ""


def test_one_class_needs_no_number(cli: Cli, tiny_artifact: Write, photos: Path) -> None:
    (row,) = csv.DictReader(io.StringIO(cli("predict", tiny_artifact(), photos / "plain.png", "--csv").out))
    assert list(row) == ["file", "class", "probability", "exit", "prepare_ms", "run_ms", "error"]


def test_other_labelled_images_are_scored(cli: Cli, tiny_artifact: Write, tmp_path: Path) -> None:
    path = tiny_artifact(policy=(0.6, 0.6))
    rng = np.random.default_rng(0)
    for name in ("star", "square"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            image = Image.fromarray(rng.integers(0, 256, (6, 6), np.uint8))
            image.save(tmp_path / "photos" / name / f"{number}.png")
    evaluation = json.loads(cli("evaluate", path, "--samples", tmp_path / "photos", "--json").out)
    predictions = json.loads(cli("predict", path, tmp_path / "photos", "--json").out)
    right = sum(one["stated"][0]["name"] == Path(one["file"]).parent.name for one in predictions)
    assert (evaluation["samples"], evaluation["split"]) == (8, "external")
    assert evaluation["policy"]["metric"] == right / 8
    assert {one["name"]: one["samples"] for one in evaluation["strata"]} == {"square": 4, "disc": 0, "star": 4}
    refused = cli("evaluate", path, "--samples", tmp_path)
    assert refused.code == 2
    assert "photos" in refused.err


def test_a_warning_is_a_line_for_a_person(environment: dict[str, str], tiny_artifact: Write, photos: Path) -> None:
    command = [sys.executable, "-m", "sdcompress", "predict", str(tiny_artifact()), str(photos), "--csv"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "\nwarning: 1 of 3 examples have no prediction; see the error of each.\n" in "\n" + done.stderr
    assert ".py:" not in done.stderr
