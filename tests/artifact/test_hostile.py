"""Whatever a stranger puts into an artifact: an error of ours, soon, and without much memory."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.write import staged
from sdcompress.errors import ArtifactError, OutputExistsError
from sdcompress.modalities.image import Image
from sdcompress.schema.manifest import OneGraph, Policy, StageTimes
from sdcompress.tasks.classification import Classification

SECONDS, MEBIBYTES = 20, 150
POLICY = {
    "thresholds": (0.9,),
    "max_drop": 0.01,
    "samples": 100,
    "metric": 0.9,
    "reference_metric": 0.9,
    "shares": (0.5, 0.5),
    "stage_ms": (1.0, 1.0),
}


@contextmanager
def bounded() -> Iterator[None]:
    """Fail where the block takes too long or too much memory."""

    def too_long(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MEBIBYTES * 2**20
    finally:
        tracemalloc.stop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refused(folder: Path, *words: str) -> None:
    with bounded(), pytest.raises(ArtifactError) as caught:
        open_artifact(folder)
    for word in words:
        assert word in str(caught.value)
    assert len(str(caught.value)) < 20_000
    assert str(caught.value).isprintable() or "\n" in str(caught.value)


def reseal(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    fields = json.loads((folder / "manifest.json").read_text())
    change(fields)
    fields.pop("digest")
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    fields["digest"] = hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(fields))


def _socket(path: Path) -> None:
    directory = Path.cwd()
    os.chdir(path.parent)  # its name may be longer than a socket's address
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(directory)


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


KINDS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a pipe": (os.mkfifo, "not a regular file"),
    "a link to an endless device": (lambda path: path.symlink_to("/dev/zero"), "a symlink"),
    "a socket": (_socket, "not a regular file"),
    "a folder": (Path.mkdir, "a folder"),
    "a terabyte": (_sparse, str(2**40)),
}


@pytest.mark.parametrize(("make", "word"), KINDS.values(), ids=KINDS.keys())
def test_a_manifest_is_a_regular_file_of_some_size(artifact: Path, make: Callable[[Path], Any], word: str) -> None:
    (artifact / "manifest.json").unlink()
    make(artifact / "manifest.json")
    refused(artifact, word)
    # what it is, decides whether it may be replaced: it is no artifact that we know
    with bounded(), pytest.raises(OutputExistsError), staged(artifact, overwrite=True):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("name", ["golden", "card", "segment"])
def test_no_file_is_larger_than_its_kind_ever_is(artifact: Path, name: str) -> None:
    def grow(fields: dict[str, Any]) -> None:
        entry = fields["segments"][0] if name == "segment" else fields[name]
        entry["bytes"] = 2**40
        os.truncate(artifact / entry["file"], 2**40)

    reseal(artifact, grow)
    refused(artifact, f"has {2**40} bytes", "at most")


TEXTS = {
    "a number beyond a double": ("0.75", "1e999", "1e999"),
    "an integer beyond 64 bits": ("0.75", str(10**400), "beyond 64 bits"),
    "an integer of 100,000 digits": ("0.75", "1" * 100_000, "beyond 64 bits"),
    "deep lists": ("0.75", "[" * 60_000 + "]" * 60_000, "64 levels"),
    "deep objects": ("0.75", '{"a":' * 5_000 + "1" + "}" * 5_000, "64 levels"),
    "lists as deep as Python still reads": ("0.75", "[" * 300 + "]" * 300, "64 levels"),
    "half of a surrogate pair": ('"cat"', '"\\ud83d"', "surrogate"),
    "half of one as a key": ('"accuracy"', '"\\uDC00"', "surrogate"),
    "millions of entries": ("0.75", "[" + "0," * 3_000_000 + "0]", "values"),
    "as many wrong entries as are read": ('"cat"', ",".join("0" * 50_000), "more"),
    "text of megabytes": ('"cascade"', f'"{"x" * 5_000_000}"', "layout"),
    "a number of megabytes": ("0.75", f"0.{'1' * 3_000_000}e999", "too large"),
}


@pytest.mark.parametrize(("old", "new", "word"), TEXTS.values(), ids=TEXTS.keys())
def test_json_that_no_later_step_could_hold_is_refused(artifact: Path, old: str, new: str, word: str) -> None:
    text = (artifact / "manifest.json").read_text()
    assert text.count(old) >= 1
    (artifact / "manifest.json").write_text(text.replace(old, new, 1))
    refused(artifact, word)


def test_folders_within_folders_end_somewhere(artifact: Path) -> None:
    subprocess.run(["mkdir", "-p", artifact / "/".join("d" * 600)], check=True)
    try:
        refused(artifact, "nested")
        with bounded(), pytest.raises(ArtifactError), staged(artifact, overwrite=True):
            pytest.fail("the block must not run")
    finally:
        subprocess.run(["rm", "-rf", artifact / "d"], check=True)  # too deep for shutil


def test_of_many_unlisted_files_some_are_named(artifact: Path) -> None:
    for number in range(500):
        (artifact / f"{'x' * 200}{number}").touch()
    refused(artifact, "which its manifest does not list")


def test_a_name_that_is_no_text_and_moves_the_cursor_is_written_in_escapes(artifact: Path) -> None:
    Path(os.fsdecode(os.fsencode(artifact) + b"/\xff\x1b[2J")).touch()
    refused(artifact, r"\udcff\x1b[2J")


def _policy(**changes: Any) -> Callable[[dict[str, Any]], None]:
    policy_fields = Policy(**POLICY).model_dump(mode="json")
    return lambda fields: fields.update(policy={**policy_fields, **changes})


def _times(**changes: Any) -> Callable[[dict[str, Any]], None]:
    times_fields = StageTimes(rows=(1, 2), ms=((1, 2), (1, 2)), move_ms=(0.1,)).model_dump(mode="json")
    return _policy(stage_times={**times_fields, **changes})


def _at(*way: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(fields: Any) -> None:
        for step in way[:-1]:
            fields = fields[step]
        fields[way[-1]] = value

    return change


PARAMETERS = ("modality", "parameters")
LENGTHS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "shares": (_policy(shares=[1.0]), "shares"),
    "too many shares": (_policy(shares=[0.5, 0.3, 0.2]), "shares"),
    "stage_ms": (_policy(stage_ms=[1.0]), "stage_ms"),
    "decision_ms": (_policy(decision_ms=[1.0, 1.0]), "decision_ms"),
    "stage_times": (_times(ms=[[1, 2]]), "stage_times"),
    "rows of stage_times": (_times(ms=[[1], [1]]), "number of rows"),
    "falling rows": (_times(rows=[2, 1]), "rise"),
    "move_ms": (_times(move_ms=[]), "move_ms"),
    "an input of another rank": (_at("inputs", 0, "shape", value=["batch", 60]), "3, 4, 5"),
    "an input of another name": (_at("inputs", 0, "name", value="x" * 10**6), "3, 4, 5"),
    "no input": (_at("inputs", value=[]), "inputs"),
    "a shape of another rank": (_at(*PARAMETERS, "shape", value=[3, 20]), "shape"),
    "a shape that is a text": (_at(*PARAMETERS, "shape", value="3" * 10**6), "shape"),
    "an input without pixels": (_at(*PARAMETERS, "shape", value=[3, 0, 0]), "pixels"),
    "an input of other channels": (_at(*PARAMETERS, "shape", value=[1, 4, 5]), "channels"),
    "an input of a million pixels a side": (_at(*PARAMETERS, "shape", value=[3, 10**6, 10**6]), "pixels"),
    "a resize to a million pixels": (_at(*PARAMETERS, "preprocess", "resize", value=10**6), "resize"),
    "a preparation that divides by zero": (_at(*PARAMETERS, "preprocess", "std", value=[1, 1, 0]), "std"),
    "a preparation that is no mapping": (_at(*PARAMETERS, "preprocess", value=[1]), "preprocess"),
    "a modality without parameters": (_at(*PARAMETERS, value={}), "preprocess"),
    "a modality with other parameters": (_at(*PARAMETERS, value={"x" * 10**6: 1}), "no parameter"),
    "a modality that nobody has": (_at("modality", "name", value="smell"), "'smell'"),
    "a modality that leads elsewhere": (_at("modality", "name", value="../os"), "modality.name"),
    "a modality that is internal": (_at("modality", "name", value="_base"), "modality.name"),
    "a task with parameters that it has not": (_at("task", "parameters", value={"x" * 10**6: [1]}), "no parameter"),
    "a task whose parameters are a list": (_at("task", "parameters", value=[1]), "parameters"),
    "a task that nobody has": (_at("task", "name", value="divination"), "'divination'"),
    "a task of megabytes": (_at("task", "name", value="x" * 5_000_000), "task.name"),
    "logits of another rank": (_at("segments", 1, "outputs", 0, "shape", value=["batch", 2, 1, 1]), "final_outputs"),
    "logits without axes": (_at("segments", 1, "outputs", 0, "shape", value=[]), "final_outputs"),
    "logits of other classes": (_at("outputs", value=["a", "b", "c"]), "exit1_outputs"),
    "logits of another type": (_at("segments", 1, "outputs", 0, "dtype", value="float16"), "is float16"),
    "a type that no backend knows": (_at("segments", 0, "outputs", 1, "dtype", value="complex128"), "dtype"),
    "a type of megabytes": (_at("segments", 0, "outputs", 1, "dtype", value="f" * 5_000_000), "dtype"),
    "no classes": (_at("outputs", value=[]), "outputs"),
    "two classes of one name": (_at("outputs", value=["a", "a"]), "two outputs have one name"),
    "a class without a name": (_at("outputs", value=["a", ""]), "outputs.1"),
    "a class with a name of megabytes": (_at("outputs", value=["a", "b" * 5_000_000]), "outputs.1"),
    "a graph without inputs": (_at("segments", 0, "inputs", value=[]), "no inputs"),
}


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_no_parameter_is_infinite_or_no_number(number: float) -> None:
    @dataclass(frozen=True)
    class Scaled(Classification):
        scale: float = 1.0

    @dataclass(frozen=True)
    class Levelled(Image):
        level: float = 1.0

    with pytest.raises(ValidationError, match="finite number"):
        TypeAdapter(Scaled).validate_python({"outputs": ("a", "b"), "scale": number})
    given = {"preprocess": {"channels": 1, "mean": [0.5], "std": [0.5]}, "shape": [1, 4, 4]}
    assert TypeAdapter(Levelled).validate_python({**given, "level": 2}).level == 2
    with pytest.raises(ValidationError, match="finite number"):
        TypeAdapter(Levelled).validate_python({**given, "level": number})


def test_a_decision_has_the_type_of_the_tasks_targets(tiny_artifact: Callable[..., Path]) -> None:
    path = tiny_artifact()
    reseal(path, _at("segments", 0, "outputs", -1, "dtype", value="uint8"))
    refused(path, "exit1_decision", "is uint8", "int64 ['batch']")


@pytest.mark.parametrize(("change", "word"), LENGTHS.values(), ids=LENGTHS.keys())
def test_arrays_are_as_long_as_what_they_speak_of(artifact: Path, change: Any, word: str) -> None:
    reseal(artifact, change)
    refused(artifact, word)


def test_the_policy_that_the_cases_above_change_is_a_right_one(artifact: Path) -> None:
    reseal(artifact, _times())
    assert open_artifact(artifact).manifest.policy is not None


def test_one_graph_gives_what_every_caller_asks_it_for(artifact: Path) -> None:
    fields = json.loads((artifact / "manifest.json").read_text())
    first = {**fields["segments"][0], "outputs": fields["segments"][1]["outputs"]}
    rest = {
        "kind": "graph",
        "samples": 1,
        "batches": [1],
        "whole_validation_split": False,
        "max_abs_diff": 0,
        "near_threshold": 0,
        "machine": "",
        "busy_cores": 0,
        "mean_ms": 1.0,
        "segments_ms": 1.0,
    }
    assert {*first, *rest, "times"} == set(OneGraph.model_fields)
    _policy()(fields)
    reseal(artifact, lambda kept: kept.update(policy=fields["policy"], one_graph={**first, **rest, "times": []}))
    refused(artifact, "exit_index")


def test_one_name_listed_twice_is_checked_twice(artifact: Path) -> None:
    def forge(fields: dict[str, Any]) -> None:
        fields["segments"][0] |= {"file": fields["segments"][1]["file"]}

    reseal(artifact, forge)
    (artifact / "segment-0.onnx").unlink()
    refused(artifact, "segment-1.onnx")


@pytest.mark.parametrize("call", ["os.scandir", "sdcompress.artifact.read.sha256_of"])
def test_what_may_not_be_read_is_said(artifact: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def forbidden(path: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(call, forbidden)
    refused(artifact, "cannot be read: Permission denied", "permissions")
