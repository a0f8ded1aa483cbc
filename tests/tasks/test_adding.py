"""The steps of docs/adding/task.md, followed to the letter by a package that is not ours."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml
from check_task import check_task
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sdcompress import data, modalities, recipes, registry, tasks
from sdcompress.errors import ArtifactError, DataError, RecipeError
from sdcompress.schema.recipe import Recipe

GUIDE = Path(__file__).parents[2] / "docs" / "adding" / "task.md"
TEXT = GUIDE.read_text(encoding="utf-8")
COUNTS = arrays.arrays(np.int64, 9, elements=st.integers(0, 64))


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The module of the guide, installed with its entry points."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "my_package").mkdir()
    (folder / "my_package" / "__init__.py").touch()
    for name, source in zip(
        ("counts", "bright_pixels"), re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL), strict=True
    ):
        (folder / "my_package" / f"{name}.py").write_text(source, encoding="utf-8")
    (toml,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    entries = re.sub(r'\[project\.entry-points\."(.+)"\]', r"[\1]", toml).replace('"', "")
    (folder / "my_package-1.dist-info").mkdir()
    (folder / "my_package-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n")
    (folder / "my_package-1.dist-info" / "entry_points.txt").write_text(entries)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("my_package.counts")
    for name in [name for name in sys.modules if name.startswith("my_package")]:
        del sys.modules[name]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (text,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "counts.yaml").write_text(yaml.safe_dump({"name": "counts", **yaml.safe_load(text)}), encoding="utf-8")
    return recipes.read(str(tmp_path / "counts.yaml"), ())


@pytest.mark.usefixtures("counts")
def test_the_task_of_the_guide_serves_its_data_set_and_comes_back_from_its_record(recipe: Recipe) -> None:
    assert "counts" in registry.names(tasks.ROOM)
    dataset = data.load(recipe.data, seed=0, task=recipe.task, modality=recipe.modality)
    task = dataset.task
    assert task.record.model_dump() == {"name": "counts", "parameters": {"most": 64}}
    assert tasks.restore(task.record.name, task.outputs, task.record.parameters) == task
    assert [len(dataset.train), len(dataset.val), len(dataset.test)] == [1007, 431, 359]
    assert dataset.test.targets.dtype == np.int64
    with pytest.raises(DataError, match="out of range"):
        data.load(recipe.data, seed=0, modality=recipe.modality, task=recipe.task.model_copy(update={"most": 8}))
    with pytest.raises(RecipeError, match="counts"):
        data.load(recipe.data, seed=0, modality=recipe.modality)


@pytest.mark.usefixtures("counts")
@pytest.mark.parametrize("room", [tasks, modalities])
def test_an_entry_point_of_another_name_than_its_module_is_refused(
    room: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("gauss", "my_package.counts:Counts", room.ROOM)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    with pytest.raises(ArtifactError, match=r"'gauss'.*leads to the module 'my_package\.counts'"):
        room.restore("gauss", *([("a", "b")] if room is tasks else []), {})


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(COUNTS, COUNTS, COUNTS)
def test_its_loss_is_a_metric(counts: ModuleType, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    task = counts.Counts(("log_rate",), 64)
    loss = task.loss(a, b)
    assert ((loss >= 0) & (loss <= 1)).all()
    assert (task.loss(a, c) <= loss + task.loss(b, c) + 1e-6).all()


def test_it_keeps_the_contract(counts: ModuleType) -> None:
    check_task(counts.Counts(("log_rate",), 64))
    outputs = np.log(np.float32([[0.4], [0.6], [2.4], [2.6], [900]]))
    assert counts.Counts(("log_rate",), 64).decide(outputs).tolist() == [0, 1, 2, 3, 64]


def test_its_losses_of_torch_are_those_of_poisson_distributions(counts: ModuleType) -> None:
    task = counts.Counts(("log_rate",), 64)
    chance = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(6, 1, generator=chance), torch.randn(6, 1, generator=chance)
    ours, theirs = (torch.distributions.Poisson(z[:, 0].exp()) for z in (student, teacher))
    expected = torch.distributions.kl_divergence(theirs, ours).mean()
    assert task.divergence(student, teacher, 1.0).item() == pytest.approx(expected.item(), rel=1e-5)
    targets = torch.arange(6)
    nll = -(ours.log_prob(targets.float()) + torch.lgamma(targets + 1.0)).mean().item()
    assert task.supervised_loss(student, task.encode(targets)).item() == pytest.approx(nll, rel=1e-5)
