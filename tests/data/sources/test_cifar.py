"""CIFAR's files written here in the published format, with few images of our own; the real ones where they are."""

from __future__ import annotations

import os
import pickle
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest

from sdcompress.data import load
from sdcompress.data.sources._cifar import read_names, read_split
from sdcompress.data.sources._torchvision import Published
from sdcompress.errors import DataError
from sdcompress.schema.recipe import Data

SET = Published("cifar10", "CIFAR10", "cifar-10-batches-py", {"train": "?", "meta": "?"})
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
PLANES = np.stack([image.transpose(2, 0, 1).ravel() for image in IMAGES])
LABELS = [3, 0, 9, 3]


def write(folder: Path, content: object, file: str = "train") -> None:
    (folder / file).write_bytes(pickle.dumps(content, protocol=2))


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    return read_split(SET, folder, "train", labels="labels", count=4)


def python2_pickle(planes: np.ndarray, labels: list[int]) -> bytes:
    """The bytes that Python 2 wrote for {'data': planes, 'labels': labels}: pixels are a str, not bytes."""

    def short(text: str) -> bytes:
        return b"U" + bytes([len(text)]) + text.encode()

    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
    array += b"K" + bytes([planes.shape[0]]) + b"M" + struct.pack("<H", planes.shape[1]) + b"\x86"
    array += b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    array += b"T" + struct.pack("<i", planes.size) + planes.tobytes() + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + short("data") + array + short("labels") + numbers + b"u."


def test_pixels_come_back_with_channels_last(tmp_path: Path) -> None:
    write(tmp_path, {"data": PLANES, "labels": LABELS})
    images, labels = read(tmp_path)
    assert np.array_equal(images, IMAGES)
    assert labels.tolist() == LABELS


def test_what_python_2_wrote_is_read_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "train").write_bytes(python2_pickle(PLANES, LABELS))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images, labels = read(tmp_path)
    assert np.array_equal(images, IMAGES)
    assert labels.tolist() == LABELS


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.folder,)


def test_a_pickle_that_wants_to_run_something_is_refused(tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    write(tmp_path, {"data": PLANES, "labels": LABELS, "more": Harmful(harm)})
    with pytest.raises(DataError, match="mkdir"):
        read(tmp_path)
    assert not harm.exists()
    pickle.loads((tmp_path / "train").read_bytes())
    assert harm.exists(), "the pickle of this test does no harm, so the test shows nothing"


@pytest.mark.parametrize(
    "content",
    [
        {"data": PLANES[:3], "labels": LABELS},
        {"data": PLANES.astype(np.float32), "labels": LABELS},
        {"data": PLANES[:, :3071], "labels": LABELS},
        {"data": PLANES, "labels": LABELS[:3]},
        {"data": PLANES, "labels": [0.5] * 4},
        {"data": PLANES},
        ["data", "labels"],
    ],
)
def test_other_contents_are_refused_with_the_name_of_the_file(tmp_path: Path, content: object) -> None:
    write(tmp_path, content)
    with pytest.raises(DataError, match=str(tmp_path / "train")):
        read(tmp_path)


@pytest.mark.parametrize("keep", [0, 1, 10, 500, 9000])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    content = pickle.dumps({"data": PLANES, "labels": LABELS}, protocol=2)
    (tmp_path / "train").write_bytes(content[:keep])
    with pytest.raises(DataError, match=str(tmp_path / "train")):
        read(tmp_path)


def test_a_file_with_any_damaged_byte_is_read_or_refused_but_never_crashes(tmp_path: Path) -> None:
    content = bytearray(python2_pickle(PLANES[:, :300], LABELS))
    for position in range(300):
        damaged = bytearray(content)
        damaged[position] ^= 0x55
        (tmp_path / "train").write_bytes(damaged)
        with pytest.raises(DataError):  # 300 values an image are too few in any case
            read(tmp_path)


def test_names_are_read(tmp_path: Path) -> None:
    write(tmp_path, {"label_names": ["cat", "dog"]}, "meta")
    assert read_names(SET, tmp_path, "meta", key="label_names") == ("cat", "dog")
    with pytest.raises(DataError, match="fine_label_names"):
        read_names(SET, tmp_path, "meta", key="fine_label_names")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_missing_folder_is_named_with_what_it_should_hold(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        load(Data(name=name, dir=str(tmp_path)), seed=0)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name] in message
    assert "data.download=true" in message


@pytest.mark.parametrize("below", ["", "cifar100"])
def test_an_incomplete_folder_is_named_with_the_missing_files(tmp_path: Path, below: str) -> None:
    folder = tmp_path / below / "cifar-100-python"
    folder.mkdir(parents=True)
    write(folder, {"fine_label_names": []}, "meta")
    with pytest.raises(DataError, match="has no train, test"):
        load(Data(name="cifar100", dir=str(tmp_path)), seed=0)


def test_another_md5_is_warned_of_and_a_wrong_count_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for file in ("train", "test"):
        write(folder, {"data": PLANES, "fine_labels": LABELS}, file)
    write(folder, {"fine_label_names": ["a"] * 10}, "meta")
    with pytest.warns(UserWarning, match="train, test, meta .*another MD5"), pytest.raises(DataError, match="4, 3072"):
        load(Data(name="cifar100", dir=str(tmp_path)), seed=0)


@pytest.mark.needs_data("cifar100")
@pytest.mark.filterwarnings("ignore:.*another MD5")
def test_the_real_cifar_100(cifar100_folder: Path) -> None:
    dataset = load(Data(name="cifar100", dir=str(cifar100_folder)), seed=0)
    assert [len(dataset.train), len(dataset.val), len(dataset.test)] == [45_000, 5_000, 10_000]
    assert np.bincount(dataset.val.targets).tolist() == [50] * 100
    assert np.bincount(dataset.test.targets).tolist() == [100] * 100
    assert (dataset.outputs[0], dataset.outputs[99], dataset.modality.shape) == ("apple", "worm", (3, 32, 32))
    images = np.concatenate([samples.examples(np.arange(len(samples))) for samples in (dataset.train, dataset.val)])
    values = np.arange(256) / 255
    for channel in range(3):
        counts = np.bincount(images[..., channel].ravel(), minlength=256) / images[..., channel].size
        mean = counts @ values
        assert mean == pytest.approx(dataset.modality.preprocess.mean[channel], abs=6e-5)
        assert np.sqrt(counts @ (values - mean) ** 2) == pytest.approx(
            dataset.modality.preprocess.std[channel], abs=6e-5
        )
