"""Files become predictions: the same as the engine gives, one row for each file, whatever one of them is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sdcompress
from sdcompress.errors import DataError, OutputExistsError, UsageError
from sdcompress.evaluation.predict import _picture_names
from sdcompress.options import Options

Write = Callable[..., Path]
CLASSES = ("square", "disc", "star")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("b.png", "a.png", "deep/c.bmp"):
        Image.fromarray(rng.integers(0, 256, (9, 7), np.uint8)).save(folder / name)
    return folder


def test_every_file_gets_what_the_engine_gives(tiny_artifact: Write, photos: Path) -> None:
    path = tiny_artifact(policy=(0.6, 0.6), temperatures=(2.0, 1.0, 1.0))
    done: list[tuple[int, int]] = []
    predictions = sdcompress.predict(path, [photos], Options(threads=1, progress=lambda *at: done.append(at)), top=3)
    files = [photos / "a.png", photos / "b.png", photos / "deep/c.bmp"]
    assert [one.file for one in predictions] == list(map(str, files))
    assert done == [(1, 3), (2, 3), (3, 3)]
    engine = sdcompress.open(path, threads=1)
    expected = engine(engine.preprocess(files))
    assert [one.stated[0].name for one in predictions] == list(expected.labels)
    assert [one.exit for one in predictions] == list(expected.exit_names)
    for row, one in enumerate(predictions):
        assert sum(each.value for each in one.stated) == pytest.approx(1)
        assert one.stated[0].value == pytest.approx(float(expected.probabilities[row].max()), abs=1e-6)
        assert one.prepare_ms is not None
        assert one.prepare_ms > 0
        assert one.run_ms is not None
        assert one.run_ms > 0


def test_a_broken_file_has_its_error_and_stops_nothing(tiny_artifact: Write, photos: Path) -> None:
    (photos / "broken.png").write_bytes((photos / "a.png").read_bytes()[:40])
    with pytest.warns(UserWarning, match="1 of 4 examples have no prediction"):
        predictions = sdcompress.predict(tiny_artifact(), [photos])
    assert [one.error is None for one in predictions] == [True, True, False, True]
    broken = predictions[2]
    assert broken.file.endswith("broken.png")
    assert (broken.stated, broken.exit, broken.run_ms) == ((), None, None)


def test_a_path_without_anything_is_refused(tiny_artifact: Write, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    artifact = tiny_artifact()
    for path, message in ((tmp_path / "none", "no file and no folder"), (tmp_path / "empty", "hold no file")):
        with pytest.raises(DataError, match=message):
            sdcompress.predict(artifact, [path])


def test_no_picture_is_written_into_an_artifact(tiny_artifact: Write, photos: Path) -> None:
    artifact = tiny_artifact()
    for pictures in (artifact, artifact / "pictures"):
        with pytest.raises(OutputExistsError, match="which the output would invalidate"):
            sdcompress.predict(artifact, [photos], pictures=pictures)


def test_a_prediction_can_be_read_without_the_engine(tiny_artifact: Write, tiny_network: object) -> None:
    temperatures = (2.0, 1.0, 0.5)
    engine = sdcompress.open(tiny_artifact(policy=(0.6, 0.6), temperatures=temperatures), threads=1)
    inputs = np.random.default_rng(0).normal(size=(50, 1, 4, 4)).astype(np.float32)
    prediction = engine(inputs)
    assert set(prediction.exit_index) == {0, 1, 2}
    scaled = prediction.outputs / np.take(temperatures, prediction.exit_index)[:, None]
    expected = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(prediction.probabilities, expected, rtol=1e-5)
    assert prediction.labels == tuple(CLASSES[k] for k in prediction.outputs.argmax(axis=1))
    assert prediction.exit_names == tuple(("exit1", "exit2", "final")[k] for k in prediction.exit_index)
    for row, best in enumerate(prediction.top(2)):
        order = sorted(range(3), key=lambda k: -expected[row, k])[:2]
        assert [name for name, _ in best] == [CLASSES[k] for k in order]
    assert engine.forced(inputs, 0).exit_names == ("exit1",) * 50
    empty = engine(inputs[:0])
    assert (empty.labels, empty.exit_names, empty.top(), empty.probabilities.shape) == ((), (), (), (0, 3))


def test_no_picture_replaces_another_one_or_a_file_that_is_predicted(tmp_path: Path) -> None:
    listed = [str(tmp_path / name) for name in ("a.jpg", "deep/a.jpg", "a-2.jpg")]
    out = tmp_path / "out"
    assert _picture_names(listed, out) == [out / "a.png", out / "a-2.png", out / "a-2-2.png"]
    with pytest.raises(UsageError, match=r"would replace the file '.*b\.png'"):
        _picture_names([str(tmp_path / "b.png")], tmp_path / "out" / "..")
