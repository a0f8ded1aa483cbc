"""A whole run in its folder: what is done is not done again, what changed is done again, and nothing else is."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from sdcompress import recipes
from sdcompress.artifact import read
from sdcompress.artifact.read import open_artifact
from sdcompress.data import assemble
from sdcompress.data.samples import Dataset
from sdcompress.errors import OutputExistsError, RecipeError
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.pipeline.run import run as run_pipeline
from sdcompress.schema.recipe import Recipe
from sdcompress.schema.report import Evaluation, Report

RECIPE = {
    "name": "tiny",
    "modality": {"image_size": 16},
    "data": {"name": "digits", "validation": 0.2, "train_limit": 96, "test_limit": 160},
    "exits": {"count": 1, "head": "linear"},
    "method": "byot",
    "controls": ["baseline"],
    "train": {"epochs": 1, "batch_size": 32, "device": "cpu"},
    "bench": {"scenarios": ["single-stream"], "warmup_ms": 1, "duration_s": 0.02, "rounds": 5},
}
ARTIFACTS = ["baseline-final", "byot-final", "byot-early-exit"]
STEPS = [
    "export baseline",
    "export byot",
    "calibrate byot-cascade",
    *(f"evaluate {name} on {split}" for name in ("baseline", "byot", *ARTIFACTS) for split in ("validation", "test")),
    "bench",
]


class Killed(BaseException):
    """The machine went down."""


class Watch:
    """What a run does, except training (which keeps its own record), its look at the data, and drawing the report.

    Args:
        patience: begin at most this many steps, then go down.
    """

    def __init__(self, patience: int = 1000) -> None:
        self.steps: list[str] = []
        self.patience = patience

    @contextmanager
    def __call__(self, what: str) -> Iterator[Callable[[int, int], None]]:
        counted = not what.startswith("train ") and what not in {"check the data", "report"}
        if counted and len(self.steps) == self.patience:
            raise Killed
        if counted:
            self.steps.append(what)
        yield lambda _done, _all: None


def go(out: Path, *settings: str, watch: Watch | None = None, **options: bool) -> tuple[list[str], Report]:
    watch = watch or Watch()
    made = run_pipeline(recipes.read(RECIPE, settings), out, step_progress=watch, **options)
    return watch.steps, made


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Which file it is and when it was written, for all but what is written each time."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "report")
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in paths
        if path != folder / "recipe.yaml"
    }


def changed(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> set[str]:
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def looked_at() -> Counter[str]:
    """How often the run below loads its data set, and hashes each file of an artifact."""
    return Counter()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, looked_at: Counter[str]) -> tuple[Path, list[str], Report]:
    out = tmp_path_factory.mktemp("first") / "run"
    load, sha256 = assemble.assemble, read.sha256_of

    def counted_load(*args: Any, **options: Any) -> Dataset:
        looked_at["the data set"] += 1
        return load(*args, **options)

    def counted_sha256(path: Path, *args: Any) -> str:
        looked_at[str(path)] += 1
        return sha256(path, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "assemble", counted_load)
        patch.setattr(read, "sha256_of", counted_sha256)
        return (out, *go(out))


@pytest.fixture
def done(first: tuple[Path, list[str], Report], tmp_path: Path) -> Path:
    """The folder of a run that is done, to be changed."""
    return Path(shutil.copytree(first[0], tmp_path / "run"))


def test_a_run_does_every_step_once_and_reports_what_it_measured(first: tuple[Path, list[str], Report]) -> None:
    out, steps, made = first
    assert steps == STEPS
    assert [row.name for row in made.rows] == ARTIFACTS
    assert made.reference == "baseline-final"
    assert recipes.read(out / "recipe.yaml") == recipes.read(RECIPE)
    assert Report.model_validate_json((out / "report" / "report.json").read_text()).rows == made.rows


@pytest.mark.usefixtures("first")
def test_a_run_loads_its_data_and_opens_each_artifact_once(looked_at: Counter[str]) -> None:
    assert looked_at["the data set"] == 1
    assert sum("manifest" not in name for name in looked_at) > 10
    assert set(looked_at.values()) == {1}


QUANTIZED = ("quantize.precisions=[uint8]", "quantize.max_drop=0.5")


@pytest.fixture(scope="module")
def quantized(
    first: tuple[Path, list[str], Report], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, tuple[int, int]], list[str], Report]:
    """The run with another precision: its folder, the files before, the steps and the report."""
    out = Path(shutil.copytree(first[0], tmp_path_factory.mktemp("quantized") / "run"))
    before = files(out)
    return out, before, *go(out, *QUANTIZED)


def test_precisions_are_added_to_a_run_beside_what_is_there(
    quantized: tuple[Path, dict[str, tuple[int, int]], list[str], Report],
) -> None:
    done, before, steps, made = quantized
    added = ["baseline-final-uint8", "byot-final-uint8", "byot-early-exit-uint8"]
    quantised = ["baseline-final-uint8", "byot-final-uint8", "byot-cascade-uint8"]
    assert [step for step in steps if step.startswith("quantize")] == [f"quantize {name}" for name in quantised]
    assert not [step for step in steps if step.startswith("export")]
    assert [row.name for row in made.rows] == [
        "baseline-final", "baseline-final-uint8", "byot-final", "byot-early-exit", "byot-final-uint8",
        "byot-early-exit-uint8",
    ]  # fmt: skip
    assert made.reference == "baseline-final"
    redone = {name for name in changed(before, files(done)) if name in before}
    assert redone <= {"bench.json", "steps.json"}
    manifests = {name: open_artifact(done / "artifacts" / name).manifest for name in added}
    assert {manifest.precisions for manifest in manifests.values()} == {("uint8",)}
    again, _ = go(done, *QUANTIZED)
    assert again == []


def test_what_a_precision_costs_counts_as_lost_by_leaving_early(
    quantized: tuple[Path, dict[str, tuple[int, int]], list[str], Report], tmp_path: Path
) -> None:
    """The certificate of the cascade in a lower precision is about the whole network in float32."""
    done = Path(shutil.copytree(quantized[0], tmp_path / "run"))
    go(done, *QUANTIZED, "calibrate.confidence=0.5", "calibrate.max_drop=0.9")
    whole = open_artifact(done / "artifacts" / "byot-cascade").manifest
    early = open_artifact(done / "artifacts" / "byot-early-exit-uint8").manifest
    assert early.certificate is not None
    assert early.certificate.reference == whole.digest
    plain = open_artifact(done / "artifacts" / "byot-early-exit").manifest
    assert plain.certificate is not None
    assert plain.certificate.reference is None


def test_evaluations_lie_under_plain_names(first: tuple[Path, list[str], Report]) -> None:
    stems = ["baseline", "byot", *ARTIFACTS]
    expected = {f"{stem}-{split}.json" for stem in stems for split in ("validation", "test")}
    assert {path.name for path in (first[0] / "evaluations").iterdir()} == expected
    for name in expected:
        found = Evaluation.model_validate_json((first[0] / "evaluations" / name).read_text())
        assert name.endswith(f"-{found.split}.json")
        assert found.digest == open_trained_model(found.source).digest


def test_a_second_run_touches_nothing(done: Path, first: tuple[Path, list[str], Report]) -> None:
    before = files(done)
    steps, made = go(done)
    assert steps == []
    assert not changed(before, files(done))
    assert [row.name for row in made.rows] == ARTIFACTS
    assert made.benches == first[2].benches


def test_another_drop_redoes_the_calibration_and_what_hangs_on_it(done: Path) -> None:
    before = files(done)
    steps, _ = go(done, "calibrate.max_drop=0.1")
    mine = [f"evaluate byot-early-exit on {split}" for split in ("validation", "test")]
    assert steps == ["calibrate byot-cascade", *mine, "bench"]
    redone = ("artifacts/byot-early-exit/", "evaluations/byot-early-exit-", "bench.json", "steps.json")
    assert changed(before, files(done))
    assert all(name.startswith(redone) for name in changed(before, files(done)))


def test_other_durations_redo_the_benchmark_alone(done: Path) -> None:
    before = files(done)
    assert go(done, "bench.duration_s=0.06")[0] == ["bench"]
    assert changed(before, files(done)) == {"bench.json", "steps.json"}


@pytest.mark.parametrize(
    ("lost", "again"),
    [
        ("bench.json", ["bench"]),
        ("evaluations/byot-final-test.json", ["evaluate byot-final on test"]),
        ("artifacts/byot-early-exit", ["calibrate byot-cascade"]),
    ],
)
def test_what_was_removed_is_made_again(done: Path, lost: str, again: list[str]) -> None:
    path = done / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    steps, _ = go(done)
    assert steps[: len(again)] == again
    assert path.exists()
    assert not any(step.startswith("export") for step in steps)


def test_another_key_of_the_training_is_refused_by_name_and_changes_nothing(done: Path) -> None:
    before, recipe = files(done), (done / "recipe.yaml").read_bytes()
    with pytest.raises(OutputExistsError, match=r"train\.batch_size: 32 -> 16"):
        go(done, "train.batch_size=16")
    assert not changed(before, files(done))
    assert (done / "recipe.yaml").read_bytes() == recipe


def test_overwrite_trains_anew_and_redoes_all(done: Path) -> None:
    before = files(done)
    steps, _ = go(done, "train.batch_size=16", overwrite=True)
    assert steps == STEPS
    kept = set(before) - changed(before, files(done))
    assert not kept
    assert recipes.read(done / "recipe.yaml").train.batch_size == 16


def test_overwrite_trains_nothing_anew_that_would_fail_at_its_end(done: Path) -> None:
    before = files(done)
    with pytest.raises(RecipeError, match="holds out 0 samples for validation"):
        go(done, "data.validation=0", overwrite=True)
    assert not changed(before, files(done))


def test_a_run_that_goes_down_before_every_step_goes_on_and_does_each_once(tmp_path: Path) -> None:
    steps: list[str] = []
    expected = [step for step in STEPS if "baseline" not in step]
    for _ in range(len(expected) + 1):
        watch = Watch(patience=1)
        try:
            go(tmp_path / "run", "controls=[]", watch=watch)
        except Killed:
            steps += watch.steps
        else:
            steps += watch.steps
            break
    assert steps == expected
    assert (tmp_path / "run" / "report" / "report.html").is_file()


def test_without_validation_images_the_test_split_alone_is_scored(tmp_path: Path) -> None:
    before = tmp_path / "run" / "evaluations" / "baseline-validation.json"  # of a recipe that held images out
    before.parent.mkdir(parents=True)
    before.write_text("{}", encoding="utf-8")
    settings = ["data.validation=0", "data.test_limit=300", "method=baseline", "controls=[]", "export.layouts=[single]"]
    steps, made = go(tmp_path / "run", *settings)
    scored = [step for step in steps if step.startswith("evaluate")]
    assert scored == ["evaluate baseline on test", "evaluate baseline-final on test"]
    assert not before.exists()
    assert [row.name for row in made.rows] == ["baseline-final"]


def test_exits_to_keep_make_the_cascade_again_and_nothing_before_it(done: Path) -> None:
    steps, _ = go(done, "exits.count=1", "export.keep_exits=[exit1]")
    assert steps[:3] == ["export baseline", "export byot", "calibrate byot-cascade"]
    manifest = open_artifact(done / "artifacts" / "byot-early-exit").manifest
    assert [exit_.name for exit_ in manifest.exits] == ["exit1", "final"]
    assert manifest.provenance.recipe["export"]["keep_exits"] == ["exit1"]


def test_a_method_that_is_its_own_control_is_trained_once_or_refused(done: Path, tmp_path: Path) -> None:
    recipe = recipes.read(RECIPE, ["controls=[baseline, byot]"])
    watch = Watch()
    assert run_pipeline(recipe, done, step_progress=watch).reference == "baseline-final"
    assert watch.steps == []
    other = Recipe.model_validate({**RECIPE, "controls": [{"name": "byot", "temperature": 2.0}]})
    with pytest.raises(RecipeError, match="its own control"):
        run_pipeline(other, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_two_methods_joined_by_a_plus_go_the_whole_way(tmp_path: Path) -> None:
    steps, made = go(tmp_path / "run", "method=deep_supervision+label_smooth", "controls=[]")
    assert "export deep_supervision+label_smooth" in steps
    assert [row.name for row in made.rows] == [
        f"deep_supervision+label_smooth-{end}" for end in ("final", "early-exit")
    ]
    assert (tmp_path / "run" / "report" / "report.html").exists()
