"""A download by torchvision itself, from a mirror on this machine."""

from __future__ import annotations

import gzip
import hashlib
import struct
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from sdcompress.data import load
from sdcompress.errors import DataError
from sdcompress.schema.recipe import Data

datasets = pytest.importorskip("torchvision.datasets")


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A served folder with a black MNIST of the published size, which torchvision takes for the published one."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    resources = []
    for split, count in (("train", 60_000), ("t10k", 10_000)):
        for kind, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            values = np.zeros(shape, np.uint8) if len(shape) == 3 else (np.arange(count) % 10).astype(np.uint8)
            header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
            file = folder / f"{split}-{kind}-ubyte.gz"
            file.write_bytes(gzip.compress(header + values.tobytes(), 1))
            resources.append((file.name, hashlib.md5(file.read_bytes()).hexdigest()))
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        yield folder
        server.shutdown()


@pytest.mark.filterwarnings("ignore:.*another MD5")
def test_a_download_fills_the_folder_once(mirror: Path, tmp_path: Path) -> None:
    data = Data(name="mnist", dir=str(tmp_path / "data"), download=True)
    first = load(data, seed=0)
    assert (len(first.train), len(first.val), len(first.test)) == (54_000, 6_000, 10_000)
    for file in mirror.iterdir():
        file.unlink()
    assert load(data, seed=0).fingerprint == first.fingerprint


def test_nothing_is_downloaded_unasked(mirror: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder 'MNIST/raw'"):
        load(Data(name="mnist", dir=str(tmp_path / "data")), seed=0)
    assert not (tmp_path / "data").exists()


def test_a_download_that_fails_says_where_to_put_the_files(mirror: Path, tmp_path: Path) -> None:
    (mirror / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"could not download 'mnist'") as caught:
        load(Data(name="mnist", dir=str(tmp_path / "data"), download=True), seed=0)
    assert str(tmp_path / "data" / "MNIST" / "raw") in str(caught.value)
