"""Each verb does its work and, with --json, writes one JSON value to stdout and everything else to stderr."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import sdcompress
from sdcompress import recipes, registry
from sdcompress.artifact.read import open_artifact
from sdcompress.checkpoint import Checkpoint, open_checkpoint
from sdcompress.cli.calibrate import _merging as merging
from sdcompress.cli.export import show_use
from sdcompress.cli.train import _show_checkpoint
from sdcompress.methods import ROOM as METHODS
from sdcompress.schema.explain import Explanation
from sdcompress.schema.manifest import Manifest, Tensor
from sdcompress.schema.recipe import MethodSection, Recipe
from sdcompress.schema.report import BenchReport, Evaluation, Report, SampleSizePlan, VerifyReport
from sdcompress.verbs.list_entries import ROOMS

EXITS = ["exit1", "exit2", "final"]


@pytest.fixture(scope="session")
def bench_file(cli, made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = ["--samples", "golden", "--duration", "100ms", "--warmup", "1ms", "--rounds", "5"]
    done = cli("bench", made.cascade, *options, "--scenario", "single-stream", "--json")
    assert done.code == 0, done.err
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    path.write_text(done.out, encoding="utf-8")
    return path


def test_train(made) -> None:
    told = json.loads(made.trained.out)
    assert (told["epoch"], told["step"], told["samples"], told["finished"]) == (1, 5, 160, True)
    assert Path(told["checkpoint"]).parent.parent == Path(told["run"]) == made.train
    assert "epoch   1" in made.trained.err
    assert "5/5" in made.trained.err


def test_train_tells_a_person_what_to_type_next(cli, made, recipe: Path) -> None:
    done = cli("train", "-c", recipe, "--out", made.train)  # finished: told again at once
    assert f"next: sdcompress evaluate {made.train}" in done.out
    assert f"sdcompress export {made.train} --layout cascade --out artifacts/byot-cascade" in done.out
    assert "1 epochs, 5 steps" in done.out


@pytest.mark.parametrize(("method", "layout"), [("baseline", "single"), ("eed+ps_kd", "cascade")])
def test_a_network_without_exits_is_exported_whole(
    capsys: pytest.CaptureFixture[str], method: str, layout: str
) -> None:
    """A cascade of one exit could not be calibrated."""
    recipe = Recipe(method=MethodSection(name=method))
    state = SimpleNamespace(epoch=1, step=5, samples=160, extensions=(), recipe=recipe)
    _show_checkpoint(SimpleNamespace(path=Path("my run/steps/00000005"), state=state), as_json=False)  # type: ignore[arg-type]
    command = f"sdcompress export 'my run' --layout {layout} --out artifacts/{method}-{layout}"
    assert command in capsys.readouterr().out


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluate_checkpoint_and_artifact_agree(cli, made, split: str) -> None:
    ours, theirs = (
        Evaluation.model_validate_json(cli("evaluate", folder, "--split", split, "--json").out)
        for folder in (made.train, made.cascade)
    )
    assert [score.name for score in ours.exits] == [*EXITS, "ensemble"]
    assert (ours.kind, theirs.kind, ours.split) == ("checkpoint", "artifact", split)
    assert [s.metric for s in ours.exits] == [s.metric for s in theirs.exits]
    np.testing.assert_allclose(
        [s.further["nll"] for s in ours.exits], [s.further["nll"] for s in theirs.exits], rtol=1e-4
    )


def test_export_cascade(made) -> None:
    manifest = json.loads(made.exported.out)
    assert manifest.pop("artifact") == str(made.cascade)
    assert [exit_["name"] for exit_ in manifest["exits"]] == EXITS
    assert Manifest.model_validate(manifest).layout == "cascade"
    assert "export" in made.exported.err


def test_export_truncates_at_one_exit_and_shows_how_to_run_it(cli, made, tmp_path: Path) -> None:
    done = cli("export", made.train, "--layout", "single", "--truncate-at", "exit1", "--out", tmp_path / "small")
    assert done.code == 0, done.err
    assert f'sdcompress.open("{tmp_path / "small"}")' in done.out
    folders = (tmp_path / "small", made.cascade)
    small, whole = (Manifest.model_validate_json((path / "manifest.json").read_text()) for path in folders)
    assert [exit_.name for exit_ in small.exits] == ["exit1"]
    assert small.segments[0].macs == whole.segments[0].macs
    # the lines that were shown, on an image
    engine = sdcompress.open(tmp_path / "small")
    assert engine(engine.preprocess([np.zeros((16, 16, 1), np.uint8)])).outputs.shape == (1, 10)


def test_calibrate_writes_a_policy(cli, made, tmp_path: Path) -> None:
    done = cli("calibrate", made.cascade, "--max-drop", "0.7%", "--out", tmp_path / "early", "--json")
    policy = json.loads(done.out)["policy"]
    assert policy["max_drop"] == 0.007  # to the last digit: drops are counted exactly
    assert policy["metric"] >= policy["reference_metric"] - 0.007
    assert json.loads(cli("inspect", tmp_path / "early", "--json").out)["policy"] == policy
    assert "policy: max_prob" in cli("inspect", tmp_path / "early").out


def test_calibrate_names_the_command_that_merges_a_cascade_that_exits_early(
    tiny_artifact: Callable[..., Path],
) -> None:
    def named(layout: str, *thresholds: float, **fields: str) -> str:
        path = tiny_artifact(layout, policy=thresholds, name=f"{layout}-{thresholds}-{len(fields)}", **fields)
        return merging(open_artifact(path).manifest, Path("an early exit"), Path("d"))

    merge = "sdcompress export 'an early exit' --layout if --out FOLDER --data-dir d"
    assert named("cascade", 2.0, 0.8) == merge
    assert named("cascade", 2.0, 2.0) == ""
    assert named("all", 0.9, 0.8) == ""
    assert named("cascade", 0.9, 0.8, backend="openvino") == ""


def test_verify(cli, made) -> None:
    found = VerifyReport.model_validate_json(cli("verify", made.cascade, "--json").out)
    assert [verdict.name for verdict in found.exits] == EXITS
    assert "verified" in cli("verify", made.cascade).out


def test_inspect_shows_the_manifest(cli, made) -> None:
    done = cli("inspect", made.cascade, "--json")
    assert json.loads(done.out) == json.loads((made.cascade / "manifest.json").read_text())
    assert not done.err
    shown = cli("inspect", made.cascade).out
    assert all(word in shown for word in [*EXITS, "MACs", json.loads(done.out)["digest"]])


def test_bench(cli, made, bench_file: Path) -> None:
    found = BenchReport.model_validate_json(bench_file.read_text())
    (record,) = found.records
    assert (record.name, record.scenario, record.batch) == ("cascade", "single-stream", 1)
    assert found.command.startswith(f"sdcompress bench {made.cascade}")


def test_report(cli, made, bench_file: Path, tmp_path: Path) -> None:
    scored = tmp_path / "evaluation.json"
    scored.write_text(cli("evaluate", made.cascade, "--json").out, encoding="utf-8")
    inputs = ["--bench", bench_file, "--evaluation", scored, "--title", "Tiny & small"]
    done = cli("report", made.cascade, *inputs, "--out", tmp_path / "report", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    scores = Evaluation.model_validate_json(scored.read_text()).exits
    accuracy = next(score.metric for score in scores if score.name == "final")
    assert (told["title"], told["rows"][0]["name"]) == ("Tiny & small", "cascade")
    assert told["rows"][0]["test_metric"] == accuracy
    written = Report.model_validate_json((tmp_path / "report" / "report.json").read_text())
    assert written.rows[0].test_metric == accuracy
    assert "Tiny &amp; small" in (tmp_path / "report" / "report.html").read_text()


def test_list_names_what_the_rooms_hold(cli) -> None:
    told = json.loads(cli("list", "--json").out)
    assert list(told["methods"]) == registry.names(METHODS)
    assert set(told) == {*ROOMS, "recipes", "keys"}
    shown = cli("list", "methods").out
    assert all(text and f"{name} " in shown and text in shown for name, text in told["methods"].items())
    assert "heads:" not in shown


def test_doctor(cli) -> None:
    done = cli("doctor", "--json")
    told = json.loads(done.out)
    assert told["machine"]["cores"] >= 1
    assert {"core", "train", "export"} <= {extra["name"] for extra in told["extras"]}
    assert told["machine"]["cpu"] in cli("doctor").out


def test_run_does_all_of_it_and_a_second_time_only_tells(cli: Callable, recipe: Path, tmp_path: Path) -> None:
    arguments = ["run", recipe, "--out", tmp_path / "run", "--set", "export.truncate_at=[exit1, final]", "--json"]
    first, second = cli(*arguments), cli(*arguments)
    assert first.code == second.code == 0, first.err
    told = json.loads(first.out)
    assert [row["name"] for row in told["rows"]] == ["byot-exit1", "byot-final", "byot-early-exit"]
    assert "bench" in first.err
    assert (tmp_path / "run" / "report" / "report.html").is_file()
    assert not any(word in second.err for word in ("epoch", "export", "calibrate", "evaluate", "bench"))
    assert {k: v for k, v in json.loads(second.out).items() if k != "created"} == {
        k: v for k, v in told.items() if k != "created"
    }
    sure = cli(*arguments, "--set", "calibrate.confidence=0.9", "--set", "calibrate.max_drop=0.4")
    assert "epoch" not in sure.err  # nothing is trained again
    assert [row["guarantee"] for row in told["rows"]] == [None, None, "none"]
    guarantee = json.loads(sure.out)["rows"][-1]["guarantee"]
    assert guarantee in {"at most 40 %, 90 % sure", "no certificate"}


@pytest.fixture(scope="session")
def certified(cli, made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("certified") / "early"
    wish = [
        "--max-drop",
        "40%",
        "--confidence",
        "90%",
        "--extra-drop",
        "30%",
    ]  # one epoch of training: its exits differ
    done = cli("calibrate", made.cascade, *wish, "--out", out, "--json")
    assert done.code == 0, done.err
    manifest = Manifest.model_validate({k: v for k, v in json.loads(done.out).items() if k != "artifact"})
    assert manifest.certificate is not None
    assert manifest.certificate.confidence == 0.9
    assert [level.max_drop for level in manifest.certificate.levels] == [0.3, 0.4]
    return out


def test_a_certificate_against_another_artifact_names_it_everywhere(cli, made, tmp_path: Path) -> None:
    before = open_artifact(made.cascade).manifest.digest[:12]
    wish = ["--reference", made.cascade, "--max-drop", "40%", "--confidence", "90%"]
    done = cli("calibrate", made.cascade, *wish, "--out", tmp_path / "early")
    assert done.code == 0, done.err
    for verb in ("inspect", "verify"):
        shown = " ".join(cli(verb, tmp_path / "early").out.split())
        assert f"compared with the last exit of the artifact {before}" in shown
    assert f"the last exit of the artifact {before}" in (tmp_path / "early" / "README.md").read_text(encoding="utf-8")


def test_a_certificate_is_verified_inspected_and_reported(cli, certified: Path, tmp_path: Path) -> None:
    verified = VerifyReport.model_validate_json(cli("verify", certified, "--json").out)
    assert verified.certificate is not None
    assert verified.certificate.tests >= 2
    assert "were repeated with the same result" in cli("verify", certified).out
    shown = cli("inspect", certified).out
    assert "at most 40.00%" in shown
    assert "confidence 0.9" in shown
    done = cli("report", certified, "--out", tmp_path / "report", "--json")
    assert json.loads(done.out)["rows"][0]["guarantee"] in {"at most 40 %, 90 % sure", "no certificate"}
    assert "guaranteed drop" in (tmp_path / "report" / "report.md").read_text()


def test_a_promise_for_every_exit_and_one_that_is_none_are_told_apart(cli, made, tmp_path: Path) -> None:
    wish = ["--max-drop", "60%", "--out", tmp_path / "early", "--overwrite"]
    shown = cli("calibrate", made.cascade, *wish, "--confidence", "80%", "--group-by", "exit")
    assert shown.code == 0, shown.err
    assert "accuracy drop of the samples up to each exit" in shown.out
    assert "of the samples up to each exit" in cli("verify", tmp_path / "early").out
    shown = cli("calibrate", made.cascade, *wish, "--in-expectation")
    assert shown.code == 0, shown.err
    assert "guarantee: in expectation" in shown.out
    assert "certificate" not in cli("inspect", tmp_path / "early").out
    planned = cli(
        "calibrate", made.cascade, "--plan", "--max-drop", "60%", "--confidence", "80%", "--group-by", "stratum"
    )
    assert "in every class" in planned.out
    assert "The smallest class is '" in planned.out


def test_a_plan_writes_nothing(cli, made) -> None:
    before = sorted(made.cascade.parent.iterdir())
    wish = ["--plan", "--max-drop", "30%", "--confidence", "0.9"]
    told = SampleSizePlan.model_validate_json(cli("calibrate", made.cascade, *wish, "--json").out)
    assert (told.max_drop, told.confidence) == (0.3, 0.9)
    assert f"fewer than {told.minimum_samples} are refused" in cli("calibrate", made.cascade, *wish).out
    assert sorted(made.cascade.parent.iterdir()) == before


def test_export_one_graph_of_a_cascade_and_inspect_it(cli, one_graph_once, tmp_path: Path) -> None:
    done = cli("export", one_graph_once("cascade"), "--layout", "graph", "--out", tmp_path / "graph")
    assert done.code == 0, done.err
    assert f'onnxruntime.InferenceSession("{tmp_path / "graph" / "model.onnx"}")' in done.out
    assert 'session.run(None, {"input": input})' in done.out
    shown = cli("inspect", tmp_path / "graph").out
    assert "model.onnx (graph): one sample, one thread" in shown
    assert "same exits and decisions as the segments on 16 samples in batches of 1, 2, 7, 32 (0 undecided)" in shown
    assert "model.onnx: same exits and decisions" in cli("verify", tmp_path / "graph").out


def test_the_lines_that_run_one_graph_feed_all_inputs(one_graph_once, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = open_artifact(one_graph_once("graph")).manifest
    names = ("input_ids", "attention_mask")
    inputs = tuple(Tensor(name=name, dtype="int64", shape=("batch", "sequence")) for name in names)
    one_graph = manifest.one_graph.model_copy(update={"inputs": inputs})
    show_use(manifest.model_copy(update={"one_graph": one_graph}), Path("texts"))
    feed = '{"input_ids": input_ids, "attention_mask": attention_mask}'
    assert f"session.run(None, {feed})" in capsys.readouterr().out


def test_export_one_graph_of_a_checkpoint_says_what_to_type(cli, made, tmp_path: Path) -> None:
    done = cli("export", made.train, "--layout", "if", "--out", tmp_path / "if")
    assert done.code == 2
    for word in ("--layout cascade", "sdcompress calibrate", "--layout if"):
        assert word in " ".join(done.err.split())
    assert cli("export", tmp_path, "--layout", "if", "--out", tmp_path / "if").code == 4  # neither


def test_bench_measures_the_one_graph_beside_its_cascade(cli, one_graph_once) -> None:
    options = ["--samples", "golden", "--duration", "50ms", "--warmup", "1ms", "--rounds", "5", "--batch-size", "4"]
    for kind, expected in (("graph", [("graph", 1), ("graph", 4)]), ("if", [("if", 1)])):
        done = cli("bench", one_graph_once(kind), *options, "--json")
        assert done.code == 0, done.err
        report = BenchReport.model_validate_json(done.out)
        names = {record.name for record in report.records}
        assert names == {kind, f"{kind} (one graph)"}
        ours = [record for record in report.records if record.name.endswith("(one graph)")]
        assert [(record.layout, record.batch) for record in ours] == expected
        assert all(not record.exits and record.worst_path is None for record in ours)
        chain = next(record for record in report.records if record.name == kind)
        assert {record.digest for record in ours} != {chain.digest}
        assert {ratio.reference for ratio in report.comparisons} == {kind}


def test_export_an_ensemble(cli, made, tmp_path: Path) -> None:
    done = cli("export", made.train, "--ensemble", "geometric", "--out", tmp_path / "ensemble", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["provenance"]["recipe"]["export"]["ensemble"] == "geometric"
    first, alone = told["exits"][0]["metrics"], json.loads(made.exported.out)["exits"][0]["metrics"]
    assert first == pytest.approx(alone, abs=1e-6)  # no exit before it


def test_an_ensemble_of_the_recipe_is_switched_off(cli, made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipes.read(open_checkpoint(made.train).recipe, ["export.ensemble=geometric"])
    monkeypatch.setattr(Checkpoint, "recipe", recipe)
    done = cli("export", made.train, "--no-ensemble", "--out", tmp_path / "alone", "--json")
    assert done.code == 0, done.err
    told, alone = json.loads(done.out), json.loads(made.exported.out)
    assert told["provenance"]["recipe"]["export"]["ensemble"] is None
    assert [exit_["metrics"] for exit_ in told["exits"]] == [exit_["metrics"] for exit_ in alone["exits"]]
    both = cli("export", made.train, "--ensemble", "geometric", "--no-ensemble", "--out", tmp_path / "both")
    assert both.code == 2
    assert "Both --ensemble and --no-ensemble are given." in both.err


def test_export_two_exits_to_an_older_opset_and_calibrate_them(cli, made, tmp_path: Path) -> None:
    done = cli("export", made.train, "--keep-exits", "exit2", "--opset", "16", "--out", tmp_path / "two", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert [exit_["name"] for exit_ in told["exits"]] == ["exit2", "final"]
    settings = told["provenance"]["recipe"]["export"]
    assert (settings["opset"], settings["keep_exits"]) == (16, ["exit2"])
    assert cli("verify", tmp_path / "two").code == 0
    done = cli("calibrate", tmp_path / "two", "--max-drop", "5%", "--out", tmp_path / "early", "--json")
    assert len(json.loads(done.out)["policy"]["thresholds"]) == 1


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns that are too short to trust, and short enough for a test."""
    monkeypatch.setattr("sdcompress.explaining.timing._SECONDS", 0.01)


@pytest.mark.usefixtures("quick")
def test_explain_a_policy(cli, made, tmp_path: Path) -> None:
    assert cli("calibrate", made.cascade, "--max-drop", "5%", "--out", tmp_path / "early").code == 0
    done = cli("explain", tmp_path / "early", "--out", tmp_path / "why", "--json")
    assert done.code == 0, done.err
    found = Explanation.model_validate_json(done.out)
    assert sorted(path.name for path in (tmp_path / "why").iterdir()) == ["explain.html", "explain.json", "explain.md"]
    assert Explanation.model_validate_json((tmp_path / "why" / "explain.json").read_text()) == found
    scored = Evaluation.model_validate_json(cli("evaluate", tmp_path / "early", "--json").out)
    assert [exit_.metric for exit_ in found.exits] == [score.metric for score in scored.exits[:3]]
    assert found.policy is not None
    assert scored.policy is not None
    # what is worked out from the scores is what the engine does
    assert found.policy.point.metric == pytest.approx(scored.policy.metric)
    assert found.policy.point.shares == pytest.approx(scored.policy.shares)
    assert found.policy.verdict in {"wins", "no difference", "loses"}
    assert (found.split, found.curve_split, found.samples) == ("test", "validation", 160)
    assert found.command.startswith(f"sdcompress explain {tmp_path / 'early'}")
    again = cli("explain", tmp_path / "early", "--out", tmp_path / "why")
    assert again.code == 2
    assert "add --overwrite" in again.err


@pytest.mark.usefixtures("quick")
def test_explain_tells_a_person_what_it_found(cli, made, tmp_path: Path) -> None:
    done = cli("explain", made.cascade, "--split", "validation", "--out", tmp_path / "why")
    assert done.code == 0, done.err
    for said in ("no policy yet", "sdcompress calibrate", "on the same validation samples", "explain.html"):
        assert said in done.out


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("layout", "said"), [("all", "early exit saves nothing"), ("single", "The only exit, final,")])
def test_explain_what_cannot_leave_early(cli, made, tmp_path: Path, layout: str, said: str) -> None:
    assert cli("export", made.train, "--layout", layout, "--out", tmp_path / layout).code == 0
    done = cli("explain", tmp_path / layout, "--out", tmp_path / "why")
    assert done.code == 0, done.err
    assert said in done.out


def test_explain_refuses_a_checkpoint_and_names_what_to_export(cli, made, tmp_path: Path) -> None:
    done = cli("explain", made.train, "--out", tmp_path / "why")
    assert done.code == 2
    assert f"next: sdcompress export {made.train} --layout cascade" in done.err
    assert not (tmp_path / "why").exists()


def test_a_plan_takes_nothing_that_only_a_calibration_uses(cli: Callable, tmp_path: Path) -> None:
    done = cli("calibrate", tmp_path, "--plan", "--budget", "3ms", "--in-expectation", "--reference", tmp_path)
    assert done.code == 2
    assert "--budget, --in-expectation, --reference cannot be given" in " ".join(done.err.split())
