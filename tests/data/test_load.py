from __future__ import annotations

import subprocess
import sys

import pytest

from sdcompress import registry
from sdcompress.data import ROOM, load
from sdcompress.errors import UnknownNameError
from sdcompress.schema.recipe import Data


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
from sdcompress.schema.recipe import Data
for name in {registry.names(ROOM)!r}:
    importlib.import_module(f"{{ROOM}}.{{name}}")
load(Data(), seed=0)
print([name for name in ("torch", "torchvision") if name in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
