"""A whole search on a small network, and what it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import sdcompress
from sdcompress import recipes
from sdcompress.artifact.read import open_artifact
from sdcompress.benchmarking.run import bench
from sdcompress.compression import compress as room
from sdcompress.compression.estimates import kept_candidates, retire_estimates, searches_in
from sdcompress.compression.outcomes import run_exits
from sdcompress.compression.parts import Parts
from sdcompress.errors import (
    DataError,
    Interrupted,
    OutputExistsError,
    RecipeError,
    UnknownNameError,
    UsageError,
    VerificationError,
)
from sdcompress.evaluation.exit_outcomes import exit_outcomes
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.options import Options
from sdcompress.pipeline.steps import Record, no_step_progress
from sdcompress.reporting.compression.findings import cautions, findings, headline
from sdcompress.schema.compression import Candidate, Compression, Finalist
from sdcompress.schema.recipe import Bench, Compress, Recipe
from sdcompress.schema.report import BenchReport

# the network has learnt next to nothing, so that every exit is about as good as every other
SETTINGS = {"max_drop": 0.2, "precisions": ["uint8"], "finalists": 2}


def measured(*arguments: Any, **named: Any) -> BenchReport:
    """Benchmark, and replace the times by 4 ms for the reference, then 3 and 2 ms: the machine may be busy."""
    report = bench(*arguments, **named)
    records = [
        record.model_copy(update={"latency": record.latency.model_copy(update={"mean_ms": 4.0 - place})})
        for place, record in enumerate(report.records)
    ]
    comparisons = [one.model_copy(update={"verdict": "faster"}) for one in report.comparisons]
    return report.model_copy(update={"records": tuple(records), "comparisons": tuple(comparisons)})


@pytest.fixture(scope="module")
def searched(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Compression, Path]]:
    out = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "bench", measured)
        patch.setattr(room, "_MERGED", 0)  # whether one graph is faster depends on the load of the machine
        yield sdcompress.compress(checkpoint, out, SETTINGS), out


def test_the_best_is_an_artifact_that_opens(searched: tuple[Compression, Path]) -> None:
    record, out = searched
    assert record.best is not None
    best, winner = open_artifact(out / "best"), record.winner
    assert winner is not None
    assert best.manifest.digest == winner.digest
    assert sdcompress.verify(out / "best")


def test_the_best_is_the_fastest_of_those_that_are_certified(searched: tuple[Compression, Path]) -> None:
    record, _ = searched
    certified = [one for one in record.finalists if one.state == "certified"]
    times = {one.candidate.name: record.mean_ms(one.candidate.name) for one in certified}
    assert len(times) == 2
    assert record.best == list(times)[-1]  # of 2 ms
    for one in certified:
        assert one.p_value is None or one.p_value <= record.delta == pytest.approx(0.05 / 2)


def test_the_files_hold_the_record(searched: tuple[Compression, Path]) -> None:
    record, out = searched
    assert (record.search_samples, record.certify_samples) == (48, 240)
    assert Compression.model_validate_json((out / "compress.json").read_text(encoding="utf-8")) == record
    assert headline(record) in (out / "compress.md").read_text(encoding="utf-8").replace("\\", "")


def test_a_second_search_builds_nothing_again(
    searched: tuple[Compression, Path], checkpoint: Path, tmp_path: Path
) -> None:
    _, out = searched
    again = tmp_path / "again"
    shutil.copytree(out, again, ignore=shutil.ignore_patterns(".lock"))
    steps: list[str] = []

    def shown(step: str):
        steps.append(step)
        return no_step_progress(step)

    record = sdcompress.compress(checkpoint, again, SETTINGS, step_progress=shown)
    assert record.finalists
    assert {step.partition(" ")[0] for step in steps} <= {"test", "bench"}  # estimates are kept as well
    assert [one.digest for one in record.finalists] == [one.digest for one in searched[0].finalists]


def test_an_ensemble_is_built_as_it_was_estimated_and_counts_from_the_plain_network(
    searched: tuple[Compression, Path], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path / "again"
    shutil.copytree(searched[1], again, ignore=shutil.ignore_patterns(".lock"))
    monkeypatch.setattr(room, "bench", measured)
    monkeypatch.setattr(room, "_MERGED", 0)

    def first_ensemble(ranked: list[Candidate], _count: int) -> list[Candidate]:
        return [next(one for one in ranked if one.ensemble and one.precision == "fp32")]

    monkeypatch.setattr(room, "finalists", first_ensemble)
    record = sdcompress.compress(checkpoint, again, SETTINGS)
    (one,) = record.finalists
    assert one.candidate.name == record.best
    assert one.candidate.name.startswith(f"net-{'+'.join(one.candidate.exits)}-ensemble-")
    best = open_artifact(again / "best")
    assert best.manifest.certificate is not None
    assert best.manifest.certificate.reference == open_artifact(again / "parts" / "net-final").manifest.digest
    # that of its own test, 97.5 %, was used up by the choice between two
    assert best.manifest.certificate.confidence == record.settings.confidence == 0.95
    assert best.manifest.certificate.levels[0].delta == pytest.approx(0.025)
    assert "(geometric ensemble)" in (best.path / "README.md").read_text(encoding="utf-8")
    assert "With 'ensemble' in a name" in " ".join(findings(record))

    search = room._Search([open_trained_model(checkpoint)], record.settings, again, Options(), no_step_progress)
    plain = search._open(search._parts.part(0, ("exit1", "exit2", "final"), "fp32"))
    kept = [plain.exit_names.index(exit_) for exit_ in one.candidate.exits]
    ensembles = [tuple(kept[: rank + 1]) for rank in range(len(kept))]
    signals, loss = run_exits(plain, search._search_samples, ensembles)
    built = exit_outcomes(search._open(best), search._search_samples, (1.0,) * len(kept))
    np.testing.assert_array_equal(loss[3:], built.loss)
    for estimated, exit_ in zip(signals[3:], built.signals, strict=True):
        np.testing.assert_allclose(estimated["max_prob"], exit_["max_prob"], atol=1e-5)

    steps: list[str] = []

    def shown(step: str):
        steps.append(step)
        return no_step_progress(step)

    sdcompress.compress(checkpoint, again, SETTINGS, step_progress=shown)
    assert {step.partition(" ")[0] for step in steps} <= {"test", "bench"}


def test_an_export_of_other_weights_is_made_again(
    searched: tuple[Compression, Path], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that was trained again has the name of the one before."""
    _, out = searched
    seen: list[str] = []
    monkeypatch.setattr(
        "sdcompress.compression.parts.export_all",
        lambda _model, targets, *_, **__: seen.extend(one.out.name for one in targets),
    )
    model = open_trained_model(checkpoint)
    for changed, exported in (
        ({}, []),
        ({"digest": "0" * 64}, ["net-final"]),
        ({"data_fingerprint": "0"}, ["net-final"]),
    ):
        same_name = SimpleNamespace(**{"digest": model.digest, "data_fingerprint": model.data_fingerprint, **changed})
        record = Record(tmp_path / "steps.json")
        seen.clear()
        Parts(out, [same_name], ["net"], Options(), record, no_step_progress).exported(0, [("final",)])
        assert seen == exported


def test_a_precision_that_computes_nothing_of_a_network_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As fp8 of a network with few channels: the other precisions are searched."""

    def part(_source: int, exits: tuple[str, ...], precision: str) -> str:
        if precision == "fp8":
            raise UsageError("Nothing in 'net' can be computed in fp8.")
        return f"{'+'.join(exits)}-{precision}"

    search = room._Search([], Compress(precisions=("fp8", "uint8")), tmp_path, Options(), no_step_progress)
    vars(search).update(
        _exits=[("exit1", "final")],
        _parts=SimpleNamespace(exported=lambda *_: None, part=part),
        _certify_samples=[],
    )
    monkeypatch.setattr(room, "check", lambda *_: None)
    monkeypatch.setattr(room._Search, "_calibration", lambda _: None)
    monkeypatch.setattr(room._Search, "_outcomes", lambda _, *arguments: arguments)
    with pytest.warns(UserWarning, match=r"fp8 is left out: Nothing in 'net' can be computed in fp8\."):
        networks = list(search._networks())
    assert networks == [
        (0, precision, f"final-{precision}", f"exit1+final-{precision}") for precision in ("fp32", "uint8")
    ]


def test_a_search_that_goes_on_tests_no_other_finalists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is busy at one time, and not at another: the confidence counts the finalists of one choice alone."""

    def search(times: tuple[float, float], digest: str = "b", threads: int = 1, **settings: Any) -> list[str]:
        """Return the names of all candidates, the fastest first."""
        model: Any = SimpleNamespace(data_fingerprint="a", digest=digest, recipe=Recipe())
        options = Options(threads=threads)
        one = room._Search([model], Compress(precisions=(), **settings), tmp_path, options, no_step_progress)
        vars(one).update(_parts=SimpleNamespace(labels=["net"]), _certify_samples=range(2400))
        monkeypatch.setattr(one, "_networks", lambda: iter([(0, "fp32", None, None)]))
        monkeypatch.setattr(one, "_policies", lambda: ("max_prob",))
        loss = np.zeros((3, 600), np.float32)
        networks: Any = SimpleNamespace(loss=loss)
        monkeypatch.setattr(one, "_outcomes", lambda *_: networks)
        made = [
            Candidate(
                name=name, source=0, layout="single", exits=(name,), precision="fp32", max_drop=0.01, ms=ms, drop=0.0
            )
            for name, ms in zip(("exit1", "exit2"), times, strict=True)
        ]
        monkeypatch.setattr(room, "candidates", lambda *_: sorted(made, key=lambda candidate: candidate.ms))
        return [candidate.name for candidate in one._ranked()]

    assert search((1.0, 2.0)) == ["exit1", "exit2"]
    assert search((2.0, 1.0)) == ["exit1", "exit2"]  # the same search goes on
    assert search((2.0, 1.0), finalists=1) == ["exit2", "exit1"]  # another one
    assert search((2.0, 1.0), threads=2) == ["exit2", "exit1"]
    assert search((2.0, 1.0), digest="c") == ["exit2", "exit1"]  # of other weights by the same name
    (tmp_path / "estimates").rename(tmp_path / "other")
    assert search((2.0, 1.0)) == ["exit2", "exit1"]


def test_damaged_estimates_are_refused(tmp_path: Path) -> None:
    candidate = finalist("a", "certified").candidate
    assert kept_candidates(tmp_path, ["x"], lambda: [candidate]) == [candidate]
    (file,) = (tmp_path / "estimates").iterdir()
    file.write_text("[")
    with pytest.raises(VerificationError, match="cannot be read"):
        kept_candidates(tmp_path, ["x"], list)


def test_a_search_is_thrown_away_only_when_the_new_one_can_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> None:
        raise DataError("The data is gone.")

    opened = SimpleNamespace(task="classes")
    model = SimpleNamespace(kind="checkpoint", data_fingerprint="a", opened=opened, recipe=Recipe(), dataset=gone)
    monkeypatch.setattr(room, "open_trained_model", lambda *_: model)
    (tmp_path / "steps.json").touch()
    for options, why in ((Options(), "The data is gone"), (Options(threads=10**6), "threads is 1000000")):
        with pytest.raises(UsageError, match=why):
            sdcompress.compress("run", tmp_path, options=options, overwrite=True)
        assert [path.name for path in tmp_path.iterdir()] == ["steps.json"]


def test_searches_that_were_thrown_away_are_counted(tmp_path: Path, searched: tuple[Compression, Path]) -> None:
    """Each chooses finalists by times of its own, and tests them on the same samples."""
    one, other = (finalist(name, "certified").candidate for name in ("a", "b"))
    assert searches_in(tmp_path) == 0
    assert kept_candidates(tmp_path, ["x"], lambda: [one]) == [one]
    for thrown_away in (1, 2):
        retire_estimates(tmp_path)
        assert searches_in(tmp_path) == thrown_away
        assert kept_candidates(tmp_path, ["x"], lambda: [other]) == [other]
    assert searches_in(tmp_path) == 3
    record = searched[0]
    assert record.searches == 1
    assert not [sentence for sentence in cautions(record) if "confidence" in sentence]
    settings = record.settings.model_copy(update={"confidence": 0.95})
    third = record.model_copy(update={"searches": 3, "settings": settings})
    (sentence,) = (sentence for sentence in cautions(third) if "confidence" in sentence)
    assert "search 3" in sentence
    assert "all together 85.0 %" in sentence


def test_thresholds_of_each_drop_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a target a finalist is tested at up to three drops; a search that goes on repeats none of the tests."""
    made: list[float] = []

    def calibrate(_cascade: Any, out: Path, settings: Any, *_: Any, **__: Any) -> None:
        made.append(settings.max_drop)
        out.mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr("sdcompress.compression.parts.calibrate", calibrate)
    monkeypatch.setattr("sdcompress.compression.parts.open_artifact", lambda path: path)
    digests = dict.fromkeys(("cascade", "reference"), "c" * 64)

    def artifact(name: str) -> Any:
        return SimpleNamespace(manifest=SimpleNamespace(digest=digests[name]))

    monkeypatch.setattr(Parts, "part", lambda *_: artifact("cascade"))
    one = finalist("a", "certified").candidate

    def tested(
        drops: tuple[float, ...], confidence: float = 0.95, samples: int = 9, threads: int = 1, joint: float = 0.9
    ) -> list[float]:
        made.clear()
        record = Record(tmp_path / "steps.json")
        parts = Parts(tmp_path, [], [], Options(threads=threads), record, no_step_progress)
        for drop in drops:
            candidate = one.model_copy(update={"max_drop": drop})
            reference: Any = artifact("reference")
            parts.calibrated(candidate, confidence, range(samples), reference, joint_confidence=joint)  # type: ignore[arg-type]
        return [*made]

    assert tested((0.01, 0.02, 0.01, 0.02)) == [0.01, 0.02]
    assert tested((0.01, 0.02)) == []
    # what decides on a certificate makes another one
    for changed in ({"confidence": 0.99}, {"samples": 8}, {"threads": 2}, {"joint": 0.8}):
        assert tested((0.01,), **changed) == [0.01]  # type: ignore[arg-type]
    for name in digests:
        tested((0.01,))
        digests[name] = "d" * 64
        assert tested((0.01,)) == [0.01]


def test_finalists_are_measured_by_the_clock_of_estimates_and_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe may measure its benchmarks in processor time of one thread, which leaves out the second one here."""
    models: Any = [SimpleNamespace(recipe=Recipe(bench=Bench(clock="thread")))]
    search = room._Search(models, Compress(), tmp_path, Options(threads=2), no_step_progress)
    known = {"_search_samples": [], "_reference": SimpleNamespace(path=tmp_path), "_data": SimpleNamespace(name="d")}
    vars(search).update(known)
    monkeypatch.setattr(room, "bench_samples", lambda _: ([], None))
    monkeypatch.setattr(room, "bench", lambda *_, settings, **__: settings)
    measured_with: Any = search._bench([])
    assert (measured_with.clock, measured_with.threads) == ("wall", 2)


def cascade_of(name: str, threshold: float, ms: float) -> Any:
    policy = SimpleNamespace(exits_early=threshold <= 1, mean_ms=ms)
    return SimpleNamespace(path=Path(name), manifest=SimpleNamespace(policy=policy))


def test_the_fastest_certified_cascades_that_exit_early_are_also_tried_as_one_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"never": 1.0, "third": 3.0, "first": 2.0, "fourth": 4.0, "second": 2.5, "uncertified": 0.5}
    cascades = {name: cascade_of(name, 2.0 if name == "never" else 0.5, ms) for name, ms in times.items()}
    monkeypatch.setattr(room, "_MERGED", 3)  # while ``searched`` has none
    monkeypatch.setattr(room, "open_artifact", lambda path: cascades[Path(path).name])
    other_exits = 0

    def one_graph(cascade: Any) -> Any:
        name = cascade.path.name
        entry = SimpleNamespace(bytes=7, is_faster_on=lambda _: name != "third", near_threshold=other_exits)
        manifest = SimpleNamespace(one_graph=entry, digest="a" * 64, precisions=("fp32",))
        return SimpleNamespace(path=tmp_path / "finalists" / f"{name}-if", manifest=manifest)

    search = room._Search([], Compress(), tmp_path, Options(), no_step_progress)
    search.__dict__["_parts"] = SimpleNamespace(one_graph=one_graph)
    built = [finalist(name, "not certified" if name == "uncertified" else "certified") for name in cascades]
    first, second, third = search._one_graphs(built)
    assert (first.candidate.name, first.candidate.layout, first.candidate.merged_from) == ("first-if", "if", "first")
    assert (first.state, first.folder, first.bytes) == ("certified", "finalists/first-if", 7)
    assert first.measured_as == "first-if (one graph)"
    assert (second.candidate.name, second.state) == ("second-if", "certified")
    assert (third.candidate.name, third.state, third.reason) == ("third-if", "failed", "its segments are faster")
    assert search._one_graphs([finalist("never", "certified")]) == []
    other_exits = 1
    first, *_ = search._one_graphs(built)
    assert (first.state, first.reason[:24]) == ("failed", "its certificate covers t")


def finalist(name: str, state: Any) -> Finalist:
    candidate = Candidate(
        name=name, source=0, layout="cascade", exits=("exit1", "final"), precision="fp32", policy="max_prob",
        max_drop=0.01, ms=1.0, drop=0.0,
    )  # fmt: skip
    return Finalist(candidate=candidate, state=state, folder=name, digest="b" * 64)


@pytest.mark.parametrize("group_by", ["stratum", "exit"])
def test_a_drop_that_the_recipe_wants_in_every_group_is_said_to_hold_over_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_by: str
) -> None:
    recipe = recipes.read({"calibrate": {"confidence": 0.9, "group_by": group_by}})
    opened = SimpleNamespace(task=None)
    model = SimpleNamespace(
        kind="checkpoint", recipe=recipe, data_fingerprint="", opened=opened, path="net", dataset=lambda: None
    )

    def stop(*_: Any) -> None:
        raise Interrupted("Stopped.")

    monkeypatch.setattr(room, "open_trained_model", lambda *_: model)
    monkeypatch.setattr(room, "_Search", stop)
    with (
        pytest.warns(UserWarning, match=rf"over all samples.*calibrate\.group_by='{group_by}'"),
        pytest.raises(Interrupted),
    ):
        sdcompress.compress("net", tmp_path / "search", {"precisions": ()})


def test_a_drop_takes_the_place_of_the_recipes_target() -> None:
    recipe = Compress(target_ms=2)
    assert room._merged(recipe, {"max_drop": 0.02}) == Compress(max_drop=0.02)
    assert room._merged(recipe, {"finalists": 3}).target_ms == 2
    assert room._merged(Compress(), {"target_ms": 3}).target_ms == 3


def test_with_a_target_that_nothing_meets_the_fastest_is_named(checkpoint: Path, searched, tmp_path: Path) -> None:
    _, out = searched
    again = tmp_path / "again"
    shutil.copytree(out, again, ignore=shutil.ignore_patterns(".lock"))
    assert (again / "best").exists()  # of the search before
    record = sdcompress.compress(checkpoint, again, {**SETTINGS, "target_ms": 1e-3, "finalists": 1})
    assert record.best is None
    assert not (again / "best").exists()
    assert headline(record).startswith("No certified artifact takes 0.00100 ms or less; the fastest is ")


def test_what_cannot_be_searched_is_refused_before_anything_is_written(
    searched: tuple[Compression, Path], checkpoint: Path, tmp_path: Path
) -> None:
    _, out = searched
    with pytest.raises(UsageError, match="is an artifact"):
        sdcompress.compress(out / "best", tmp_path / "x")
    with pytest.raises(UsageError, match="No checkpoint was given"):
        sdcompress.compress([], tmp_path / "x")
    with pytest.raises(UnknownNameError, match="int9"):
        sdcompress.compress(checkpoint, tmp_path / "x", {"precisions": ["int9"]})
    with pytest.raises(UnknownNameError, match="max_probe"):
        sdcompress.compress(checkpoint, tmp_path / "x", {"policies": ["max_probe"]})
    with pytest.raises(RecipeError):
        sdcompress.compress(checkpoint, tmp_path / "x", {"max_drop": 0})
    assert not (tmp_path / "x").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(OutputExistsError, match=r"thesis\.tex"):
        sdcompress.compress(checkpoint, tmp_path / "mine", SETTINGS)


def test_the_first_sentence_says_what_was_found(searched: tuple[Compression, Path]) -> None:
    record, _ = searched
    assert record.winner is not None
    name = record.winner.candidate.name
    assert headline(record).startswith(f"{name} takes 2.00 ms in the mean, ")
    assert headline(record).endswith("it loses at most 20 points of accuracy, with 95.0 % confidence.")
    none = record.model_copy(update={"best": None})
    assert headline(none) == (
        "Nothing that was built is faster than net-final and certified to lose at most 20 points."
    )
    slow = none.model_copy(update={"settings": record.settings.model_copy(update={"target_ms": 5.0})})
    assert headline(slow) == "net-final takes 4.00 ms: it meets the target as it is."
    empty = none.model_copy(update={"candidates": (), "finalists": ()})
    (sentence,) = findings(empty)
    assert sentence.startswith("No candidate could probably be certified with 240 samples: hold out more")
