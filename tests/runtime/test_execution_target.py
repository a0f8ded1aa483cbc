"""Thresholds know what they were chosen on: another backend, device or set of engines is refused, or warned of."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdcompress.artifact.execution_target import ExecutionTarget, plans_digest, threshold_warning
from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.write import entry, rewrite, staged
from sdcompress.calibration.calibrate import calibrate
from sdcompress.calibration.plan_sample_size import plan
from sdcompress.certification.recompute import verify_certificate
from sdcompress.errors import CertificateError, UsageError
from sdcompress.options import EngineOptions
from sdcompress.runtime.open import open_cascade, open_engine, open_one_graph
from sdcompress.schema import recipe
from sdcompress.schema.engines import BatchProfile, Engines, Plan
from sdcompress.verification.verify import verify

Write = Callable[..., Path]
WISH = recipe.Calibrate(max_drop=0.05, confidence=0.9)

HOSTED = EngineOptions(backend="hosted", device="cuda")


def with_engines(path: Path, out: Path) -> Engines:
    """A copy of an artifact that lists engines; their files are no plans, and nothing here loads them."""
    opened = open_artifact(path)
    with staged(out) as folder:
        (folder / "engines").mkdir()
        plans = []
        for at in range(len(opened.manifest.segments)):
            (folder / "engines" / f"segment-{at}.plan").write_bytes(bytes([at]) * 100)
            file = entry(folder, f"engines/segment-{at}.plan")
            plans.append(Plan(**file.model_dump(), device_memory_bytes=0, layers={"Float": 1}))
        (folder / "engines" / "build.log").write_text("nothing was built\n")
        made = Engines(
            gpu="a GPU", compute_capability="9.0", tensorrt="10.9.0.34", driver="", plans=tuple(plans),
            profiles=(BatchProfile(min=1, opt=8, max=64),), tf32=False, workspace_bytes=1,
            builder_optimization_level=None, log=entry(folder, "engines/build.log"), parity=opened.manifest.parity,
        )  # fmt: skip
        rewrite(opened, folder, engines=(made,))
    return made


def test_calibration_records_what_it_ran_on(
    tiny_artifact: Write, tiny_network: Any, hosted: Callable[[str | None], None]
) -> None:
    cascade, samples = tiny_artifact(), tiny_network.samples(600)
    plain = recipe.Calibrate(max_drop=0.05)
    calibrate(cascade, cascade.parent / "usual", samples=samples, settings=plain)
    hosted("a" * 64)
    calibrate(cascade, cascade.parent / "here", samples=samples, settings=plain, options=HOSTED)
    usual, here = (open_artifact(cascade.parent / name).manifest.policy for name in ("usual", "here"))
    assert usual is not None
    assert here is not None
    assert (usual.backend, usual.device, usual.plans) == ("onnxruntime", "cpu", None)
    assert (here.backend, here.device, here.plans) == ("hosted", "cuda", "a" * 64)
    assert here.stage_times is not None
    assert all(0 < ms < 5 for ms in here.stage_times.move_ms)


def test_thresholds_that_promise_nothing_run_elsewhere_with_a_warning(
    tiny_artifact: Write, hosted: Callable[[str | None], None]
) -> None:
    hosted("a" * 64)
    path = tiny_artifact(policy=(0.6, 0.6))
    inputs = np.random.default_rng(0).normal(size=(20, 1, 4, 4)).astype(np.float32)
    with pytest.warns(UserWarning, match=r"chosen on onnxruntime on cpu; hosted on cuda \(engines aaaaaaaaaaaa...\)"):
        engine = open_engine(path, backend="hosted", device="cuda")
    assert engine(inputs).exit_index.tolist() == open_engine(path, threads=1)(inputs).exit_index.tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_engine(path, threads=1)
        open_engine(path, backend="hosted", device="cuda", allow_uncertified=True)
        open_engine(tiny_artifact("single"), backend="hosted", device="cuda")  # no policy
        open_engine(tiny_artifact(policy=(2.0, 2.0), name="shut"), backend="hosted", device="cuda")


def test_the_warning_says_what_to_type(tiny_artifact: Write) -> None:
    manifest = open_artifact(tiny_artifact(policy=(0.6, 0.6), backend="tensorrt", device="cuda")).manifest
    assert "sdcompress calibrate ARTIFACT --backend onnxruntime --device cpu" in threshold_warning(
        manifest, ExecutionTarget()
    )
    assert threshold_warning(manifest, ExecutionTarget("tensorrt", "cuda")) == ""


def test_a_certificate_is_bound_to_the_engines_that_it_was_made_on(
    tiny_artifact: Write, tiny_network: Any, hosted: Callable[[str | None], None], tmp_path: Path
) -> None:
    made = with_engines(tiny_artifact(), tmp_path / "built")
    hosted(plans_digest(made))
    out = tmp_path / "certified"
    where = {"backend": "hosted", "device": "cuda"}
    manifest = calibrate(tmp_path / "built", out, samples=tiny_network.samples(4000), settings=WISH, options=HOSTED)
    assert manifest.certificate is not None
    assert manifest.certificate.plans == plans_digest(made)
    assert manifest.engines == (made,)
    assert verify_certificate(open_artifact(out)) == manifest.certificate
    assert verify(out).certificate is not None  # the graphs are proven as ever, by onnxruntime
    assert open_cascade(out, HOSTED).execution_target == ExecutionTarget("hosted", "cuda", plans_digest(made))
    with pytest.raises(CertificateError, match="not for onnxruntime on cpu") as caught:
        open_engine(out)
    assert "calibrate it again with --confidence for onnxruntime on cpu" in str(caught.value)
    hosted("b" * 64)  # the engines were built again
    with pytest.raises(CertificateError, match=r"not for hosted on cuda \(engines bbbbbbbbbbbb...\)"):
        open_engine(out, **where)
    open_engine(out, **where, allow_uncertified=True)


def test_a_certificate_of_engines_that_are_gone_is_found_offline(
    tiny_artifact: Write, tiny_network: Any, hosted: Callable[[str | None], None], tmp_path: Path
) -> None:
    hosted("a" * 64)
    samples = tiny_network.samples(4000)
    calibrate(tiny_artifact(), tmp_path / "out", samples=samples, settings=WISH, options=HOSTED)
    with pytest.raises(CertificateError, match="engines that the artifact does not hold"):
        verify_certificate(open_artifact(tmp_path / "out"))


def test_no_certificate_covers_another_policy(certified_artifact: Path) -> None:
    engine = open_cascade(certified_artifact)
    assert engine.policy is not None
    assert engine.manifest.certificate is not None
    assert engine.with_policy(engine.policy).manifest.certificate is None


def test_adding_engines_leaves_the_certificate_of_the_graphs_valid(certified_artifact: Path, tmp_path: Path) -> None:
    with_engines(certified_artifact, tmp_path / "built")
    open_engine(tmp_path / "built", threads=1)
    assert verify_certificate(open_artifact(tmp_path / "built")) is not None


def test_a_plan_for_a_certificate_runs_on_the_backend_too(
    tiny_artifact: Write, tiny_network: Any, hosted: Callable[[str | None], None]
) -> None:
    hosted(None)
    found = plan(tiny_artifact(), samples=tiny_network.samples(600), settings=WISH, options=HOSTED)
    assert found.observed


def test_a_chain_runs_no_graph_that_exits_by_itself(
    one_graph_once: Callable[[str], Path], hosted: Callable[[str | None], None], tmp_path: Path
) -> None:
    hosted(None)
    shutil.copytree(one_graph_once("graph"), tmp_path / "graph")
    with pytest.raises(UsageError, match="'hosted' runs no graph that exits by itself"):
        open_one_graph(tmp_path / "graph", EngineOptions(backend="hosted"))
