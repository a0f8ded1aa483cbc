"""Training on shards and on a saved dataset: a run that was stopped ends with the bits of one that was not."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdcompress.schema.recipe import Recipe
from sdcompress.training.run import train

Small = Callable[..., Recipe]


class Killed(BaseException):
    """As hard a stop as one process can give itself: nothing of ours catches it."""


def kill_at_7(done: int, _all: int) -> None:
    if done == 7:
        raise Killed


def pictures(count: int) -> list[tuple[bytes, int]]:
    """Noise, brighter in class 1."""
    rng, made = np.random.default_rng(0), []
    for number in range(count):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 128, (20, 20, 3), np.uint8) + np.uint8(100 * (number % 2))).save(file, "png")
        made.append((file.getvalue(), number % 2))
    return made


def shards(root: Path) -> None:
    for first in range(0, 240, 60):
        with tarfile.open(root / f"{first:03}.tar", "w") as tar:
            for number, (image, label) in enumerate(pictures(240)[first : first + 60], first):
                for name, content in ((f"{number}.cls", str(label).encode()), (f"{number}.png", image)):
                    header = tarfile.TarInfo(name)
                    header.size = len(content)
                    tar.addfile(header, io.BytesIO(content))


def dataset(root: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    content = {"image": [], "label": []}
    for image, label in pictures(240):
        content["image"].append({"bytes": image, "path": None})
        content["label"].append(label)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dark", "bright"])})
    datasets.Dataset.from_dict(content, features=features).save_to_disk(root)


@pytest.mark.parametrize(("name", "write"), [("webdataset", shards), ("huggingface", dataset)])
def test_a_resumed_run_with_a_memory_of_every_sample_is_bit_identical(
    small: Small, tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    write(root)
    # step 7 is in the second epoch, where the memory gives each position what the first one left there
    settings = ["method=ps_kd", f"data.name={name}", f"data.dir={root}", "train.checkpoint_steps=2"]
    whole = train(small(*settings), tmp_path / "whole")
    assert whole.state.step == 10
    with pytest.raises(Killed):
        train(small(*settings, "train.workers=2"), tmp_path / "parts", on_step=kill_at_7)
    resumed = train(small(*settings), tmp_path / "parts")
    assert resumed.state.step == 10
    assert resumed.weights_sha256 == whole.weights_sha256
    assert resumed.state.training.sha256 == whole.state.training.sha256  # optimiser, memories, raw weights


def test_both_train_the_same_network_from_the_same_images(small: Small, tmp_path: Path) -> None:
    weights = []
    for name, write in (("webdataset", shards), ("huggingface", dataset)):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
        recipe = small("method=ps_kd", "train.epochs=1", f"data.name={name}", f"data.dir={tmp_path / name}")
        weights.append(train(recipe, tmp_path / f"run-{name}").weights_sha256)
    assert weights[0] == weights[1]
