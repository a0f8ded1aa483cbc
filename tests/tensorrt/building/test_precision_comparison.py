"""Which of two networks is faster, with networks whose times are known."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from signals import TASK

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.errors import SetupError, UsageError
from sdcompress.runtime.engine import Prediction
from sdcompress.runtime.open import open_engine
from sdcompress.schema.engines import Engines, Plan
from sdcompress.schema.graphs import FileEntry
from sdcompress.schema.manifest import Manifest
from sdcompress.tensorrt.building import precision_comparison
from sdcompress.tensorrt.building.engine_checks import check_engines
from sdcompress.tensorrt.building.precision_comparison import Sibling, compare_speed, find_siblings
from sdcompress.tensorrt.building.profiles import parse_batch
from sdcompress.tensorrt.building.settings import BuildSettings
from sdcompress.tensorrt.building.validation import Reference
from sdcompress.tensorrt.nvidia.gpu_query import Gpu

L4 = Gpu("NVIDIA L4", "8.9", 24 * 2**30, "", "13.0")


class Slow:
    """Takes so many milliseconds for each image."""

    def __init__(self, ms: float) -> None:
        self.ms, self.seen = ms, set[int]()

    def forced(self, inputs: np.ndarray, exit: int) -> Prediction:  # noqa: A002
        assert exit == -1
        self.seen.add(len(inputs))
        time.sleep(self.ms * len(inputs) / 1e3)
        return TASK.prediction(np.zeros((len(inputs), 3), np.float32), np.zeros(len(inputs), np.int64))


def sibling(digit: str, precision: str) -> Sibling:
    return Sibling(None, digit * 64, precision)


def test_each_is_compared_at_each_batch() -> None:
    ours, slower, faster = Slow(3.0), Slow(12.0), Slow(0.5)
    inputs = np.zeros((3, 1, 4, 4), np.float32)
    calls: list[tuple[int, int]] = []
    times = compare_speed(
        ours, [(sibling("a", "fp32"), slower), (sibling("b", "fp16"), faster)], inputs, [1, 2],
        rounds=5, seconds=0.04, progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert [(one.precision, one.batch, one.verdict) for one in times] == [
        ("fp32", 1, "faster"),
        ("fp16", 1, "slower"),
        ("fp32", 2, "faster"),
        ("fp16", 2, "slower"),
    ]
    assert ours.seen == slower.seen == faster.seen == {1, 2}
    for one in times:
        assert one.low <= one.speedup <= one.high
    assert times[0].digest == "a" * 64
    assert 3.0 <= times[0].ms < 12.0 <= times[0].other_ms  # a busy machine sleeps longer, never shorter
    assert times[0].speedup > 1.5
    assert times[1].speedup < 0.7
    assert calls[-1] == (10, 10)


def test_a_network_is_no_faster_than_itself() -> None:
    (found,) = compare_speed(
        Slow(1.0), [(sibling("a", "fp32"), Slow(1.0))], np.zeros((1, 1, 4, 4), np.float32), [1], seconds=0.03
    )
    assert 0.7 < found.speedup < 1.4


def engines(**changed: Any) -> Engines:
    file = {"sha256": "0" * 64, "bytes": 1}
    plan = Plan(file="engines/x/a.plan", device_memory_bytes=0, layers={"fp32": 1}, **file)
    usual = {
        "profiles": parse_batch("1:8:32"), "tf32": False, "version_compatible": False, "hardware_compatibility": "none",
    }  # fmt: skip
    return Engines(
        gpu=L4.name,
        compute_capability=L4.compute_capability,
        tensorrt="10.9.0.34",
        driver="",
        plans=(plan,) * 3,
        workspace_bytes=1,
        builder_optimization_level=3,
        log=FileEntry(file="engines/x/build.log", **file),
        parity=(),
        **usual | changed,
    )


def find(manifest: Manifest, other: Manifest, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[Sibling, ...]:
    monkeypatch.setattr(precision_comparison, "open_comparable", lambda *_: Artifact(Path("other"), other))
    wish = BuildSettings(**{"tf32": False, "against": (Path("other"),), **settings})
    return find_siblings(manifest, wish, tensorrt="10.9.0.34", gpu=L4)


def test_a_sibling_built_alike_is_found(tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = open_artifact(tiny_artifact()).manifest
    (sibling_,) = find(manifest, manifest.model_copy(update={"engines": (engines(),)}), monkeypatch)
    assert (sibling_.artifact.path, sibling_.digest, sibling_.precision) == (Path("other"), manifest.digest, "fp32")


@pytest.mark.parametrize(
    ("built", "settings", "words"),
    [
        ({"profiles": parse_batch("1:1:1")}, {}, "no engines for a batch of exactly 8"),
        ({"tf32": True}, {}, "was built with tf32 True, these with False"),
        ({}, {"version_compatible": True}, "was built with version_compatible False"),
        ({"profiles": parse_batch("1:4:32")}, {"profiles": parse_batch("1:6:32")}, "a batch of exactly 6"),
    ],
)
def test_what_differs_in_more_than_its_precision_is_refused_before_a_build(
    tiny_artifact: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    built: dict[str, Any],
    settings: dict[str, Any],
    words: str,
) -> None:
    """Else a race would call two builds of one network two precisions."""
    manifest = open_artifact(tiny_artifact()).manifest
    other = manifest.model_copy(update={"engines": (engines(**built),)})
    with pytest.raises(UsageError, match=words) as caught:
        find(manifest, other, monkeypatch, **settings)
    assert "options of this build" in caught.value.next_step


def test_another_layout_is_no_sibling(tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, other = (open_artifact(tiny_artifact(layout)).manifest for layout in ("single", "cascade"))
    with pytest.raises(UsageError, match="is a cascade with the exits exit1, exit2, final, this a single with final"):
        find(manifest, other.model_copy(update={"engines": (engines(),)}), monkeypatch)


def test_a_sibling_without_engines_for_this_machine_is_refused_before_a_build(
    tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = open_artifact(tiny_artifact()).manifest
    with pytest.raises(SetupError, match="has no TensorRT engines") as caught:
        find(manifest, manifest, monkeypatch)
    assert "build-engines" in caught.value.next_step


def test_another_question_is_no_sibling(tiny_artifact: Callable[..., Path]) -> None:
    manifest = open_artifact(tiny_artifact()).manifest
    other = manifest.model_copy(update={"outputs": ("a", "b", "c")})
    settings = BuildSettings(against=(tiny_artifact(name="other"),))
    with pytest.raises(UsageError, match="another list of outputs"):
        find_siblings(other, settings, tensorrt="10.9.0.34", gpu=L4)


def test_all_of_it_is_shown_of_engines(tiny_artifact: Callable[..., Path], tiny_network) -> None:
    artifact = open_artifact(tiny_artifact())
    engine = open_engine(artifact.path)
    settings = BuildSettings(profiles=parse_batch("1:2:4,5:8:8"), tf32=False)
    others = [(sibling("c", "int8"), engine)]
    checks = check_engines(
        engine, artifact, settings, reference=Reference(engine, tiny_network.samples(40)), siblings=others
    )
    assert [record.exit for record in checks["parity"]] == ["exit1", "exit2", "final"]
    assert checks["validation"].samples == 40
    assert [time.batch for time in checks["speed_comparisons"]] == [2, 8]  # what the profiles are tuned for
    checks_alone = check_engines(engine, artifact, settings, reference=None, siblings=())
    assert checks_alone["validation"] is None
    assert "speed_comparisons" not in checks_alone
