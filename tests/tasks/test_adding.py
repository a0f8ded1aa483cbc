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
import onnxruntime
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper

from sdcompress import data, modalities, recipes, registry, tasks
from sdcompress.errors import ArtifactError, DataError, RecipeError
from sdcompress.policies._base import SIGNALS_ATOL
from sdcompress.schema.recipe import Data, Recipe

GUIDE = Path(__file__).parents[2] / "docs" / "adding" / "task.md"
TEXT = GUIDE.read_text(encoding="utf-8")
VALUES = arrays.arrays(np.float32, 9, elements=st.floats(0, 9, width=32))


@pytest.fixture(scope="module")
def regression(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The module of the guide, installed with its entry points."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "my_package").mkdir()
    (folder / "my_package" / "__init__.py").touch()
    for name, source in zip(
        ("regression", "digit_values"), re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL), strict=True
    ):
        (folder / "my_package" / f"{name}.py").write_text(source, encoding="utf-8")
    (toml,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    entries = re.sub(r'\[project\.entry-points\."(.+)"\]', r"[\1]", toml).replace('"', "")
    (folder / "my_package-1.dist-info").mkdir()
    (folder / "my_package-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n")
    (folder / "my_package-1.dist-info" / "entry_points.txt").write_text(entries)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("my_package.regression")
    for name in [name for name in sys.modules if name.startswith("my_package")]:
        del sys.modules[name]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (text,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "values.yaml").write_text(yaml.safe_dump({"name": "values", **yaml.safe_load(text)}), encoding="utf-8")
    return recipes.read(str(tmp_path / "values.yaml"), ())


@pytest.mark.usefixtures("regression")
def test_the_task_of_the_guide_serves_its_data_set_and_comes_back_from_its_record(recipe: Recipe) -> None:
    assert "regression" in registry.names(tasks.ROOM)
    dataset = data.load(recipe.data, seed=0, task=recipe.task, modality=recipe.modality)
    task = dataset.task
    assert task.record.model_dump() == {"name": "regression", "parameters": {"low": 0.0, "high": 9.0}}
    assert tasks.restore(task.record.name, task.outputs, task.record.parameters) == task
    assert [len(dataset.train), len(dataset.val), len(dataset.test)] == [1294, 144, 359]
    assert dataset.test.targets.dtype == np.float32
    mean, std = dataset.modality.preprocess.mean[0], dataset.modality.preprocess.std[0]
    images = data.load(Data(name="digit_values"), seed=0, task=recipe.task).train.examples(np.arange(1294)) / 255
    assert (images.mean(), images.std()) == (pytest.approx(mean, abs=0.005), pytest.approx(std, abs=0.005))
    with pytest.raises(DataError, match="out of range"):
        data.load(recipe.data, seed=0, modality=recipe.modality, task=recipe.task.model_copy(update={"high": 8}))
    with pytest.raises(RecipeError, match="regression"):
        data.load(recipe.data, seed=0, modality=recipe.modality)


@pytest.mark.usefixtures("regression")
@pytest.mark.parametrize("room", [tasks, modalities])
def test_an_entry_point_of_another_name_than_its_module_is_refused(
    room: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("gauss", "my_package.regression:Regression", room.ROOM)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    with pytest.raises(ArtifactError, match=r"'gauss'.*leads to the module 'my_package\.regression'"):
        room.restore("gauss", *([("a", "b")] if room is tasks else []), {})


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(VALUES, VALUES, VALUES)
def test_its_loss_is_a_metric(regression: ModuleType, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    task = regression.Regression(("mean", "log_deviation"), 0, 9)
    loss = task.loss(a, b)
    assert ((loss >= 0) & (loss <= 1)).all()
    assert (task.loss(a, c) <= loss + task.loss(b, c) + 1e-6).all()


@settings(max_examples=50, deadline=None)
@given(arrays.arrays(np.float32, (5, 2), elements=st.floats(-1e3, 1e3, width=32)))
def test_its_nodes_compute_its_signals(regression: ModuleType, outputs: np.ndarray) -> None:
    task = regression.Regression(("mean", "log_deviation"), 0, 9)
    nodes, constants = task.signal_nodes("z", "values", "decision")
    graph = helper.make_graph(
        nodes,
        "signals",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 2])],
        [
            helper.make_tensor_value_info("values", TensorProto.FLOAT, ["batch", 1]),
            helper.make_tensor_value_info("decision", TensorProto.FLOAT, ["batch"]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values, decision = session.run(None, {"z": outputs})
    signals = task.signals(outputs)
    np.testing.assert_allclose(values, signals.stacked(), atol=SIGNALS_ATOL)
    np.testing.assert_array_equal(decision, signals.decision)
    assert (task.decision_shape, task.decision_dtype) == ((), np.float32)


def test_its_losses_of_torch_are_those_of_normal_distributions(regression: ModuleType) -> None:
    task = regression.Regression(("mean", "log_deviation"), 0, 9)
    chance = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(6, 2, generator=chance), torch.randn(6, 2, generator=chance)
    ours, theirs = (torch.distributions.Normal(z[:, 0], z[:, 1].exp()) for z in (student, teacher))
    expected = torch.distributions.kl_divergence(theirs, ours).mean()
    assert task.divergence(student, teacher, 1.0).item() == pytest.approx(expected.item(), rel=1e-5)
    targets = torch.linspace(0, 9, 6)
    # the density of a target is that of its share of the range over 9
    nll = -ours.log_prob(targets / 9).mean().item()
    assert task.nll(student.numpy(), targets.numpy()) == pytest.approx(nll + np.log(9), rel=1e-5)
    loss = task.supervised_loss(student, task.encode(targets)).item()
    assert loss == pytest.approx(nll - np.log(2 * np.pi) / 2, rel=1e-4)
