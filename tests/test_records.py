"""Files of a run that were damaged or may not be read: the message that says what to do, and no traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from sdcompress.checkpoint import METRICS, STATE, STEPS, newest, open_checkpoint, read_metrics
from sdcompress.errors import ArtifactError, CheckpointError, SdcompressError, UsageError, VerificationError
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.pipeline.steps import Record, Step
from sdcompress.progress import no_progress
from sdcompress.reporting.read import read_result
from sdcompress.reporting.report.build import build
from sdcompress.schema.report import BenchReport, Evaluation, Latency

DAMAGED = {
    "half of it": b'{"a": "b',
    "no text": b"\xff\xfe\x00",
    "nothing": b"",
    "another kind": b"[1, 2]",
    "other values": b'{"a": {"b": 1}}',
    "deep": b"[" * 100_000,
    "half of a surrogate pair": b'{"a": "\\ud800"}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_record_of_steps(tmp_path: Path, content: bytes) -> None:
    done: list[str] = []
    step = Step("export", lambda _: done.append("export"), 1, (tmp_path,))
    record = Record(tmp_path / "steps.json")
    for _ in range(2):
        record.run(step, lambda _: nullcontext(no_progress))
    assert done == ["export"]
    record.path.write_bytes(content)
    with pytest.raises(VerificationError, match=r"steps\.json") as caught:
        record.run(step, lambda _: nullcontext(no_progress))
    assert "remove that file" in caught.value.next_step
    record.path.unlink()
    record.run(step, lambda _: nullcontext(no_progress))
    assert done == ["export"] * 2


def test_a_step_that_failed_with_other_inputs_is_done_again_with_the_first_ones(tmp_path: Path) -> None:
    """Its outputs are then partly of the other inputs."""
    outputs = (tmp_path / "single", tmp_path / "cascade")
    record = Record(tmp_path / "steps.json")

    def run(opset: int) -> None:
        def work(_: Any) -> None:
            for out in outputs:
                if (opset, out.name) == (11, "cascade"):
                    raise VerificationError("an operator is not in opset 11")
                out.write_text(str(opset))

        record.run(Step("export", work, opset, outputs), lambda _: nullcontext(no_progress))

    run(18)
    with pytest.raises(VerificationError, match="opset 11"):
        run(11)
    run(18)
    assert [out.read_text() for out in outputs] == ["18", "18"]


def test_a_record_of_steps_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "steps.json")
    with pytest.raises(VerificationError, match="pipe"):
        Record(tmp_path / "steps.json").run(Step("export", no_progress, 1), lambda _: nullcontext(no_progress))


LINES = {
    **DAMAGED,
    "no step": b'{"epoch": 1}',
    "text for a number": b'{"epoch": 1, "step": "soon"}',
    "an integer of 5,000 digits": b'{"epoch": 1, "step": ' + b"1" * 5000 + b"}",
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES.keys())
def test_a_damaged_line_of_metrics_is_named(tmp_path: Path, line: bytes) -> None:
    good = b'{"epoch": 1, "step": 10, "loss": NaN}\n'
    (tmp_path / METRICS).write_bytes(good + line + b"\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl") as caught:
        read_metrics(tmp_path)
    assert len(str(caught.value)) < 1000
    # half of the last line is what a full disk leaves
    (tmp_path / METRICS).write_bytes(good + b'{"epo')
    assert [metrics["step"] for metrics in read_metrics(tmp_path)] == [10]


EXIT = {"name": "final", "metric": 0.9, "further": {"nll": 0.1, "ece": 0.1}}
EVALUATION = {
    "kind": "artifact",
    "name": "tiny",
    "source": "tiny",
    "data": "digits",
    "split": "test",
    "samples": 10,
    "metric_name": "accuracy",
    "binary_loss": True,
    "exits": [{**EXIT, "name": "exit1"}, EXIT, {**EXIT, "name": "ensemble"}],
    "policy": {"metric": 0.9, "shares": [0.5, 0.5], "metric_by_exit": [0.9, None]},
}
EDITS: dict[str, dict[str, Any]] = {
    "no exits": {"exits": []},
    "the ensemble alone": {"exits": [{**EXIT, "name": "ensemble"}]},
    "the ensemble first": {"exits": [{**EXIT, "name": "ensemble"}, {**EXIT, "name": "exit1"}, EXIT]},
    "a share too few": {"policy": {"metric": 0.9, "shares": [1.0], "metric_by_exit": [0.9, 0.9]}},
    "a metric too many": {"policy": {"metric": 0.9, "shares": [0.5, 0.5], "metric_by_exit": [0.9, 0.9, 0.9]}},
    "no samples": {"samples": 0},
}


def test_the_evaluation_that_the_cases_below_edit_is_a_right_one(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(json.dumps(EVALUATION))
    assert read_result(tmp_path / "e.json", Evaluation).policy is not None


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_an_edited_evaluation_is_refused_where_it_is_read(tmp_path: Path, edit: dict[str, Any]) -> None:
    (tmp_path / "e.json").write_text(json.dumps({**EVALUATION, **edit}))
    with pytest.raises(UsageError, match=r"e\.json does not hold an Evaluation"):
        read_result(tmp_path / "e.json", Evaluation)


def test_an_evaluation_of_another_artifact_of_this_name(tmp_path: Path, tiny_artifact: Callable[..., Path]) -> None:
    folder = tiny_artifact(policy=(0.9, 0.9), name="tiny")
    with pytest.raises(UsageError, match="has 2 exits") as caught:
        build(title="t", command="", artifacts={"tiny": folder}, evaluations=[Evaluation.model_validate(EVALUATION)])
    assert caught.value.allowed.startswith("3")


@pytest.mark.parametrize("value", ["1e999", "NaN", "-Infinity"])
def test_a_measured_time_is_a_finite_number(tmp_path: Path, value: str) -> None:
    spent = {"samples": 1, "mean_ms": 1, "min_ms": 1, "max_ms": 1, "cv": 0, "over_three_medians": 0, "percentiles": []}
    text = json.dumps(spent).replace('"max_ms": 1', f'"max_ms": {value}')
    assert Latency.model_validate(spent).max_ms == 1
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UsageError, match="max_ms"):
        read_result(tmp_path / "r.json", Latency)


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
@pytest.mark.parametrize("kind", [Evaluation, BenchReport])
def test_a_damaged_result(tmp_path: Path, content: bytes, kind: type[Evaluation | BenchReport]) -> None:
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"r\.json does not hold") as caught:
        read_result(tmp_path / "r.json", kind, "measure again")
    assert caught.value.next_step == "measure again"
    for other in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(UsageError, match="does not hold"):
            read_result(other, kind)


STATES = {
    **DAMAGED,
    "an infinite number": b'{"schema_version": 2, "optimizer": {"lr": 1e999}}',
    "a large number": b'{"schema_version": ' + b"9" * 4000 + b"}",
    "many values": b"[" + b"0," * 2_000_000 + b"0]",
}


@pytest.mark.parametrize("content", STATES.values(), ids=STATES.keys())
def test_a_damaged_state_of_a_checkpoint(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / STEPS / "00000010"
    folder.mkdir(parents=True)
    (folder / STATE).write_bytes(content)
    assert newest(tmp_path) == folder
    with pytest.raises(CheckpointError, match="not intact") as caught:
        open_checkpoint(tmp_path)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("name", [STATE, "manifest.json"])
def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).touch()

    def forbidden(path: Path, **_: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    # what root may read too
    for call in ("stat", "lstat", "open"):
        monkeypatch.setattr(Path, call, forbidden)
    expected: type[SdcompressError] = CheckpointError if name == STATE else ArtifactError
    with pytest.raises(expected, match="Permission denied"):
        open_checkpoint(tmp_path) if name == STATE else open_trained_model(tmp_path)
