"""idx files written here by their specification; the real Fashion-MNIST where it is."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from sdcompress.data import load
from sdcompress.data.sources._idx import read_array
from sdcompress.data.sources._torchvision import Published
from sdcompress.errors import DataError
from sdcompress.schema.recipe import Data

FILE = "train-images-idx3-ubyte.gz"
SET = Published("mnist", "MNIST", "MNIST/raw", {FILE: "?"})
VALUES = np.random.default_rng(0).integers(0, 256, (3, 4, 5), np.uint8)


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.mark.parametrize("packed", [True, False])
def test_values_come_back_with_and_without_gzip(tmp_path: Path, packed: bool) -> None:
    if packed:
        (tmp_path / FILE).write_bytes(gzip.compress(idx(VALUES)))
    else:
        (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(VALUES))
    assert np.array_equal(read_array(SET, tmp_path, FILE, (3, 4, 5)), VALUES)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        idx(VALUES)[:-1],
        idx(VALUES) + b"\0",
        idx(VALUES[:2]),
        idx(VALUES.ravel()),
        idx(VALUES).replace(b"\x08", b"\x0d", 1),  # floats
        gzip.compress(idx(VALUES))[:-9],
        gzip.compress(idx(VALUES))[:30] + b"\x55" * 40,
        b"\x1f\x8b",
        b"<html>not found</html>",
    ],
    ids=["empty", "short", "long", "fewer", "flat", "floats", "cut gzip", "broken gzip", "gzip head", "a web page"],
)
def test_damaged_files_are_refused_with_their_name(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / FILE).write_bytes(raw)
    with pytest.raises(DataError, match=str(tmp_path / FILE)):
        read_array(SET, tmp_path, FILE, (3, 4, 5))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_a_missing_folder_is_named_with_what_it_should_hold(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        load(Data(name=name, dir=str(tmp_path)), seed=0)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert {"mnist": "'MNIST/raw'", "fashion_mnist": "'FashionMNIST/raw'"}[name] in message
    assert FILE in message


def test_a_set_of_the_right_size_is_read_with_a_warning_about_its_md5(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for split, count in (("train", 60_000), ("t10k", 10_000)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = np.broadcast_to((20 * labels)[:, None, None], (count, 28, 28))
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images), 1))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.warns(UserWarning, match="train-images-idx3-ubyte.gz, t10k-images-idx3-ubyte.gz"):
        dataset = load(Data(name="mnist", dir=str(tmp_path), train_limit=100, test_limit=50), seed=0)
    assert (len(dataset.train), len(dataset.val), len(dataset.test), dataset.modality.shape) == (
        100,
        6_000,
        50,
        (1, 28, 28),
    )
    images = dataset.test.examples(np.arange(50))
    assert np.array_equal(images[:, 5, 5, 0], 20 * dataset.test.targets)


@pytest.mark.needs_data("fashion_mnist")
def test_the_real_fashion_mnist(fashion_mnist_folder: Path) -> None:
    dataset = load(Data(name="fashion_mnist", dir=str(fashion_mnist_folder)), seed=0)
    assert [len(dataset.train), len(dataset.val), len(dataset.test)] == [54_000, 6_000, 10_000]
    assert np.bincount(dataset.test.targets).tolist() == [1_000] * 10
    images = np.concatenate([samples.examples(np.arange(len(samples))) for samples in (dataset.train, dataset.val)])
    assert images.mean() / 255 == pytest.approx(dataset.modality.preprocess.mean[0], abs=6e-5)
    assert images.std() / 255 == pytest.approx(dataset.modality.preprocess.std[0], abs=6e-5)
