"""Images are prepared as the weights want it that a training starts from."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdcompress import data, export, recipes
from sdcompress.artifact.read import open_artifact
from sdcompress.checkpoint import open_checkpoint
from sdcompress.modalities._image_settings import ImageSettings
from sdcompress.runtime.open import open_engine
from sdcompress.schema.recipe import Export, Recipe
from sdcompress.training.pretrained_preprocessing import adopt_pretrained_preprocessing, reopen_adopted_keys
from sdcompress.training.run import holds_another, train

HALF = (0.5, 0.5, 0.5)
NET = """
from sdcompress.models.backbones.cifar import cifar

def net(outputs, inputs, pretrained=False, config=None):
    made = cifar("resnet8", outputs=outputs, inputs=inputs, pretrained=False)
    made.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "crop_pct": 0.8}
    made.pretrained_cfg |= config or {}
    return made
"""
Make = Callable[..., Recipe]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A recipe of a network with weights of its own on 300 small photos."""
    (tmp_path / "weighed.py").write_text(NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    generator = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(150):
            pixels = generator.integers(0, 256, (21 + number % 5, 25, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number:03}.png")

    def recipe(*settings: str, name: str = "imagefolder") -> Recipe:
        return recipes.read(
            {
                "modality": {"image_size": 16},
                "data": {"name": name, "dir": str(tmp_path / "photos"), "validation": 0.9},
                "model": {"name": "weighed:net", "pretrained": True},
                "exits": {"count": 1, "head": "linear"},
                "train": {"epochs": 1, "batch_size": 16, "device": "cpu"},
            },
            settings,
        )

    return recipe


def resolved(recipe: Recipe) -> Recipe:
    return adopt_pretrained_preprocessing(recipe, data.load(recipe.data, seed=0, modality=recipe.modality))


def prepared(recipe: Recipe) -> tuple[Any, ...]:
    settings = ImageSettings.model_validate(recipe.modality.parameters)
    return settings.mean, settings.std, settings.interpolation, settings.crop


def test_what_the_weights_want_is_taken_over_and_said(make: Make) -> None:
    with pytest.warns(UserWarning, match=r"'weighed:net' were trained with mean \(0\.5, 0\.5, 0\.5\).*\(0\.485,"):
        assert prepared(resolved(make())) == (HALF, HALF, "bicubic", 0.8)


def test_without_weights_nothing_is_taken_over(make: Make) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolved(make("model.pretrained=false")) == make("model.pretrained=false")
        # ImageNet's numbers, and a crop that comes to the same 18 pixels of 16 / 0.875
        usual = "{mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], crop_pct: 0.88, interpolation: bilinear}"
        usual = f"model.options={{config: {usual}}}"
        assert prepared(resolved(make(usual))) == (None, None, None, None)


def test_what_the_recipe_says_is_kept_and_the_difference_said(make: Make) -> None:
    with pytest.warns(UserWarning, match=r"trained with mean \(0\.5, 0\.5, 0\.5\)\. This training uses mean \(0\.4,"):
        found = resolved(make("modality.mean=[0.4, 0.4, 0.4]", "modality.crop=none"))
    assert prepared(found) == ((0.4, 0.4, 0.4), HALF, "bicubic", "none")


@pytest.mark.parametrize(
    ("config", "crop"), [("{crop_mode: squash}", "none"), ("{crop_pct: 1.0}", 1.0), ("{crop_pct: null}", None)]
)
def test_crops_of_timm(make: Make, config: str, crop: Any) -> None:
    with pytest.warns(UserWarning, match="were trained with"):
        assert resolved(make(f"model.options={{config: {config}}}")).modality.parameters.get("crop") == crop


def test_a_set_of_another_kind_keeps_what_does_not_fit_it(make: Make) -> None:
    with pytest.warns(UserWarning, match="trained with interpolation bicubic"):
        assert prepared(resolved(make(name="digits"))) == (None, None, "bicubic", None)


def test_a_run_is_trained_exported_and_served_as_its_weights_want_it(make: Make, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="were trained with"):
        begun = train(make(), tmp_path / "run")
    assert prepared(begun.recipe) == (HALF, HALF, "bicubic", 0.8)
    assert not holds_another(make(), tmp_path / "run")
    assert train(make(), tmp_path / "run").path == begun.path  # the same recipe goes on
    assert holds_another(make("modality.mean=[0.1, 0.1, 0.1]"), tmp_path / "run")
    export(begun.path, tmp_path / "artifact", layout="single", settings=Export(parity_samples=256, parity_max_batch=8))
    spec = open_artifact(tmp_path / "artifact").modality.preprocess
    assert spec == begun.modality.preprocess
    assert (spec.mean, spec.interpolation, spec.resize, spec.crop) == (HALF, "bicubic", 20, (16, 16))
    photo = Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 33, 3), np.uint8))
    # 30 x 33 -> 20 x 22, then rows 2 to 18 and columns 3 to 19
    by_hand = np.asarray(photo.resize((22, 20), Image.Resampling.BICUBIC).crop((3, 2, 19, 18)), np.float32)
    inputs = open_engine(tmp_path / "artifact", threads=1).preprocess([photo])
    np.testing.assert_allclose(np.asarray(inputs)[0], (by_hand.transpose(2, 0, 1) / 255 - 0.5) / 0.5, atol=1e-6)


def test_who_starts_from_a_checkpoint_is_prepared_as_it_was(make: Make, tmp_path: Path) -> None:
    own = "model.pretrained=false"
    train(make(own, "modality.mean=[0.3, 0.3, 0.3]"), tmp_path / "run")
    start = make(own, f"model.weights={tmp_path / 'run'}")
    with pytest.warns(UserWarning, match=r"mean \(0\.3, 0\.3, 0\.3\)\. That is taken over"):
        assert prepared(resolved(start)) == ((0.3, 0.3, 0.3), None, None, None)
    train(make(own), tmp_path / "usual")
    other = make(own, "modality.mean=[0.3, 0.3, 0.3]", f"model.weights={tmp_path / 'usual'}")
    with pytest.warns(UserWarning, match=r"mean \(0\.485, 0\.456, 0\.406\)\. This training uses mean \(0\.3,"):
        assert resolved(other) == other
    # what was the data set's own is not carried to another one
    kept = make(own, f"model.weights={tmp_path / 'usual'}")
    begun = SimpleNamespace(recipe=kept, modality=open_checkpoint(tmp_path / "usual").modality)
    assert reopen_adopted_keys(kept, begun) == kept
