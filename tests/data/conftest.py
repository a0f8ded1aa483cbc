"""Real data sets: where they are looked for, and why a test is skipped."""

from __future__ import annotations

import importlib.util
import os
import zipfile
from pathlib import Path

import pytest

LAYOUT = {
    "camvid": "CamVid/trainannot",
    "cifar100": "cifar-100-python",
    "fashion_mnist": "FashionMNIST/raw",
    "sst2": "dev.tsv",
}


def _root() -> Path:
    beside = Path(__file__).parents[2].parent / "shared" / "data"
    return Path(os.environ.get("SDCOMPRESS_DATA") or beside)


def _has(root: Path, name: str) -> bool:
    packed = (root / name).is_dir() and (root / "bench_data.py").is_file()
    return packed or any((place / LAYOUT[name]).exists() for place in (root, root / name))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs_data"):
        (name,) = marker.args
        if not _has(_root(), name):
            pytest.skip(f"'{name}' is not in {_root()}; SDCOMPRESS_DATA names another folder")


@pytest.fixture(scope="session")
def cifar100_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cifar-100-python; unpacked if need be."""
    root = _root()
    if any((place / LAYOUT["cifar100"]).is_dir() for place in (root, root / "cifar100")):
        return root
    spec = importlib.util.spec_from_file_location("bench_data", root / "bench_data.py")
    assert spec is not None
    assert spec.loader is not None
    bench_data = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench_data)
    out = tmp_path_factory.mktemp("cifar100")
    bench_data.cifar_pickles("cifar100", str(out))
    return out


@pytest.fixture(scope="session")
def fashion_mnist_folder() -> Path:
    """A folder that holds FashionMNIST/raw, itself or in 'fashion_mnist'."""
    return _root()


@pytest.fixture(scope="session")
def sst2_folder() -> Path:
    """A folder with train.tsv, dev.tsv and test.tsv of SST-2."""
    root = _root()
    return next(place for place in (root / "sst2", root) if (place / LAYOUT["sst2"]).is_file())


@pytest.fixture(scope="session")
def camvid_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with CamVid in the layout of SegNet's repository; unpacked if need be."""
    root = _root()
    for folder in (root, root / "camvid"):
        if (folder / LAYOUT["camvid"]).is_dir():
            return folder
    out = tmp_path_factory.mktemp("camvid")
    for split in ("train", "val", "test"):
        with zipfile.ZipFile(root / "camvid" / f"camvid_{split}.zip") as packed:
            for name in packed.namelist():
                path, mask = Path(name), name.endswith("_label.png")
                target = f"{split}annot/{path.name.replace('_label', '')}" if mask else f"{split}/{path.name}"
                (out / "CamVid" / target).parent.mkdir(parents=True, exist_ok=True)
                (out / "CamVid" / target).write_bytes(packed.read(name))
    return out
