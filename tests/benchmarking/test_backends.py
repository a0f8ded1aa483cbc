"""Several backends in one benchmark: which is fastest, which is left out and why, and what the artifact keeps of it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import sdcompress
from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.write import staged
from sdcompress.benchmarking.backend_times import write_backend_times
from sdcompress.benchmarking.record import compare_backends
from sdcompress.errors import BrokenPackageError, CertificateError, OutputExistsError, ParityError, UsageError
from sdcompress.machine import processor
from sdcompress.runtime import choose_backend as chooser
from sdcompress.runtime.choose_backend import ROOM, choose_backend
from sdcompress.runtime.open import open_cascade, open_engine
from sdcompress.schema.manifest import BackendTimes
from sdcompress.verbs import bench as verb

Write = Callable[..., Path]
QUICK = {"scenarios": ["single-stream"], "warmup_ms": 1.0, "duration_s": 0.05, "rounds": 5}


def times(threads: int = 1, created: str = "2026-01-01T00:00:00+00:00", **changed: Any) -> BackendTimes:
    cpu, isa = processor()
    fields: dict[str, Any] = {
        "cpu": cpu, "isa": isa, "device": "cpu", "threads": threads, "created": created, "input": "samples",
        "ms": {"onnxruntime": 2.0, "openvino": 1.0}, "versions": {},
    }  # fmt: skip
    return BackendTimes(**fields | changed)


def recorded(path: Path, *tables: BackendTimes) -> Path:
    for table in tables:
        with staged(path, overwrite=True) as folder:
            write_backend_times(open_artifact(path), folder, table)
    return path


def test_all_backends_in_one_table_and_in_a_copy_of_the_artifact(tiny_artifact: Write, tmp_path: Path) -> None:
    path, out = tiny_artifact(policy=(0.9, 0.9)), tmp_path / "recorded"
    report = sdcompress.bench([path], {**QUICK, "backend": "all"}, samples="golden", record=out)
    assert [record.name for record in report.records] == ["cascade (onnxruntime)", "cascade (openvino)"]
    (between,) = report.backend_comparisons
    assert set(between.mean_ms) == {"onnxruntime", "openvino"}
    assert list(between.mean_ms.values()) == sorted(between.mean_ms.values())
    assert "'cpu'" in report.left_out["tensorrt"]
    before, after = open_artifact(path).manifest, open_artifact(out).manifest
    (table,) = after.backend_times
    assert table.ms == {record.backend: record.latency.mean_ms for record in report.records}
    assert (after.provenance.parent, after.segments, after.policy) == (before.digest, before.segments, before.policy)
    assert sdcompress.verify(out).digest == after.digest
    assert open_cascade(out, sdcompress.Options(backend="auto")).execution_target.backend == next(iter(between.mean_ms))


def test_a_backend_with_other_outputs_is_left_out_or_refused(
    tiny_artifact: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(artifact: Any, engine: Any) -> None:
        if engine.execution_target.backend == "openvino":
            raise ParityError("Its outputs are off by 1.")

    monkeypatch.setattr(verb, "check_outputs", refuse)
    path = tiny_artifact()
    report = sdcompress.bench([path], {**QUICK, "backend": "all"}, samples="golden")
    assert [record.backend for record in report.records] == ["onnxruntime"]
    assert report.left_out["openvino"] == "Its outputs are off by 1."
    with pytest.raises(ParityError, match="off by 1"):
        sdcompress.bench([path], {**QUICK, "backend": "onnxruntime, openvino"}, samples="golden")


def test_times_of_several_artifacts_have_no_place(tiny_artifact: Write, tmp_path: Path) -> None:
    paths = [tiny_artifact(), tiny_artifact("single")]
    with pytest.raises(UsageError, match="2 artifacts"):
        sdcompress.bench(paths, QUICK, samples="golden", record=tmp_path / "out")
    with pytest.raises(UsageError, match="scenarios offline"):
        sdcompress.bench(paths[:1], {**QUICK, "scenarios": ["offline"]}, samples="golden", record=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_taken_is_refused_before_anything_is_measured(
    tiny_artifact: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tiny_artifact(), tmp_path / "taken"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    monkeypatch.setattr(verb, "run_bench", lambda *_, **__: pytest.fail("it was measured"))
    for record, found in ((out, "holds 'notes.txt'"), (path, "already holds an artifact"), (path / "x", "lies inside")):
        with pytest.raises(OutputExistsError, match=found):
            sdcompress.bench([path], QUICK, samples="golden", record=record)
    assert [file.name for file in out.iterdir()] == ["notes.txt"]


def test_a_measurement_that_is_stopped_leaves_no_copy(
    tiny_artifact: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    path = tiny_artifact()
    monkeypatch.setattr(verb, "run_bench", stop)
    for record, overwrite in ((tmp_path / "out", False), (path, True)):
        with pytest.raises(KeyboardInterrupt):
            sdcompress.bench([path], QUICK, samples="golden", record=record, overwrite=overwrite)
    assert [*tmp_path.iterdir()] == [path]
    assert open_artifact(path).manifest.backend_times == ()


def measured(name: str, backend: str, ms: float) -> Any:
    rounds = [np.full(4, ms * drift) for drift in (1.0, 1.1, 0.9, 1.0, 1.0)]
    free = SimpleNamespace(rounds=rounds, ms=np.concatenate(rounds))
    return SimpleNamespace(candidate=SimpleNamespace(artifact_name=name, backend=backend), free=free)


def test_the_fastest_of_each_artifact_against_its_second() -> None:
    several = [measured("a", "x", 3.0), measured("a", "y", 1.0), measured("a", "z", 2.0), measured("b", "x", 1.0)]
    (one,) = compare_backends(several, "single-stream", 1)
    assert (one.name, list(one.mean_ms), one.verdict) == ("a", ["y", "z", "x"], "faster")
    assert one.speedup == pytest.approx(2.0)
    assert one.mean_ms["x"] == pytest.approx(3.0)


def test_auto_takes_the_fastest_of_this_machine_device_and_threads(tiny_artifact: Write) -> None:
    slow = {"onnxruntime": 1.0, "openvino": 2.0}
    artifact = open_artifact(
        recorded(
            tiny_artifact(),
            times(),
            times(threads=2, created="2026-02-01T00:00:00+00:00", ms=slow),
            times(cpu="another", ms=slow),
            times(isa=("another",), ms=slow),
        )
    )
    assert len(artifact.manifest.backend_times) == 4
    chosen = {threads: choose_backend(artifact, threads=threads, device="cpu") for threads in (1, 2, None)}
    assert chosen == {1: "openvino", 2: "onnxruntime", None: "onnxruntime"}


def test_what_auto_chose_is_recorded_by_its_own_name(tiny_artifact: Write, tmp_path: Path) -> None:
    path, out = recorded(tiny_artifact(), times(ms={"openvino": 1.0})), tmp_path / "out"
    report = sdcompress.bench([path], {**QUICK, "backend": "auto"}, samples="golden", record=out)
    assert [record.backend for record in report.records] == ["openvino"]
    assert list(open_artifact(out).manifest.backend_times[0].ms) == ["openvino"]
    assert sdcompress.verify(path, backend="auto").backend == "openvino"


def test_times_measured_again_replace_the_old_ones(tiny_artifact: Write) -> None:
    again = times(ms={"onnxruntime": 3.0})
    path = recorded(tiny_artifact(), times(), times(threads=2), again)
    assert [table.threads for table in open_artifact(path).manifest.backend_times] == [2, 1]
    assert open_artifact(path).manifest.backend_times[-1] == again


@pytest.mark.parametrize("table", [None, times(cpu="another"), times(threads=3), times(ms={"gone": 1.0})])
def test_without_times_for_this_machine_it_is_onnxruntime_and_the_log_says_so_once(
    tiny_artifact: Write,
    table: BackendTimes | None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chooser, "_logged", set())
    path = recorded(tiny_artifact(), *([table] if table else []))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert open_engine(path, backend="auto", threads=1).execution_target.backend == "onnxruntime"  # type: ignore[attr-defined]
    (line,) = caplog.messages
    assert "runs by onnxruntime" in line


def test_auto_keeps_to_what_the_certificate_covers(certified_artifact: Path) -> None:
    path = recorded(certified_artifact, times())
    assert open_cascade(path, sdcompress.Options(backend="auto")).execution_target.backend == "onnxruntime"
    free = sdcompress.Options(backend="auto", allow_uncertified=True)
    assert open_cascade(path, free).execution_target.backend == "openvino"
    with pytest.raises(CertificateError):
        open_cascade(path, sdcompress.Options(backend="openvino"))
    assert sdcompress.verify(path, backend="auto").backend == "onnxruntime"


def test_an_openvino_that_cannot_be_imported_is_passed_over_and_named(
    tiny_artifact: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openvino").mkdir()
    broken = 'raise ImportError("libtbb.so.12: cannot open shared object file", name="openvino._pyopenvino")'
    (tmp_path / "openvino" / "__init__.py").write_text(broken)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "openvino"] + [f"{ROOM}.openvino"]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(chooser, "_logged", set())
    path = recorded(tiny_artifact(), times())
    assert open_cascade(path, sdcompress.Options(backend="auto", threads=1)).execution_target.backend == "onnxruntime"
    assert any("does not run by openvino: The package 'openvino' is installed" in line for line in caplog.messages)
    report = sdcompress.bench([path], {**QUICK, "backend": "all"}, samples="golden")
    assert "libtbb.so.12" in report.left_out["openvino"]
    with pytest.raises(BrokenPackageError, match=r"sdcompress\[openvino\]"):
        open_cascade(path, sdcompress.Options(backend="openvino"))
