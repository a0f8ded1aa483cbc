"""The graphs as they run beside the graphs as they are written, from outputs that are made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdcompress.artifact.read import open_artifact
from sdcompress.errors import VerificationError
from sdcompress.quantizing import checks
from sdcompress.quantizing import quantize as module
from sdcompress.quantizing.checks import compare_optimised

BEFORE, AFTER = [b"before"], [b"after"]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``pretend(written=[...], optimised=[...])``: by how much every logit of an exit is off, with alternating sign."""

    def outputs(*, written: list[float], optimised_: list[float]) -> None:
        def open_sessions(
            _manifest: object, graphs: list[bytes], *, optimise: bool, **_: object
        ) -> Callable[[np.ndarray], np.ndarray]:
            off = np.zeros(len(written)) if graphs == BEFORE else np.array(optimised_ if optimise else written)
            sign = np.array([1.0, -1.0, 1.0])
            return lambda inputs: np.broadcast_to(
                (off[:, None] * sign)[:, None, :], (len(written), len(inputs), 3)
            ).astype(np.float32)

        monkeypatch.setattr(checks, "open_sessions", open_sessions)

    return outputs


@pytest.mark.parametrize("count", [5, 600])
def test_the_distance_is_that_of_a_logit_to_float32(
    count: int, pretend: Callable[..., None], tiny_artifact: Any, tiny_network: Any
) -> None:
    manifest = open_artifact(tiny_artifact()).manifest
    pretend(written=[0.5, 1.0, 0.0], optimised_=[0.5, 1.0, 0.0])
    exits = compare_optimised(manifest, BEFORE, AFTER, tiny_network.samples(count), threads=1)
    assert [exit_.exit for exit_ in exits] == [exit_.name for exit_ in manifest.exits]
    assert [(exit_.written, exit_.optimised) for exit_ in exits] == [(0.5, 0.5), (1.0, 1.0), (0.0, 0.0)]
    for exit_, record in zip(exits, manifest.parity, strict=True):
        assert exit_.allowed == pytest.approx(1.5 * exit_.written + record.tolerance)
        assert (exit_.samples, exit_.problem) == (min(count, 256), "")


def test_only_what_is_farther_as_it_runs_is_refused(
    pretend: Callable[..., None], tiny_artifact: Any, tiny_network: Any
) -> None:
    """fp16 on a CPU is nearer as it runs, since casts are left out."""
    manifest = open_artifact(tiny_artifact()).manifest
    pretend(written=[1.0, 1.0, 1.0], optimised_=[0.0, 1.49, 1.6])
    exits = compare_optimised(manifest, BEFORE, AFTER, tiny_network.samples(20), threads=1)
    assert [bool(exit_.problem) for exit_ in exits] == [False, False, True]
    assert "1.6 off those of float32 as onnxruntime" in exits[2].problem


@pytest.mark.parametrize("distance", [np.inf, np.nan])
def test_graphs_that_are_finite_only_as_they_run_here_are_refused(
    distance: float, pretend: Callable[..., None], tiny_artifact: Any, tiny_network: Any
) -> None:
    """Another runtime computes them as they are written."""
    manifest = open_artifact(tiny_artifact()).manifest
    pretend(written=[1.0, distance, distance], optimised_=[1.0, 1.0, np.nan])
    exits = compare_optimised(manifest, BEFORE, AFTER, tiny_network.samples(20), threads=1)
    assert [bool(exit_.problem) for exit_ in exits] == [False, True, False]  # the last: not finite in any way


@pytest.mark.parametrize(("distance", "figure"), [(37.0, 37.0), (np.inf, None)])
def test_a_wrong_kernel_leaves_the_figures_and_no_artifact(
    *,
    distance: float,
    figure: float | None,
    pretend: Callable[..., None],
    tiny_artifact: Any,
    tiny_network: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = tiny_artifact()
    manifest = open_artifact(source).manifest
    pretend(written=[1.0, 1.0, 1.0], optimised_=[1.0, distance, 1.0])
    exits = compare_optimised(manifest, BEFORE, AFTER, tiny_network.samples(20), threads=1)
    monkeypatch.setattr(module, "compare_optimised", lambda *_, **__: exits)
    samples = tiny_network.samples(300)
    with pytest.raises(VerificationError, match="In int8 onnxruntime computes something else") as caught:
        module.quantize(source, tmp_path / "out", precision="int8", training=samples, validation=samples, max_drop=0.9)
    assert manifest.exits[1].name in str(caught.value)
    assert "--precision fp16" in caught.value.next_step
    assert not (tmp_path / "out").exists()
    figures = json.loads((tmp_path / "out.failed" / "parity.json").read_text(encoding="utf-8"))
    assert [record["optimised"] for record in figures] == [1.0, figure, 1.0]
