"""Images with masks all the way: trained with exits, exported, calibrated, predicted and drawn."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sdcompress
from sdcompress.options import Options
from sdcompress.schema.recipe import Recipe

NETWORK = """
import torch
from torch import nn
import torch.nn.functional as F

class Tiny(nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU())
        self.third = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.out = nn.Conv2d(8, classes, 1)

    def forward(self, images):
        maps = self.third(self.second(self.first(images)))
        return F.interpolate(self.out(maps), size=images.shape[2:], mode="bilinear", align_corners=False)

def make(outputs, inputs):
    return Tiny(outputs[0], inputs[0].shape[1])
"""
SIZE, COUNTS = (12, 16), {"train": 24, "val": 56, "test": 6}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training on bright squares before a dark ground; a void edge around each."""
    root = tmp_path_factory.mktemp("masks")
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for folder in ("images", "masks"):
            (root / "data" / split / folder).mkdir(parents=True)
        for number in range(count):
            mask = np.zeros(SIZE, np.uint8)
            top, left = int(rng.integers(1, 6)), int(rng.integers(1, 8))
            mask[top - 1 : top + 6, left - 1 : left + 6] = 255
            mask[top : top + 5, left : left + 5] = 1
            image = np.where(mask[..., None] == 1, 200, 30) + rng.integers(0, 30, (*SIZE, 3))
            Image.fromarray(image.astype(np.uint8)).save(root / "data" / split / "images" / f"{number}.png")
            Image.fromarray(mask).save(root / "data" / split / "masks" / f"{number}.png")
    (root / "data" / "classes.txt").write_text("ground\nsquare\n")
    (root / "tiny_masks.py").write_text(NETWORK)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        recipe = Recipe.model_validate(
            {
                "name": "masks",
                "data": {"name": "masks", "dir": str(root / "data")},
                "task": "segmentation",
                "model": {"name": "tiny_masks:make"},
                "exits": {"modules": ["first", "second"], "head": "dense", "width_cap": 6},
                "method": "self_distillation",
                "train": {
                    "epochs": 6,
                    "batch_size": 8,
                    "optimizer": {"name": "adamw", "lr": 0.02},
                    "augment": {"flip": True, "resized_crop": 0.6, "cutout": 2},
                    "evaluate_every": 6,
                },
            }
        )
        with pytest.warns(UserWarning, match="held-out examples prove the export"):
            sdcompress.train(recipe, root / "run")
        yield root


def test_from_masks_to_an_artifact_and_back_to_masks(run: Path) -> None:
    options = Options(threads=1, trust_modules=True)
    evaluation = sdcompress.evaluate(run / "run", options)
    assert evaluation.metric_name == "image_iou"
    last = evaluation.exits[2]
    assert last.further["pixel_accuracy"] > 0.9
    assert last.further["miou"] > 0.7
    assert evaluation.pictures is not None
    drawn = Image.open(io.BytesIO(base64.b64decode(evaluation.pictures)))
    assert drawn.format == "PNG"
    with pytest.warns(UserWarning, match="Only 62 held-out"):
        sdcompress.export(run / "run", run / "cascade", None, options)
    sdcompress.verify(run / "cascade")
    calibrated = sdcompress.calibrate(run / "cascade", run / "early", {"max_drop": 0.2}, options)
    assert calibrated.policy is not None
    assert calibrated.policy.name == "max_prob"
    file = run / "data" / "test" / "images" / "0.png"
    (prediction,) = sdcompress.predict(run / "early", [file], options, top=2, pictures=run / "pictures")
    assert prediction.unit == "share"
    assert prediction.picture == str(run / "pictures" / "0.png")
    engine = sdcompress.open(run / "early", threads=1)
    written = np.asarray(Image.open(run / "pictures" / "0.png"))
    np.testing.assert_array_equal(written, engine(engine.preprocess([file])).decision[0])
    report = sdcompress.report(
        {"early": run / "early"}, run / "report", evaluations=[sdcompress.evaluate(run / "early", options)]
    )
    assert report.metric_name == "image_iou"
    assert (run / "report" / "decisions.png").read_bytes().startswith(b"\x89PNG")
    assert "data:image/png;base64" in (run / "report" / "report.html").read_text(encoding="utf-8")
