from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sdcompress import registry
from sdcompress.data import ROOM, load
from sdcompress.errors import RecipeError, UnknownNameError, UsageError
from sdcompress.schema.recipe import Data, ModalitySection


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'cifar100'"):
        load(Data(name="cifar1000"), seed=0)


def test_the_default_data_set_is_there_and_stable() -> None:
    one, two = (load(Data(train_limit=20), seed=3) for _ in range(2))
    assert one.fingerprint == two.fingerprint
    assert len(one.train) == 20


def test_every_source_says_in_one_line_what_it_is() -> None:
    found = registry.names(ROOM)
    assert "digits" in found
    for name in found:
        assert len(registry.describe(ROOM, name)) > 20


def test_no_source_brings_torch_with_it() -> None:
    program = f"""
import importlib, sys
from sdcompress import registry
from sdcompress.data import ROOM, load
from sdcompress.schema.recipe import Data, ModalitySection
for name in {registry.names(ROOM)!r}:
    importlib.import_module(f"{{ROOM}}.{{name}}")
load(Data(), seed=0)
print([name for name in ("torch", "torchvision") if name in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


OWN = """
import numpy as np
from sdcompress.data.image_arrays import Preprocess, image_source

def make(spec):
    images = np.random.default_rng(0).integers(0, 256, (90, 12, 12, 3), np.uint8)
    preprocess = Preprocess.square(8, mean=(0.5,) * 3, std=(0.3,) * 3)
    return image_source(("x", "y"), preprocess, (images, np.arange(90) % 2))

def nothing(spec):
    return None

def another():
    return None
"""


def test_a_function_of_the_users_own_gives_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_data.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = load(Data(name="users_data:make", validation=0.25), seed=0, modality=ModalitySection(mean=[0.4, 0.4, 0.4]))
    assert (len(found.train), len(found.val), len(found.test)) == (54, 18, 18)
    assert (found.modality.shape, found.outputs, found.modality.preprocess.mean) == (
        (3, 8, 8),
        ("x", "y"),
        (0.4, 0.4, 0.4),
    )
    with pytest.raises(RecipeError, match="returned a NoneType"):
        load(Data(name="users_data:nothing"), seed=0)
    with pytest.raises(RecipeError, match=r"cannot be called with spec=.*keyword"):
        load(Data(name="users_data:another"), seed=0)
    with pytest.raises(UsageError, match="'make'"):
        load(Data(name="users_data:mak"), seed=0)
    with pytest.raises(UsageError, match="'no_such_module' of 'no_such_module:make' cannot be found"):
        load(Data(name="no_such_module:make"), seed=0)
