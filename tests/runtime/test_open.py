"""The one way in: what it opens, what it refuses, and what it does not import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import sdcompress
from sdcompress import registry
from sdcompress.errors import ArtifactError, UnknownNameError, UsageError
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.options import EngineOptions
from sdcompress.runtime.open import ROOM, open_engine

Write = Callable[..., Path]


def test_the_facts_of_an_engine(tiny_artifact: Write) -> None:
    engine = sdcompress.open(tiny_artifact(policy=(0.9, 0.8)))
    assert engine.exit_names == ("exit1", "exit2", "final")
    assert engine.task.outputs == ("square", "disc", "star")
    assert engine.modality.shape == (1, 4, 4)
    assert engine.modality.preprocess.mean == (0.5,)
    assert engine.policy is not None
    assert engine.policy.thresholds == (0.9, 0.8)


def test_an_unknown_backend_lists_the_known_ones(tiny_artifact: Write) -> None:
    with pytest.raises(UnknownNameError, match=r"(?s)Did you mean 'onnxruntime'.*onnxruntime, openvino, tensorrt"):
        open_engine(tiny_artifact(), backend="onnxruntme")


def test_eager_runs_checkpoints_alone(tiny_artifact: Write) -> None:
    folder = tiny_artifact()
    model = open_trained_model(folder)
    for source in (folder, str(folder), model.opened):
        with pytest.raises(UsageError, match="cascade' is an artifact, which the backend 'eager'") as caught:
            open_engine(source, backend="eager")
        assert "onnxruntime, openvino, tensorrt, auto; eager with a checkpoint" in caught.value.allowed
        assert "leave the backend out" in caught.value.next_step
    with pytest.raises(UsageError, match="is an artifact, which the backend 'eager'"):
        model.engine(EngineOptions("eager"))


def test_a_policy_of_a_package_that_is_not_here_says_what_to_install(tiny_artifact: Write) -> None:
    with pytest.raises(ArtifactError, match="exit policy 'elsewhere'") as caught:
        open_engine(tiny_artifact(policy=(0.9, 0.8), kind="elsewhere"))
    assert "install the version of sdcompress (or the package) that made it" in caught.value.next_step


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_below_one(tiny_artifact: Write, threads: int) -> None:
    with pytest.raises(UsageError, match=f"threads is {threads}"):
        open_engine(tiny_artifact(), threads=threads)


def test_a_changed_graph_is_never_run(tiny_artifact: Write) -> None:
    path = tiny_artifact()
    graph = path / "segment-1.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"segment-1\.onnx"):
        open_engine(path)


def test_every_backend_of_the_room_says_what_it_is() -> None:
    assert "onnxruntime" in registry.names(ROOM)
    assert all(registry.describe(ROOM, name) for name in registry.names(ROOM))


def test_serving_needs_neither_torch_nor_onnx(tiny_artifact: Write) -> None:
    path = tiny_artifact(policy=(0.7, 0.7))
    program = f"""
import sys
import numpy as np
import sdcompress
engine = sdcompress.open({str(path)!r}, threads=1)
images = np.random.default_rng(0).integers(0, 256, (40, 9, 7, 3), np.uint8)
inputs = engine.preprocess(list(images))
print(sorted(set(engine(inputs).exit_index.tolist())), engine.exits(inputs).shape)
heavy = {{"torch", "torchvision", "timm", "onnx", "onnxscript", "safetensors", "sklearn", "scipy", "matplotlib"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    exits, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    assert exits.endswith("(3, 40, 3)")


def test_the_number_of_threads_does_not_change_the_answer(tiny_artifact: Write) -> None:
    path = tiny_artifact(policy=(0.7, 0.7))
    inputs = np.random.default_rng(0).normal(size=(20, 1, 4, 4)).astype(np.float32)
    one, two = (open_engine(path, threads=threads)(inputs) for threads in (1, 2))
    np.testing.assert_allclose(one.outputs, two.outputs, atol=1e-5)
