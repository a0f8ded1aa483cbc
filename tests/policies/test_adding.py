"""The page docs/adding/policy.md, followed by a package that is not ours."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdcompress import registry
from sdcompress.calibration.calibrate import calibrate
from sdcompress.policies import ROOM
from sdcompress.runtime.open import open_engine
from sdcompress.schema.recipe import Calibrate

PAGE = (Path(__file__).parents[2] / "docs" / "adding" / "policy.md").read_text(encoding="utf-8")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (toml,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    files = {
        "my_package/__init__.py": "",
        "my_package/agreement.py": code,
        "my_package-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: my-package\nVersion: 1\n",
        "my_package-1.dist-info/entry_points.txt": re.sub(r'\[project\.entry-points\."(.+)"\]', r"[\1]", toml).replace(
            '"', ""
        ),
    }
    for name, text in files.items():
        (tmp_path / "site" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "site" / name).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield
    for name in [name for name in sys.modules if name.startswith("my_package")]:
        del sys.modules[name]


@pytest.mark.usefixtures("package")
def test_a_policy_of_somebody_elses(
    tiny_artifact: Callable[..., Path], tiny_network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdcompress.calibration.tuning.stage_ms", lambda engine, samples: (1.0, 1.0, 1.0))
    assert "agreement" in registry.names(ROOM)
    wish = Calibrate(policy="agreement", max_drop=0.05, confidence=0.9)
    manifest = calibrate(tiny_artifact(), tmp_path / "out", samples=tiny_network.samples(2000), settings=wish)
    assert manifest.policy is not None
    assert (manifest.policy.name, manifest.policy.guarantee) == ("agreement", "certified")
    engine = open_engine(tmp_path / "out", threads=1)
    images = tiny_network.samples(400, seed=5).examples(np.arange(400))
    inputs = engine.preprocess(images)
    one, two, _ = engine.signals(inputs)
    mean = np.sqrt(two["max_prob"] * one["max_prob"]) * np.where(one.decision == two.decision, 1, 0.5)
    first, second = manifest.policy.thresholds
    expected = np.where(one["max_prob"] >= first, 0, np.where(mean >= second, 1, 2))
    left = engine(inputs).exit_index
    near = np.minimum(np.abs(one["max_prob"] - first), np.abs(mean - second)) < 1e-5
    np.testing.assert_array_equal(left[~near], expected[~near])
    assert set(left.tolist()) == {0, 1, 2}
