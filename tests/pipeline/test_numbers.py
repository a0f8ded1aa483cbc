"""Rows with a number to estimate go the whole way: every layout, in one file, in lower precision, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import sdcompress
from sdcompress.errors import UsageError
from sdcompress.exporting import one_graph
from sdcompress.options import Options

ROW = {"age": 40, "city": "Bern", "hours": 20}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the training 'run' of a perceptron that states deviations, and the artifacts 'cascade' and 'early'."""
    folder = tmp_path_factory.mktemp("numbers")
    rng = np.random.default_rng(0)
    for split, count in (("train", 150), ("validation", 260), ("test", 40)):
        ages, hours, cities = rng.uniform(20, 60, count), rng.uniform(0, 50, count), rng.choice(["Bern", "Uri"], count)
        heights = 0.5 * ages + 0.2 * hours + 10 * (cities == "Bern") + rng.normal(size=count)
        lines = [f"{a:.2f},{c},{h:.2f},{y:.3f}" for a, c, h, y in zip(ages, cities, hours, heights, strict=True)]
        (folder / f"{split}.csv").write_text("\n".join(["age,city,hours,height", *lines]), "utf-8")
    recipe = {
        "name": "numbers",
        "data": {"name": "table_numbers", "dir": str(folder), "label": "height"},
        "task": {"name": "regression", "criterion": "gaussian"},
        "model": {"name": "mlp:3x8"},
        "exits": {"count": 1, "head": "linear"},
        "method": "self_distillation",
        "train": {"epochs": 2, "batch_size": 25, "optimizer": {"name": "adamw", "lr": 0.01}},
    }
    sdcompress.train(recipe, folder / "run")
    sdcompress.export(folder / "run", folder / "cascade", layout="cascade")
    sdcompress.calibrate(folder / "cascade", folder / "early", {"max_drop": 0.3, "policy": "entropy"})
    return folder


def test_one_graph_of_all_exits_says_what_the_cascade_says(folder: Path) -> None:
    sdcompress.export(folder / "run", folder / "all", layout="all")
    assert [exit_.flips for exit_ in sdcompress.verify(folder / "all").exits] == [0, 0]
    cascade, everything = (sdcompress.open(folder / name) for name in ("cascade", "all"))
    inputs = cascade.preprocess([ROW, {**ROW, "city": "Uri"}])
    np.testing.assert_allclose(everything.exits(inputs), cascade.exits(inputs), atol=1e-5)
    with pytest.raises(UsageError, match="early exit would save nothing"):
        sdcompress.calibrate(folder / "all", folder / "no", {"max_drop": 0.3, "policy": "entropy"})


def test_one_file_for_single_rows_exits_as_the_cascade_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_graph, "check_faster", lambda _: None)  # a network this small gains nothing
    sdcompress.export(folder / "early", folder / "if", layout="if")
    assert sdcompress.verify(folder / "if").one_graph == "if"
    engine = sdcompress.open(folder / "early")
    session = onnxruntime.InferenceSession(folder / "if" / "model.onnx")
    for city in ("Bern", "Uri"):
        inputs = engine.preprocess([{**ROW, "city": city}])
        expected = engine(inputs)
        outputs, decision, exit_index = session.run(None, dict(inputs.arrays))
        np.testing.assert_allclose(outputs, expected.outputs, atol=1e-5)
        np.testing.assert_allclose(decision, expected.decision, rtol=1e-5)
        assert exit_index.tolist() == expected.exit_index.tolist()


def test_estimates_that_move_less_than_a_step_have_not_changed(folder: Path) -> None:
    options = Options(threads=1)
    result = sdcompress.quantize(folder / "cascade", folder / "fp16", "fp16", options=options)
    assert [change.decision_changes for change in result.exits] == [0, 0]
    assert all(0 < change.max_abs_diff < 0.1 for change in result.exits)
