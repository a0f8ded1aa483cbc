"""The steps of docs/adding/modality.md, followed to the letter by a package that is not ours."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from sdcompress import data, modalities, registry
from sdcompress.errors import InputError, RecipeError
from sdcompress.schema.recipe import Augmentation, Data, ModalitySection

GUIDE = Path(__file__).parents[2] / "docs" / "adding" / "modality.md"


@pytest.fixture
def vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of the guide, installed with its entry points."""
    text = GUIDE.read_text(encoding="utf-8")
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").touch()
    names = ("vectors", "digit_vectors")
    for name, source in zip(names, re.findall(r"```python\n(.*?)```", text, re.DOTALL), strict=True):
        (tmp_path / "my_package" / f"{name}.py").write_text(source, encoding="utf-8")
    (toml,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    entries = re.sub(r'\[project\.entry-points\."(.+)"\]', r"[\1]", toml).replace('"', "")
    (tmp_path / "my_package-1.dist-info").mkdir()
    (tmp_path / "my_package-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: my-package\nVersion: 1\n"
    )
    (tmp_path / "my_package-1.dist-info" / "entry_points.txt").write_text(entries)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("my_package.vectors")
    for name in [name for name in sys.modules if name.startswith("my_package")]:
        del sys.modules[name]


def test_the_modality_of_the_guide_is_found_and_comes_back_from_its_record(vectors: ModuleType) -> None:
    assert "vectors" in registry.names(modalities.ROOM)
    made = vectors.Vectors((1.0, 2.0), (0.5, 4.0))
    assert made.record.model_dump() == {"name": "vectors", "parameters": {"mean": [1.0, 2.0], "std": [0.5, 4.0]}}
    assert modalities.restore(made.record.name, made.record.parameters) == made
    assert made.packed == {"examples": ("float32", 2)}


def test_raw_examples_of_any_kind_become_the_same_inputs(vectors: ModuleType, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.float32([2.0, -2.0]))
    made = vectors.Vectors((1.0, 2.0), (0.5, 4.0))
    inputs = made.prepare([tmp_path / "one.npy", [2.0, -2.0], np.array([1.0, 6.0])])
    np.testing.assert_array_equal(inputs.arrays["values"], np.float32([[2, -1], [2, -1], [0, 1]]))
    assert made.prepare([]).arrays["values"].shape == (0, 2)
    with pytest.raises(InputError, match=r"Vectors 1 cannot be used: The vector has the shape \[3\]"):
        made.prepare([[1.0, 2.0], [1.0, 2.0, 3.0]])


@pytest.mark.parametrize(
    ("inputs", "why"),
    [
        (np.zeros((3, 5), np.float32), r"shape \[3, 5\].*\[B, 2\]"),
        (np.zeros(2, np.float32), r"one sample, no batch"),
        (np.zeros((3, 2)), r"is float64.*astype\(numpy.float32\)"),
        (np.zeros((3, 2), np.uint8), "engine.preprocess"),
        ({"value": np.zeros((3, 2), np.float32)}, "NoneType"),
        ([[1.0, 2.0]], "is a list"),
    ],
)
def test_inputs_are_checked_against_the_tensors(vectors: ModuleType, inputs: object, why: str) -> None:
    made = vectors.Vectors((1.0, 2.0), (0.5, 4.0))
    with pytest.raises(InputError, match=f"(?s){why}"):
        made.check(inputs)
    right = np.zeros((3, 2), np.float32)
    assert all(made.check(given).arrays["values"] is right for given in (right, {"values": right}))


def test_training_takes_what_is_deployed_and_refuses_what_is_for_images(vectors: ModuleType) -> None:
    torch = pytest.importorskip("torch")
    made, examples = vectors.Vectors((1.0, 2.0), (0.5, 4.0)), np.float32([[2, -2], [1, 6]])
    chance = torch.Generator().manual_seed(0)
    (plain,), mixing = made.augment(Augmentation())(torch.from_numpy(examples), chance)
    assert mixing is None
    np.testing.assert_array_equal(plain.numpy(), made.collate(examples).arrays["values"])
    (mixed,), mixing = made.augment(Augmentation(mixup=1.0))(torch.from_numpy(examples), chance)
    share = mixing.weight[:, None]
    assert torch.allclose(mixed, share * plain + (1 - share) * plain[mixing.partner])
    with pytest.raises(RecipeError, match=r"train\.augment\.flip"):
        made.augment(Augmentation(flip=True))


@pytest.mark.usefixtures("vectors")
def test_the_data_set_of_the_guide_is_split_by_class_and_passes_no_setting_over() -> None:
    found = data.load(Data(name="digit_vectors"), seed=0)
    assert [len(found.train), len(found.val), len(found.test)] == [1294, 144, 359]
    assert set(np.bincount(found.test.targets)) <= {35, 36, 37}
    assert found.modality.collate(found.train.examples(np.arange(3))).arrays["values"].shape == (3, 64)
    with pytest.raises(RecipeError, match=r"(?s)modality\.crop .*'vectors'.*allowed.*mean, std"):
        data.load(Data(name="digit_vectors"), seed=0, modality=ModalitySection(crop=0.9))
    other = data.load(Data(name="digit_vectors"), seed=0, modality=ModalitySection(name="vectors", std=[2.0] * 64))
    assert other.modality.std == (2.0,) * 64
    assert other.modality.mean == found.modality.mean
    assert other.fingerprint != found.fingerprint
    with pytest.raises(RecipeError, match=r"modality is 'image'.*those of 'vectors'"):
        data.load(Data(name="digit_vectors"), seed=0, modality=ModalitySection(name="image"))
