"""A Triton repository: its configuration in Triton's own type, and its program, give what the engine gives."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from triton_stub import RESCHEDULE, Repository, Request, read_config
from tritonclient.grpc import model_config_pb2

import sdcompress
from sdcompress.artifact.read import open_artifact
from sdcompress.errors import CertificateError, OutputExistsError, UnknownNameError, UsageError
from sdcompress.options import Options
from sdcompress.packaging import triton as room
from sdcompress.packaging._triton_program import cascade_program
from sdcompress.packaging.kserve import KServe
from sdcompress.packaging.triton import Triton
from sdcompress.schema.engines import BatchProfile, Engines, Plan
from sdcompress.schema.manifest import FileEntry

THRESHOLDS = (0.85, 0.75)
LEARNED = {"weights": [[0.2, 1.0, -0.4, 0.3, 0.1], [-0.1, 0.8, -0.2, 0.4, 0.6]]}
PCEE = {"edges": [[0.5, 0.8], [0.6]], "levels": [[0.6, 0.8, 0.97], [0.7, 0.96]]}


def packaged(artifact: Path, **settings: Any) -> Repository:
    out = artifact.with_name(f"{artifact.name}-repository")
    sdcompress.package(artifact, out, "triton", {"name": "net", **settings}, Options(allow_uncertified=True))
    return Repository(out, settings.get("version", 1))


def inputs_of(artifact: Path, count: int = 16) -> dict[str, Any]:
    opened = open_artifact(artifact)
    return dict(opened.modality.collate(opened.golden().examples[:count]).arrays)


@pytest.mark.parametrize(
    "policy",
    [
        ("max_prob", THRESHOLDS, {}),
        ("entropy", (0.5, 0.4), {}),
        ("margin", (0.4, 0.3), {}),
        ("learned", THRESHOLDS, LEARNED),
        ("pcee", (0.95, 0.9), PCEE),
        ("patience", (2.0, 0.6), {}),
        ("settled", (2.0, 0.9), {}),
        ("fixed", (2.0, 0.5), {}),
    ],
)
@pytest.mark.parametrize("form", ["bls", "sequence"])
def test_the_program_lets_each_row_exit_where_the_engine_does(
    tiny_artifact: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    policy: tuple[str, tuple[float, ...], dict[str, Any]],
    form: str,
) -> None:
    kind, thresholds, parameters = policy
    artifact = tiny_artifact(policy=thresholds, kind=kind, parameters=parameters)
    program = packaged(artifact, form=form).program("net", monkeypatch)
    inputs = inputs_of(artifact)
    expected = sdcompress.open(artifact, allow_uncertified=True)(inputs)
    sizes = [1] * 16 if form == "sequence" else [5, 1, 10]
    ends = np.cumsum(sizes)
    answers = program(*({"input": inputs["input"][end - size : end]} for end, size in zip(ends, sizes, strict=True)))
    assert [len(answer["outputs"]) for answer in answers] == sizes
    exit_index = np.concatenate([answer["exit_index"] for answer in answers])[:, 0]
    assert exit_index.tolist() == expected.exit_index.tolist()
    outputs = np.concatenate([answer["outputs"] for answer in answers])
    np.testing.assert_allclose(outputs, expected.outputs, rtol=0, atol=1e-6)


def test_rows_of_the_tests_exit_at_different_exits(tiny_artifact: Callable[..., Path]) -> None:
    artifact = tiny_artifact(policy=THRESHOLDS)
    assert set(sdcompress.open(artifact)(inputs_of(artifact)).exit_index.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("form", ["bls", "sequence"])
def test_later_segments_run_on_the_rows_that_are_left(
    tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    artifact = tiny_artifact(policy=THRESHOLDS)
    repository = packaged(artifact, form=form)
    program, inputs = repository.program("net", monkeypatch), inputs_of(artifact)["input"]
    program(*(({"input": row[None]} for row in inputs) if form == "sequence" else ({"input": inputs},)))
    exit_index = sdcompress.open(artifact)({"input": inputs}).exit_index
    left = [int((exit_index >= at).sum()) for at in range(3)]
    assert repository.rows == [(f"net-segment-{at}", rows) for at, rows in enumerate(left)]


def test_at_another_temperature_the_card_code_of_the_task_gives_the_signals(
    tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = tiny_artifact(policy=(0.6, 0.5), temperatures=(1.7, 0.8, 1.0))
    program, inputs = packaged(artifact).program("net", monkeypatch), inputs_of(artifact)
    (answer,) = program(inputs)
    expected = sdcompress.open(artifact)(inputs)
    assert answer["exit_index"][:, 0].tolist() == expected.exit_index.tolist()
    np.testing.assert_allclose(answer["outputs"], expected.outputs, rtol=0, atol=1e-6)


def test_a_score_that_is_nan_runs_to_the_end(
    tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = tiny_artifact(policy=(0.0, 0.0))
    program = packaged(artifact).program("net", monkeypatch)
    rows = np.zeros((2, 1, 4, 4), np.float32)
    rows[1] = np.nan
    assert program({"input": rows})[0]["exit_index"].tolist() == [[0], [2]]


def test_a_failing_segment_is_an_error_of_the_request(
    tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = packaged(tiny_artifact(policy=THRESHOLDS))
    program = repository.program("net", monkeypatch)
    del repository.configs["net-segment-0"]
    with pytest.raises(Exception, match="unknown model"):
        program({"input": np.zeros((1, 1, 4, 4), np.float32)})


def test_a_failing_step_is_an_error_of_its_rows_alone(
    tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = tiny_artifact(policy=THRESHOLDS)
    repository = packaged(artifact, form="sequence")
    program, inputs = repository.program("net", monkeypatch), inputs_of(artifact)["input"]
    exit_index = sdcompress.open(artifact)({"input": inputs}).exit_index
    early, late = int(exit_index.argmin()), int(exit_index.argmax())
    waiting = Request({"input": inputs[late : late + 1]}, correlation_id=1)
    program.model.execute([waiting])
    del repository.configs["net-segment-1"]
    new = Request({"input": inputs[early : early + 1]}, correlation_id=2)
    failed, answered = program.model.execute([waiting.again(), new])
    assert failed.has_error()
    assert answered.tensors["exit_index"].as_numpy().tolist() == [[0]]
    assert program.model.waiting == {}


def test_a_cancelled_request_is_forgotten(tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = tiny_artifact(policy=THRESHOLDS)
    repository = packaged(artifact, form="sequence")
    program, inputs = repository.program("net", monkeypatch), inputs_of(artifact)["input"]
    late = int(sdcompress.open(artifact)({"input": inputs}).exit_index.argmax())
    waiting = Request({"input": inputs[late : late + 1]}, correlation_id=1)
    program.model.execute([waiting])
    again = waiting.again()
    again.cancelled = True
    (response,) = program.model.execute([again])
    assert response.error().code == response.error().CANCELLED
    assert program.model.waiting == {}
    assert again.release != RESCHEDULE


def test_requests_of_which_nothing_is_heard_are_forgotten_and_may_begin_anew(
    tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = tiny_artifact(policy=THRESHOLDS)
    program = packaged(artifact, form="sequence").program("net", monkeypatch)
    monkeypatch.setitem(program.model.execute.__globals__, "CANDIDATES", 2)
    inputs = inputs_of(artifact)["input"]
    late = int(sdcompress.open(artifact)({"input": inputs}).exit_index.argmax())
    requests = [Request({"input": inputs[late : late + 1]}, correlation_id=at) for at in range(3)]
    for request in requests:
        program.model.execute([request])
    assert list(program.model.waiting) == [1, 2]
    response, request = None, requests[0]
    while response is None:
        request = request.again()
        (response,) = program.model.execute([request])
    assert response.tensors["exit_index"].as_numpy().tolist() == [[2]]


@pytest.mark.parametrize("layout", ["single", "all"])
def test_an_artifact_of_one_graph_is_one_model_with_all_its_outputs(
    tiny_artifact: Callable[..., Path], layout: str
) -> None:
    artifact = tiny_artifact(layout)
    repository = packaged(artifact, max_batch_size=16)
    assert list(repository.configs) == ["net"]
    outputs = repository.run("net", inputs := inputs_of(artifact))
    expected = sdcompress.open(artifact).exits(inputs)
    names = [exit_.outputs for exit_ in open_artifact(artifact).manifest.exits]
    assert list(outputs) == names
    for name, values in zip(names, expected, strict=True):
        np.testing.assert_array_equal(outputs[name], values)


@pytest.mark.parametrize("kind", ["graph", "if"])
def test_the_one_graph_of_a_cascade_is_one_model(
    one_graph_once: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    artifact = Path(shutil.copytree(one_graph_once(kind), tmp_path / "artifact"))
    repository = packaged(artifact)
    inputs = inputs_of(artifact, 1 if kind == "if" else 16)
    outputs = repository.run("net", inputs)
    expected = sdcompress.open(artifact)(inputs)
    assert outputs["exit_index"].ravel().tolist() == expected.exit_index.tolist()
    assert outputs["exit_index"].shape == ((1,) if kind == "if" else (16, 1))
    np.testing.assert_allclose(outputs["outputs"], expected.outputs, rtol=0, atol=1e-5)
    config = repository.configs["net"]
    assert config.max_batch_size == (0 if kind == "if" else 32)
    assert config.HasField("dynamic_batching") == (kind == "graph")
    assert config.model_warmup[0].batch_size == 1  # Triton skips a sample of none


def test_the_configuration_says_all_that_triton_would_guess(tiny_artifact: Callable[..., Path]) -> None:
    settings = {
        "version": 3,
        "max_batch_size": 8,
        "preferred_batch_size": (4, 8),
        "max_queue_delay_microseconds": 250,
        "max_queue_size": 100,
        "instances": 2,
        "intra_op_threads": 1,
    }
    repository = packaged(tiny_artifact(policy=THRESHOLDS), **settings)
    assert sorted(repository.configs) == ["net", "net-segment-0", "net-segment-1", "net-segment-2"]
    net, segment = repository.configs["net"], repository.configs["net-segment-1"]
    assert (net.backend, segment.backend) == ("python", "onnxruntime")
    assert (net.default_model_filename, segment.default_model_filename) == ("model.py", "model.onnx")
    assert net.max_batch_size == segment.max_batch_size == 8
    assert list(net.dynamic_batching.preferred_batch_size) == [4, 8]
    assert net.dynamic_batching.max_queue_delay_microseconds == 250
    assert net.dynamic_batching.default_queue_policy.max_queue_size == 100
    assert segment.HasField("dynamic_batching")
    assert segment.dynamic_batching.max_queue_delay_microseconds == 0
    assert (net.instance_group[0].count, segment.instance_group[0].count) == (2, 1)
    assert net.instance_group[0].kind == segment.instance_group[0].kind == net.instance_group[0].KIND_CPU
    assert segment.parameters["intra_op_thread_count"].string_value == "1"
    assert [port.name for port in segment.input] == ["hidden", "input"]
    assert [list(port.dims) for port in segment.input] == [[6], [1, 4, 4]]
    assert {port.name: list(port.dims) for port in net.output} == {"outputs": [3], "exit_index": [1]}
    assert net.version_policy.latest.num_versions == 1
    # a warm-up of the program would run before its segments are loaded, and Triton would not start
    assert not net.model_warmup
    assert segment.model_warmup[0].inputs["hidden"].dims == [6]
    assert (repository.folder / "net" / "labels.txt").read_text() == "square\ndisc\nstar\n"
    assert {port.name: port.label_filename for port in net.output} == {"outputs": "labels.txt", "exit_index": ""}


def test_a_sequence_waits_longer_than_triton_would_let_it(tiny_artifact: Callable[..., Path]) -> None:
    config = packaged(tiny_artifact(policy=THRESHOLDS), form="sequence", preferred_batch_size=(8,)).configs["net"]
    batching = config.sequence_batching
    assert batching.iterative_sequence
    assert batching.max_sequence_idle_microseconds == 600_000_000  # the default of 1 s loses requests of busy machines
    assert list(batching.oldest.preferred_batch_size) == [8]
    assert batching.oldest.max_queue_delay_microseconds == 500
    assert not config.HasField("dynamic_batching")


def test_graphs_have_the_hashes_of_the_manifest_and_all_files_are_listed(tiny_artifact: Callable[..., Path]) -> None:
    artifact = tiny_artifact(policy=THRESHOLDS)
    repository = packaged(artifact)
    lines = (repository.folder / "SHA256SUMS").read_text().splitlines()
    sums = {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}
    present = {
        path.relative_to(repository.folder).as_posix() for path in repository.folder.rglob("*") if path.is_file()
    }
    assert sums.keys() == present - {"SHA256SUMS"}
    for name, sha256 in sums.items():
        assert hashlib.sha256((repository.folder / name).read_bytes()).hexdigest() == sha256
    manifest = open_artifact(artifact).manifest
    for at, segment in enumerate(manifest.segments):
        assert sums[f"net-segment-{at}/1/model.onnx"] == segment.sha256
    record = json.loads((repository.folder / "package.json").read_text())
    assert record["artifact"] == manifest.digest
    assert record["models"][0] == "net"
    assert record["guarantee"].startswith("Guarantee: none.")
    assert repository.configs["net"].parameters["artifact"].string_value == manifest.digest


def test_the_same_artifact_gives_the_same_bytes(tiny_artifact: Callable[..., Path], tmp_path: Path) -> None:
    artifact = tiny_artifact(policy=THRESHOLDS)
    for name in ("one", "two"):
        sdcompress.package(artifact, tmp_path / name, "triton")
    assert (tmp_path / "one" / "SHA256SUMS").read_bytes() == (tmp_path / "two" / "SHA256SUMS").read_bytes()


def test_a_package_is_replaced_only_on_request_and_only_without_other_files(tiny_artifact: Callable[..., Path]) -> None:
    artifact = tiny_artifact(policy=THRESHOLDS)
    folder = packaged(artifact).folder
    with pytest.raises(OutputExistsError, match="already holds a package"):
        sdcompress.package(artifact, folder, "triton")
    compiled = folder / "net" / "1" / "__pycache__" / "model.cpython-312.pyc"  # Triton's interpreter leaves it there
    compiled.parent.mkdir()
    compiled.write_bytes(b"")
    sdcompress.package(artifact, folder, "triton", {"name": "other"}, overwrite=True)
    assert (folder / "other").is_dir()
    assert not (folder / "net").exists()
    (folder / "mine.txt").write_text("")
    with pytest.raises(OutputExistsError, match=r"mine\.txt"):
        sdcompress.package(artifact, folder, "triton", overwrite=True)
    with pytest.raises(OutputExistsError, match="inside the artifact"):
        sdcompress.package(artifact, artifact / "inside", "triton")


@pytest.mark.parametrize("artifact", ["no policy", "no exit", "single", "no graph", "no engines"])
def test_what_cannot_be_packaged_says_what_to_do(
    tiny_artifact: Callable[..., Path], artifact: str, tmp_path: Path
) -> None:
    folder = tiny_artifact("single" if artifact == "single" else "cascade", policy=POLICIES.get(artifact))
    settings = {"single": {"form": "bls"}, "no graph": {"form": "graph"}, "no engines": {"backend": "tensorrt"}}
    with pytest.raises(UsageError, match=PROBLEMS[artifact]) as raised:
        sdcompress.package(folder, tmp_path / "out", "triton", settings.get(artifact))
    assert raised.value.next_step
    assert not (tmp_path / "out").exists()


POLICIES = {"no exit": (2.0, 2.0), "no graph": THRESHOLDS, "no engines": THRESHOLDS}
PROBLEMS = {
    "no policy": "without an exit policy",
    "no exit": "no sample exits early",
    "single": "cannot have the form 'bls'",
    "no graph": "cannot have the form 'graph'",
    "no engines": "0 sets of TensorRT engines",
}


def test_names_in_an_artifact_never_become_code(tiny_artifact: Callable[..., Path]) -> None:
    opened = open_artifact(tiny_artifact(policy=THRESHOLDS))
    hostile = ["'#MODEL#", '"""\n#FUNCTIONS#\nraise SystemExit', "\\"]
    exits = [one.model_copy(update={"name": name}) for one, name in zip(opened.manifest.exits, hostile, strict=True)]
    artifact = type(opened)(opened.path, opened.manifest.model_copy(update={"exits": tuple(exits)}))
    program = cascade_program(artifact, ("a", "b", "c"), stepwise=False)
    (table,) = [node for node in ast.parse(program).body if "EXITS" in ast.unparse(node).partition("=")[0]]
    assert isinstance(table, ast.Assign)
    assert isinstance(table.value, ast.Tuple)
    names = [row.values[0].value for row in table.value.elts]  # type: ignore[attr-defined]
    assert names == hostile


def test_wrong_settings_and_targets_are_refused(tiny_artifact: Callable[..., Path], tmp_path: Path) -> None:
    artifact = tiny_artifact("single")
    with pytest.raises(UsageError, match="did you mean 'max_batch_size'"):
        sdcompress.package(artifact, tmp_path / "out", "triton", {"max_batchsize": 4})
    with pytest.raises(UsageError, match="name"):
        sdcompress.package(artifact, tmp_path / "out", "triton", {"name": "../up"})
    with pytest.raises(UsageError, match="above max_batch_size"):
        sdcompress.package(artifact, tmp_path / "out", "triton", {"preferred_batch_size": [64]})
    with pytest.raises(UsageError, match="needs device=cuda"):
        sdcompress.package(artifact, tmp_path / "out", "triton", {"backend": "tensorrt", "device": "cpu"})
    with pytest.raises(UsageError, match="no such limit for form=sequence"):
        sdcompress.package(artifact, tmp_path / "out", "triton", {"form": "sequence", "max_queue_size": 4})
    with pytest.raises(UsageError, match="are a KServe, and the target 'triton' takes a Triton"):
        sdcompress.package(artifact, tmp_path / "out", "triton", KServe(storage_uri="s3://bucket/net"))
    with pytest.raises(UnknownNameError, match="Did you mean 'triton'"):
        sdcompress.package(artifact, tmp_path / "out", "tritn")


def test_a_package_is_not_packaged_again(tiny_artifact: Callable[..., Path], tmp_path: Path) -> None:
    folder = packaged(tiny_artifact("single")).folder
    with pytest.raises(UsageError, match="is a package already"):
        sdcompress.package(folder, tmp_path / "out", "triton")


def test_a_certificate_is_needed_for_what_runs(certified_artifact: Path, tmp_path: Path) -> None:
    record = sdcompress.package(certified_artifact, tmp_path / "cpu", "triton")
    assert record.guarantee.startswith("Guarantee: certified")
    with pytest.raises(CertificateError, match="onnxruntime on cuda"):
        sdcompress.package(certified_artifact, tmp_path / "cuda", "triton", {"device": "cuda"})
    sdcompress.package(
        certified_artifact, tmp_path / "cuda", "triton", {"device": "cuda"}, Options(allow_uncertified=True)
    )
    group = read_config(tmp_path / "cuda" / "tiny-segment-0" / "config.pbtxt").instance_group[0]
    assert group.kind == group.KIND_GPU


@pytest.mark.parametrize(("version", "decision"), [("8.5.3.1", "TYPE_INT32"), ("10.9.0.34", "TYPE_INT64")])
def test_engines_are_configured_for_the_tensorrt_backend(
    tiny_artifact: Callable[..., Path], version: str, decision: str, tmp_path: Path
) -> None:
    """Only the configuration: no GPU ran it. Before TensorRT 10 engines give int32 where graphs give int64."""
    artifact = with_engines(tiny_artifact(policy=THRESHOLDS), version)
    Triton(name="net", backend="tensorrt").write(artifact, tmp_path)
    config = read_config(tmp_path / "net-segment-0" / "config.pbtxt")
    assert (config.backend, config.default_model_filename, config.max_batch_size) == ("tensorrt", "model.plan", 16)
    assert list(config.instance_group[0].profile) == ["0", "1"]
    assert config.instance_group[0].kind == config.instance_group[0].KIND_GPU
    types = {port.name: model_config_pb2.DataType.Name(port.data_type) for port in config.output}
    assert types["exit1_decision"] == decision
    program = {port.name: port.data_type for port in read_config(tmp_path / "net" / "config.pbtxt").output}
    assert program == {"outputs": model_config_pb2.TYPE_FP32, "exit_index": model_config_pb2.TYPE_INT64}
    assert (tmp_path / "net-segment-2" / "1" / "model.plan").read_bytes() == b"plan 2"
    with pytest.raises(UsageError, match="cannot have the form 'graph' with TensorRT"):
        Triton(form="graph", backend="tensorrt").write(artifact, tmp_path / "other")
    with pytest.raises(UsageError, match="take batches up to 16, and not 32"):
        Triton(preferred_batch_size=(32,), backend="tensorrt").write(artifact, tmp_path / "other")
    with pytest.raises(UsageError, match="0 sets of TensorRT engines for the GPU 'H100'"):
        Triton(gpu="H100", backend="tensorrt").write(artifact, tmp_path / "other")
    from_four = artifact.manifest.engines[0].model_copy(update={"profiles": (BatchProfile(min=4, opt=8, max=16),)})
    manifest = artifact.manifest.model_copy(update={"engines": (from_four,)})
    with pytest.raises(UsageError, match="take batches from 4 on"):
        Triton(backend="tensorrt").write(type(artifact)(artifact.path, manifest), tmp_path / "other")


def with_engines(folder: Path, version: str) -> Any:
    """The artifact with engines that are no engines."""
    opened = open_artifact(folder)
    plans = []
    for at in range(3):
        (folder / f"{at}.plan").write_bytes(b"plan %d" % at)
        plans.append(Plan(file=f"{at}.plan", sha256="0" * 64, bytes=6, device_memory_bytes=0, layers={}))
    engines = Engines(
        gpu="a GPU",
        compute_capability="9.0",
        tensorrt=version,
        driver="",
        plans=tuple(plans),
        profiles=(BatchProfile(min=1, opt=1, max=1), BatchProfile(min=2, opt=8, max=16)),
        tf32=False,
        workspace_bytes=1,
        builder_optimization_level=None,
        log=FileEntry(file="build.log", sha256="0" * 64, bytes=0),
        parity=(),
    )
    manifest = opened.manifest.model_copy(update={"engines": (engines,)})
    return type(opened)(opened.path, manifest)


@pytest.mark.parametrize(
    ("near_threshold", "precision", "whole", "form"),
    [(0, "fp32", False, "graph"), (1, "fp32", False, "bls"), (0, "uint8", False, "bls"), (0, "uint8", True, "graph")],
)
def test_one_graph_that_rounds_otherwise_is_not_packaged_under_the_certificate_of_the_segments(
    near_threshold: int, precision: str, whole: bool, form: str, tmp_path: Path
) -> None:
    one_graph = SimpleNamespace(near_threshold=near_threshold, whole_validation_split=whole, max_abs_diff=0.0)
    manifest = SimpleNamespace(
        one_graph=one_graph, certificate="of the segments", segments=(1, 2), precisions=(precision,), layout="graph"
    )
    artifact: Any = SimpleNamespace(path=tmp_path, manifest=manifest)
    assert room._Repository(Triton(name="net"), artifact, tmp_path)._form() == form
    asked = Triton(name="net", form="graph")
    assert room._Repository(asked, artifact, tmp_path)._form() == "graph"  # with --allow-uncertified
    if form == "bls":
        with pytest.raises(CertificateError, match="the one graph rounds otherwise"):
            asked.execution_target(artifact)
        manifest.certificate = None
        assert room._Repository(Triton(name="net"), artifact, tmp_path)._form() == "graph"
    asked.execution_target(artifact)
