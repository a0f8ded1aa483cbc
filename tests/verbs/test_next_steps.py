"""Commands in messages can be pasted into a shell, whatever letters a path has."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

import sdcompress
from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.signature import check_signature
from sdcompress.checkpoint import Checkpoint, no_training, open_checkpoint
from sdcompress.errors import SdcompressError
from sdcompress.evaluation.trained_model import TrainedModel
from sdcompress.options import EngineOptions, Options
from sdcompress.runtime.open import open_one_graph

ODD = "it's a run; $HOME"


def trained(folder: Path) -> TrainedModel:
    """A training, as far as a verb looks at it that wants an artifact."""
    return TrainedModel(folder, Checkpoint(folder, cast("Any", None)), Options(backend="onnxruntime"))


@pytest.mark.parametrize(
    "ask",
    [
        open_checkpoint,
        lambda path: open_checkpoint(path / "weights.pt"),
        lambda path: trained(path).artifact(),
        lambda path: trained(path).engine(),
        lambda path: sdcompress.explain(trained(path), path / "out"),
        lambda path: sdcompress.quantize(trained(path), path / "out", "uint8"),
        lambda path: sdcompress.export(trained(path), path / "out", layout="if"),
    ],
)
def test_the_path_of_a_message_is_one_word_of_its_command(tmp_path: Path, ask: Callable[[Path], object]) -> None:
    path = tmp_path / ODD
    path.mkdir()
    with pytest.raises(SdcompressError) as caught:
        ask(path)
    check(caught.value.next_step, path)


def test_so_is_the_path_of_a_pruned_checkpoint(tmp_path: Path) -> None:
    check(no_training(Checkpoint(tmp_path / ODD, cast("Any", None))).next_step, tmp_path / ODD)


def test_so_is_the_path_of_an_artifact(tmp_path: Path, tiny_artifact: Callable[..., Path]) -> None:
    path = tiny_artifact().rename(tmp_path / ODD)
    for ask in (
        lambda: open_one_graph(path, EngineOptions()),
        lambda: check_signature(open_artifact(path), tmp_path / "public.pem"),
    ):
        with pytest.raises(SdcompressError) as caught:
            ask()
        check(caught.value.next_step, path)


def check(next_step: str, path: Path) -> None:
    words = shlex.split(next_step.partition(": ")[2] or next_step)
    assert any(word.partition("=")[2].startswith(str(path)) or word.startswith(str(path)) for word in words), next_step
