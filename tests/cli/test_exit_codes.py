"""Exit codes that scripts rely on (sdcompress.errors), each from a state that a user can get into."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from sdcompress import errors
from sdcompress.errors import SetupError
from sdcompress.storage import digest_of
from sdcompress.tensorrt.nvidia.gpu_query import probe_cuda


@pytest.fixture
def cascade(made, tmp_path: Path) -> Path:
    """An artifact that a test may spoil."""
    return Path(shutil.copytree(made.cascade, tmp_path / "cascade"))


@pytest.fixture
def trained(made, tmp_path: Path) -> Path:
    """A training run that a test may spoil."""
    return Path(shutil.copytree(made.train, tmp_path / "train"))


def refused(done, code: int, *words: str) -> None:
    assert done.code == code, done.err
    assert all(word in done.err for word in words), done.err
    assert done.err.count("error: ") == 1
    assert "Traceback" not in done.err
    assert not done.out


@pytest.mark.parametrize("verb", ["verify", "inspect", "evaluate", "bench"])
def test_an_edited_manifest_is_4(cli, cascade: Path, verb: str) -> None:
    path = cascade / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["exits"][0]["temperature"] = 2.0
    path.write_text(json.dumps(manifest))
    refused(cli(verb, cascade), 4, str(cascade), "digest")


@pytest.mark.parametrize("verb", ["verify", "inspect", "evaluate", "bench"])
def test_one_changed_bit_of_a_segment_is_4(cli, cascade: Path, verb: str) -> None:
    segment = next(cascade.glob("*.onnx"))
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    refused(cli(verb, cascade), 4, segment.name)


@pytest.mark.parametrize("verb", ["export", "evaluate"])
@pytest.mark.parametrize("damage", ["cut short", "changed", "gone"])
def test_a_corrupt_checkpoint_is_4(cli, trained: Path, tmp_path: Path, verb: str, damage: str) -> None:
    (weights,) = trained.rglob("weights.safetensors")
    content = weights.read_bytes()
    if damage == "gone":
        weights.unlink()
    else:
        weights.write_bytes(content[:-100] if damage == "cut short" else content[:-1] + bytes([content[-1] ^ 1]))
    out = tmp_path / "artifact"
    refused(cli(verb, trained, *(["--out", out] if verb == "export" else [])), 4, "weights.safetensors", "next: ")
    assert not out.exists()


def test_a_folder_that_is_nothing_is_4_and_says_what_was_expected(cli, tmp_path: Path) -> None:
    refused(cli("inspect", tmp_path), 4, "allowed: ")
    refused(cli("evaluate", tmp_path / "none"), 4, "allowed: ")
    refused(cli("export", tmp_path / "none", "--out", tmp_path / "out"), 4, "allowed: ")


def test_an_export_that_cannot_keep_its_tolerance_is_4_and_no_artifact(cli, recipe: Path, tmp_path: Path) -> None:
    strict = ["--set", "export.atol=1e-12", "--set", "export.rtol=1e-12"]  # float32 itself is a million times coarser
    assert cli("train", "-c", recipe, *strict, "--out", tmp_path / "train").code == 0
    done = cli("export", tmp_path / "train", "--layout", "single", "--out", tmp_path / "out" / "artifact")
    refused(done, 4, "final", "artifact.failed")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["artifact.failed"]
    refused(cli("verify", tmp_path / "out" / "artifact.failed"), 4)


@pytest.mark.parametrize(
    "arguments",
    [["export", "{train}", "--out", "{out}"], ["calibrate", "{cascade}", "--out", "{out}"]],
    ids=["export", "calibrate"],
)
def test_an_artifact_that_is_there_is_2_and_kept_unless_overwritten(cli, made, cascade: Path, arguments) -> None:
    there = {"train": made.train, "cascade": made.cascade, "out": cascade}
    command = [word.format(**there) for word in arguments]
    before = (cascade / "manifest.json").stat().st_ino
    refused(cli(*command), 2, str(cascade), "--overwrite")
    assert (cascade / "manifest.json").stat().st_ino == before
    assert cli(*command, "--overwrite").code == 0
    assert (cascade / "manifest.json").stat().st_ino != before
    assert cli("verify", cascade).code == 0


def test_overwrite_never_removes_what_is_no_artifact(cli, made, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    refused(cli("export", made.train, "--out", tmp_path, "--overwrite"), 2, str(tmp_path))
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_training_run_of_another_recipe_is_2_and_names_the_key(cli, trained: Path, recipe: Path) -> None:
    other = ["train", "-c", recipe, "--out", trained, "--set", "train.batch_size=16"]
    refused(cli(*other), 2, "train.batch_size: 32 -> 16", "--overwrite")
    done = cli(*other, "--overwrite", "--json")
    assert json.loads(done.out)["step"] == 10


def test_a_report_that_is_there_is_2(cli, made, tmp_path: Path) -> None:
    command = ["report", made.cascade, "--out", tmp_path / "report"]
    assert cli(*command).code == 0
    refused(cli(*command), 2, "--overwrite")
    assert cli(*command, "--overwrite").code == 0


MISTAKES = {
    "exit": (["export", "{train}", "--layout", "single", "--truncate-at", "exit3", "--out", "{out}"], "'exit2'"),
    "exits of a single": (
        ["export", "{train}", "--layout", "single", "--keep-exits", "exit1", "--out", "{out}"],
        "--truncate-at",
    ),
    "exits to keep": (["export", "{train}", "--keep-exits", "exit11", "--out", "{out}"], "'exit1'"),
    "the last exit alone": (["export", "{train}", "--keep-exits", "final", "--out", "{out}"], "exit1, exit2"),
    "an exit twice": (
        ["export", "{train}", "--keep-exits", "exit1", "--keep-exits", "exit1", "--out", "{out}"],
        "once",
    ),
    "exits of one graph": (
        ["export", "{cascade}", "--layout", "graph", "--keep-exits", "exit1", "--out", "{out}"],
        "exits",
    ),
    "an old opset": (["export", "{train}", "--opset", "15", "--out", "{out}"], "16"),
    "exit of a cascade": (["export", "{train}", "--truncate-at", "exit1", "--out", "{out}"], "single"),
    "opset": (["export", "{train}", "--opset", "3", "--out", "{out}"], "16"),
    "drop": (["calibrate", "{cascade}", "--max-drop", "two", "--out", "{out}"], "--max-drop 1%"),
    "drop of one what": (["calibrate", "{cascade}", "--max-drop", "1", "--out", "{out}"], "--max-drop 1%"),
    "confidence": (["calibrate", "{cascade}", "--confidence", "sure", "--out", "{out}"], "--confidence 95%"),
    "little confidence": (["calibrate", "{cascade}", "--confidence", "30%", "--out", "{out}"], "greater than or equal"),
    "no drop, surely": (
        ["calibrate", "{cascade}", "--max-drop", "0%", "--confidence", "95%", "--out", "{out}"],
        "cannot be certified",
    ),
    "more than the images tell": (
        ["calibrate", "{cascade}", "--max-drop", "0.1%", "--confidence", "95%", "--out", "{out}"],
        "too few to certify",
    ),
    "a budget without its unit": (
        ["calibrate", "{cascade}", "--confidence", "95%", "--budget", "3", "--out", "{out}"],
        "200ms",
    ),
    "a budget without a confidence": (["calibrate", "{cascade}", "--budget", "3ms", "--out", "{out}"], "confidence"),
    "a plan without a confidence": (["calibrate", "{cascade}", "--plan"], "--confidence 95%"),
    "groups without a confidence": (["calibrate", "{cascade}", "--group-by", "exit", "--out", "{out}"], "confidence"),
    "classes without labels": (
        ["calibrate", "{cascade}", "--confidence", "95%", "--group-by", "stratum", "--unlabelled", "--out", "{out}"],
        "exclude each other",
    ),
    "a class with too few": (
        [
            "calibrate",
            "{cascade}",
            "--max-drop",
            "10%",
            "--confidence",
            "95%",
            "--group-by",
            "stratum",
            "--out",
            "{out}",
        ],
        "of every class",
    ),
    "images with labels": (
        ["calibrate", "{cascade}", "--confidence", "95%", "--samples", "{train}", "--out", "{out}"],
        "--unlabelled",
    ),
    "a folder without images": (
        ["calibrate", "{cascade}", "--confidence", "95%", "--unlabelled", "--samples", "{train}", "--out", "{out}"],
        "--samples FOLDER",
    ),
    "both kinds of promise": (
        ["calibrate", "{cascade}", "--confidence", "95%", "--in-expectation", "--out", "{out}"],
        "choose one",
    ),
    "nowhere to write": (["calibrate", "{cascade}"], "--out FOLDER"),
    "unit": (["bench", "{cascade}", "--duration", "10"], "10s"),
    "scenario": (["bench", "{cascade}", "--scenario", "server"], "single-stream"),
    "reference": (["bench", "{cascade}", "--reference", "cascad", "--samples", "golden"], "'cascade'"),
    "device": (["bench", "{cascade}", "--device", "tpu"], "cuda"),
    "two of one name": (["report", "{cascade}", "{cascade}", "--out", "{out}"], "different names"),
    "two of one name in turn": (["bench", "{cascade}", "{cascade}", "--samples", "golden"], "name"),
    "evaluation": (["report", "{cascade}", "--evaluation", "{cascade}/manifest.json", "--out", "{out}"], "evaluate"),
    "bench file": (["report", "{cascade}", "--bench", "nothing.json", "--out", "{out}"], "bench"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_wrong_option_is_2_and_answered_with_a_right_one(cli, made, tmp_path: Path, what: str) -> None:
    arguments, right = MISTAKES[what]
    there = {"train": made.train, "cascade": made.cascade, "out": tmp_path / "out"}
    refused(cli(*(word.format(**there) for word in arguments)), 2, right, "next: ")
    assert not (tmp_path / "out").exists()


def test_an_edited_certificate_is_4_and_runs_only_when_told(cli, made, tmp_path: Path) -> None:
    """Thresholds that let everybody go, with a digest that fits again."""
    out = tmp_path / "early"
    assert cli("calibrate", made.cascade, "--max-drop", "30%", "--confidence", "90%", "--out", out).code == 0
    path = out / "manifest.json"
    fields = json.loads(path.read_text())
    fields["policy"] |= {"thresholds": [0.0, 0.0], "guarantee": "certified"}
    fields["digest"] = digest_of({name: value for name, value in fields.items() if name != "digest"})
    path.write_text(json.dumps(fields))
    for verb in (["verify", out], ["evaluate", out], ["bench", out, "--samples", "golden"]):
        refused(cli(*verb), 4, "not among those that are certified", "allowed: ", "next: ")
    told = cli("evaluate", out, "--allow-uncertified", "--json")
    assert json.loads(told.out)["policy"]["shares"] == [1.0, 0.0, 0.0]


def test_a_device_that_is_not_there_is_3(cli, made) -> None:
    refused(cli("evaluate", made.cascade, "--device", "tpu"), 3, "'tpu'", "allowed: cpu")


def test_tensorrt_without_a_driver_is_3_and_says_what_runs_the_artifact(cli, made, tmp_path: Path) -> None:
    try:
        probe_cuda()
    except SetupError:
        pass
    else:
        pytest.skip("there is a GPU here")
    gpu = ("--backend", "tensorrt", "--device", "cuda")
    for verb in (
        ["evaluate", made.cascade],
        ["bench", made.cascade, "--samples", "golden"],
        ["calibrate", made.cascade, "--out", tmp_path / "out"],
        ["calibrate", made.cascade, "--plan", "--confidence", "95%", "--max-drop", "50%"],
    ):
        refused(cli(*verb, *gpu), 3, "driver", "onnxruntime")
    assert not (tmp_path / "out").exists()
    refused(cli("evaluate", made.cascade, "--backend", "tensorrt"), 3, "no device 'cpu'", "--device cuda")


def test_a_backend_that_does_not_exist_or_does_not_fit_is_2(cli, made) -> None:
    refused(cli("evaluate", made.cascade, "--backend", "tensort"), 2, "Did you mean 'tensorrt'?")
    refused(cli("evaluate", made.train, "--backend", "tensorrt"), 2, "is a checkpoint", "sdcompress export")


@pytest.mark.parametrize(
    ("file", "next_step"),
    [("net.onnx", "name the folder that 'sdcompress export' wrote"), ("net.pth", "--set model.weights=")],
)
def test_a_file_is_no_network_of_ours(cli, tmp_path: Path, file: str, next_step: str) -> None:
    (tmp_path / file).write_bytes(b"x")
    refused(cli("evaluate", tmp_path / file), 4, "a checkpoint is a folder", next_step)


def test_what_is_no_cascade_cannot_be_calibrated(cli, made, tmp_path: Path) -> None:
    assert cli("export", made.train, "--layout", "all", "--out", tmp_path / "all").code == 0
    refused(cli("calibrate", tmp_path / "all", "--out", tmp_path / "out"), 2, "--layout cascade")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["train", "run", "export", "calibrate", "report"])
def test_a_file_in_place_of_the_output_folder_is_no_traceback_and_is_kept(cli, made, recipe, tmp_path, verb) -> None:
    (tmp_path / "out").write_text("mine")
    what = {"train": ["-c", recipe], "run": [recipe], "export": [made.train]}.get(verb, [made.cascade])
    done = cli(verb, *what, "--out", tmp_path / "out", *([] if verb == "run" else ["--overwrite"]))
    refused(done, 2, str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "mine"


def test_what_typer_itself_refuses_is_2(cli, made) -> None:
    assert cli("exprot").code == 2
    assert cli("inspect", made.cascade, "--jsno").code == 2
    assert cli("evaluate", made.cascade, "--split", "train").code == 2


def test_data_that_changed_since_training_is_2(cli, made, tmp_path: Path) -> None:
    """A data set that is another one than was trained on must not be scored as if it were."""
    trained = Path(shutil.copytree(made.train, tmp_path / "other"))
    (state,) = trained.rglob("state.json")
    facts = json.loads(state.read_text())
    facts["data_fingerprint"] = "0" * 64
    facts["digest"] = digest_of({k: v for k, v in facts.items() if k != "digest"})
    state.write_text(json.dumps(facts))
    refused(cli("evaluate", trained), 2, "digits")


def test_calibration_on_data_that_may_have_been_trained_on_is_2(cli, made, tmp_path: Path) -> None:
    """The artifact of a network that was trained on other images, or on another split of the same."""
    cascade = Path(shutil.copytree(made.cascade, tmp_path / "cascade"))
    path = cascade / "manifest.json"
    whole = json.loads(path.read_text())
    for change in (
        lambda fields: fields["provenance"].update(data_fingerprint="0" * 64),
        lambda fields: fields["provenance"]["recipe"].update(seed=1),  # holds out other images
    ):
        fields = json.loads(json.dumps(whole))
        change(fields)
        fields["digest"] = digest_of({name: value for name, value in fields.items() if name != "digest"})
        path.write_text(json.dumps(fields))
        for wish in ([], ["--max-drop", "30%", "--confidence", "90%"], ["--max-drop", "30%", "--in-expectation"]):
            done = cli("calibrate", cascade, *wish, "--out", tmp_path / "out")
            refused(done, 2, "not the one that was trained on", "allowed: the same files and the same split")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stable", [True, False])
def test_a_measurement_that_cannot_be_trusted_is_5_where_that_is_asked_for(
    cli, made, monkeypatch, stable: bool
) -> None:
    monkeypatch.setattr("sdcompress.benchmarking.record.reasons", lambda *_, **__: [] if stable else ["other work"])
    quick = ["--samples", "golden", "--scenario", "single-stream", "--duration", "50ms", "--warmup", "1ms"]
    command = ["bench", made.cascade, *quick, "--rounds", "5", "--json"]
    assert cli(*command).code == 0
    done = cli(*command, "--require-stable")
    assert json.loads(done.out)["records"][0]["stable"] is stable  # what was measured is printed all the same
    assert done.code == (0 if stable else 5)
    assert stable or "1 of 1 measurements are not stable: other work" in done.err


def test_every_documented_exit_code_is_that_of_an_error_which_something_raises() -> None:
    """A code in the table that nothing gives is a promise to scripts that is not kept."""
    documented = set(re.findall(r"(\w+Error|Interrupted) +(\d+) ", errors.__doc__ or ""))
    assert ("BenchmarkError", "5") in documented
    package = Path(errors.__file__).parent
    text = "\n".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    for name, code in documented:
        kind = getattr(errors, name)
        assert kind.exit_code == int(code), name
        family = {kind, *(each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, kind))}
        assert any(re.search(rf"(?<!class )\b{each.__name__}\(|, {each.__name__}\)", text) for each in family), name


def test_a_file_that_ends_too_early_is_no_success(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typer takes an EOFError for the end of what a person types; its exit code is that of a pipe without a reader."""

    def ends(_folder: Path) -> None:
        raise EOFError("Compressed file ended before the end-of-stream marker was reached")

    monkeypatch.setattr("sdcompress.inspect", ends, raising=False)
    with pytest.raises(EOFError, match="Compressed file ended"):
        cli("inspect", "artifact")
