"""benchmarks/answers: plans are complete, and the table says what its record says."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from sdcompress.schema.manifest import Policy

HERE = Path(__file__).parents[2] / "benchmarks" / "answers"
PLANS = sorted((HERE / "plans").glob("*.yaml"))

KINDS = {"plain", "distilled", "truncated", "early", "bits", "both", "smaller"}
PRUNED = {"pruned", "all"}  # where the plan has pruned rows


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HERE))
    yield __import__("draw")
    sys.modules.pop("draw", None)


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_row_of_a_plan_has_a_command_and_every_kind_a_row(path: Path) -> None:
    plan = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {row["artifact"] for row in plan["rows"]} <= set(plan["make"])
    kinds = {row["kind"] for row in plan["rows"]}
    assert kinds == KINDS | PRUNED if kinds & PRUNED else kinds == KINDS
    for name, command in plan["make"].items():
        verb, source = command.split()[:2]
        linked = {"run", "base", "run-attention"} if path.stem == "cifar100_32" else set()
        assert verb == "train" or source in linked | set(list(plan["make"])[: list(plan["make"]).index(name)])


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setattr(sys, "path", list(sys.path))  # the script adds to it
    yield __import__("answer")
    for name in ("answer", "draw", "record"):
        sys.modules.pop(name, None)


def test_what_is_missing_is_made_and_interrupted_trainings_go_on(
    answer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = {
        "run": "train -c recipe.yaml",
        "linked": "train -c recipe.yaml",
        "pruned": "prune run --target macs=50%",
        "whole": "export run --layout single",
        "whole-linked": "export linked --layout single",
        "u8": "quantize whole",
    }
    plan = answer.Plan("kind", tmp_path, "title", "example", 1.0, make, [], {})
    done: set[str] = set()
    calls: list[str] = []

    def run(words: list[str], **_: Any) -> Any:
        calls.append(words[-1])
        (tmp_path / words[-1]).mkdir(exist_ok=True)
        done.add(words[-1])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(answer.subprocess, "run", run)
    monkeypatch.setattr(answer, "finished", lambda source: source.name in done)
    (tmp_path / "run").mkdir()  # interrupted
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked").symlink_to("elsewhere")  # still trained elsewhere
    answer.make(plan, train=False)
    assert calls == []  # nothing is exported from a training that is not finished
    answer.make(plan, train=True)
    assert calls == ["run", "pruned", "whole", "u8"]
    calls.clear()
    done.add("linked")
    answer.make(plan, train=True)
    assert calls == ["whole-linked"]


def test_only_finished_trainings_and_artifacts_are_used(answer: Any, tmp_path: Path) -> None:
    assert not answer.finished(tmp_path / "absent")
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact" / "manifest.json").write_text("{}", encoding="utf-8")
    assert answer.finished(tmp_path / "artifact")


def test_a_prediction_is_compared_with_its_round_at_both_shares(answer: Any) -> None:
    policy = Policy(
        thresholds=(0.9,), max_drop=0.01, samples=9, metric=None, reference_metric=None, shares=(0.75, 0.25),
        stage_ms=(9.0, 9.0), exit_ms=(1.0, 5.0),
    )  # fmt: skip
    slow = policy.model_copy(update={"exit_ms": (2.0, 10.0)})
    found = answer.prediction([policy, slow], (0.5, 0.5), [3.0, 6.0])  # the machine was slow for both in one round
    assert found["ms"] == pytest.approx((2.0 + 4.0) / 2)
    assert found["measured_ms"] == pytest.approx(4.5)
    assert found["ratio"] == pytest.approx([2 / 3, 2 / 3, 2 / 3])
    assert found["at_test_shares_ms"] == pytest.approx((3.0 + 6.0) / 2)
    assert found["at_test_shares_ratio"] == pytest.approx([1.0, 1.0, 1.0])
    assert found["calibration_shares"] == (0.75, 0.25)
    fast = answer.prediction([policy, policy], (0.75, 0.25), [1.6, 2.0])
    # 2 / 1.8; the ratios 1.25 and 1 have a standard deviation of 0.25 / sqrt(2), and there are two
    assert fast["ratio"] == pytest.approx([2 / 1.8, 2 / 1.8 - 1.96 * 0.125, 2 / 1.8 + 1.96 * 0.125])


def row(name: str, **figures: Any) -> dict[str, Any]:
    measured = {
        "digest": "0123456789",
        "metric": [0.9, 0.88, 0.92],
        "difference": None,
        "further": {"mae": 0.5, "miou": 0.25},
        "mean_ms": 4.0,
        "p50_ms": 3.5,
        "p99_ms": None,
        "speedup": None,
        "prediction": None,
        "macs": 1.5e6,
        "bytes": 2_000_000,
        "stable": True,
    }
    return {"name": name, "kind": "plain", "label": name, **measured, **figures}


def test_the_table_holds_the_figures_and_names_what_is_missing(draw: Any) -> None:
    fast = row(
        "fast",
        kind="early",
        difference=[-0.01, -0.02, 0.0],
        mean_ms=2.0,
        p50_ms=1.0,
        speedup=[2.0, 1.9, 2.1],
        prediction={"ratio": [0.95, 0.93, 0.97], "at_test_shares_ratio": [0.98, 0.96, 1.0]},
    )
    absent = {"name": "small", "kind": "smaller", "label": "small", "missing": True}
    figures = {
        "title": "net on data",
        "example": "one number",
        "metric": "closeness",
        "score": "closeness",
        "test_samples": 1000,
        "further": {"mae": "error, degrees", "miou": "mIoU, %"},
        "rows": [row("whole"), fast, absent],
    }
    record = {
        "date": "2026-11-29T21:00:00",
        "commit": "0123456789",
        "settings": {"seconds": 4.0, "rounds": 20, "processor_time": False},
        "machine": {"cpu": "a CPU", "busy_cores": 0.04, "versions": {"onnxruntime": "1.0"}},
        "figures": figures,
    }
    lines = draw.section("numbers", record).splitlines()
    assert lines[4].startswith(
        "| whole | 90.00 % [88.0, 92.0] |  | 0.50 | 25.00 % | 4 | 3.5 | too few calls | reference |  |  | 2.00 | 1.5"
    )
    assert "| -1.00 [-2.00, +0.00] |" in lines[5]
    assert "2.00x [1.90, 2.10] | 0.95 [0.93, 0.97] | 0.98 [0.96, 1.00] |" in lines[5]
    assert lines[6].startswith("| small | not measured |")
    assert "answer.py ROOT numbers --train" in lines[8]
    picture = draw.svg("numbers", record)
    assert picture.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert "fast, 2.0x" in picture
    assert "small" not in picture
    assert "fast, 3.5x" in draw.svg("numbers", record, "p50_ms")
