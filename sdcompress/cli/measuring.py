"""evaluate, predict, explain, bench and report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from sdcompress.cli.completion import complete_from
from sdcompress.cli.options import (
    AllowUncertified,
    Backend,
    DataDir,
    Device,
    FreeThreads,
    Json,
    Out,
    Overwrite,
    Threads,
    TrustModules,
    milliseconds,
    threads_or_default,
)
from sdcompress.cli.screen import bar, command_line, say, write_json
from sdcompress.errors import BenchmarkError, UsageError
from sdcompress.schema.base import explain
from sdcompress.schema.recipe import Bench
from sdcompress.schema.report import BenchReport

__all__ = ["VERBS"]

AnyBackend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        help="what computes; default: onnxruntime for an artifact, torch for a checkpoint",
        autocompletion=complete_from("sdcompress.runtime.backends"),
    ),
]


def evaluate(
    folder: Annotated[Path, typer.Argument(help="a checkpoint, the folder of a training run, or an artifact")],
    split: Annotated[Literal["validation", "test"], typer.Option("--split", help="which images")] = "test",
    images: Annotated[
        Path | None, typer.Option("--images", help="other images instead: a folder with a folder for each class")
    ] = None,
    data_dir: DataDir = None,
    threads: FreeThreads = None,
    backend: AnyBackend = None,
    device: Device = "cpu",
    allow_uncertified: AllowUncertified = False,
    trust_modules: TrustModules = False,
    download: Annotated[
        bool, typer.Option("--download", help="fetch a data set that is not there, into --data-dir or where it was")
    ] = False,
    json: Json = False,
) -> None:
    """Score every exit, their ensemble, and the early-exit policy as it runs.

    Example: sdcompress evaluate runs/digits/train/byot --split validation
    Other images: sdcompress evaluate artifacts/early-exit --images photos
    """
    from sdcompress import api
    from sdcompress.cli.tables import show_evaluation

    with bar("evaluate") as progress:
        found = api.evaluate(
            folder,
            split=split,
            images=images,
            data_dir=data_dir,
            threads=threads_or_default(threads),
            backend=backend,
            device=device,
            allow_uncertified=allow_uncertified,
            trust_modules=trust_modules,
            download=download,
            progress=progress,
        )
    if json:
        write_json(found.model_dump(mode="json"))
    else:
        show_evaluation(found)


def predict(
    folder: Annotated[Path, typer.Argument(help="an artifact, a checkpoint, or the folder of a training run")],
    images: Annotated[list[Path], typer.Argument(help="image files, and folders of them")],
    top: Annotated[int, typer.Option("--top", min=1, help="classes to name for each image")] = 1,
    threads: Threads = 1,
    backend: AnyBackend = None,
    device: Device = "cpu",
    allow_uncertified: AllowUncertified = False,
    trust_modules: TrustModules = False,
    csv: Annotated[bool, typer.Option("--csv", help="print CSV on stdout")] = False,
    json: Json = False,
) -> None:
    """Predict image files, one at a time: class, probability, exit, and milliseconds.

    A file that cannot be read stops nothing, and ends with exit code 2.

    Example: sdcompress predict artifacts/early-exit photos --csv > predictions.csv
    """
    from sdcompress import api
    from sdcompress.cli.predictions import show_predictions, write_csv

    with bar("predict") as progress:
        predictions = api.predict(
            folder,
            images,
            top=top,
            threads=threads,
            backend=backend,
            device=device,
            allow_uncertified=allow_uncertified,
            trust_modules=trust_modules,
            progress=progress,
        )
    if json:
        write_json([prediction.model_dump(mode="json") for prediction in predictions])
    elif csv:
        write_csv(predictions)
    else:
        show_predictions(predictions)
    if any(prediction.error is not None for prediction in predictions):
        raise typer.Exit(UsageError.exit_code)


def explain_(
    artifact: Annotated[Path, typer.Argument(help="folder of an artifact")],
    out: Out,
    split: Annotated[Literal["validation", "test"], typer.Option("--split", help="which images")] = "test",
    data_dir: DataDir = None,
    threads: Threads = 1,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Say where images leave, what that costs on this machine, and whether early exit pays; with plots.

    Example: sdcompress explain artifacts/early-exit --out explained
    """
    from sdcompress import api
    from sdcompress.cli.tables import show_explanation

    with bar("explain") as progress:
        found = api.explain(
            artifact,
            out,
            split=split,
            data_dir=data_dir,
            threads=threads,
            command=command_line(),
            overwrite=overwrite,
            progress=progress,
        )
    if json:
        write_json(found.model_dump(mode="json"))
        return
    show_explanation(found)
    say("", f"explained: {out / 'explain.html'}")


def bench(
    artifacts: Annotated[list[Path], typer.Argument(help="folders of artifacts; the first is the reference")],
    images: Annotated[
        Literal["test", "golden"], typer.Option("--images", help="the test split, or what the artifact carries along")
    ] = "test",
    scenario: Annotated[
        list[str] | None, typer.Option("--scenario", help="single-stream or offline; repeatable; default: both")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option("--batch", help="offline batch size; repeatable")] = None,
    duration: Annotated[str, typer.Option("--duration", help="per artifact, scenario and batch, e.g. 10s")] = "10s",
    warmup: Annotated[str, typer.Option("--warmup", help="before each, e.g. 200ms")] = "200ms",
    rounds: Annotated[int, typer.Option("--rounds", min=5, help="turns that the artifacts take")] = 10,
    reference: Annotated[str | None, typer.Option("--reference", help="folder name of the reference")] = None,
    data_dir: DataDir = None,
    threads: Threads = 1,
    backend: Backend = "onnxruntime",
    device: Device = "cpu",
    allow_uncertified: AllowUncertified = False,
    require_stable: Annotated[
        bool, typer.Option("--require-stable", help="exit code 5 where a measurement is not stable, e.g. in CI")
    ] = False,
    json: Json = False,
) -> None:
    """Measure artifacts in turn on this machine: percentiles, exit mix, and ratios with confidence intervals.

    Example: sdcompress bench artifacts/full artifacts/early-exit --duration 10s --json > bench.json
    """
    from sdcompress import api
    from sdcompress.cli.tables import show_bench

    settings = _bench_settings(
        scenarios=scenario,
        batch=batch,
        threads=threads,
        backend=backend,
        device=device,
        warmup_ms=milliseconds(warmup, "--warmup"),
        duration_s=milliseconds(duration, "--duration") / 1000,
        rounds=rounds,
    )
    with bar("bench") as progress:
        found = api.bench(
            artifacts,
            images=images,
            data_dir=data_dir,
            reference=reference,
            settings=settings,
            command=command_line(),
            allow_uncertified=allow_uncertified,
            progress=progress,
        )
    if json:
        write_json(found.model_dump(mode="json"))
    else:
        show_bench(found)
    if require_stable:
        _check_stable(found)


def _check_stable(found: BenchReport) -> None:
    """Refuse a measurement that cannot be trusted, after it was printed."""
    unstable = [record for record in found.records if not record.stable]
    if unstable:
        reasons = dict.fromkeys(reason for record in unstable for reason in record.reasons)
        raise BenchmarkError(
            f"{len(unstable)} of {len(found.records)} measurements are not stable: {'; '.join(reasons)}.",
            allowed="stable ones, with --require-stable",
            next_step="end other work, lower --threads or raise --duration, and measure again",
        )


def report(
    artifacts: Annotated[list[Path], typer.Argument(help="folders of artifacts: the rows")],
    out: Out,
    bench_file: Annotated[list[Path] | None, typer.Option("--bench", help="JSON of 'sdcompress bench --json'")] = None,
    evaluation: Annotated[
        list[Path] | None, typer.Option("--evaluation", help="JSON of 'sdcompress evaluate --json'; repeatable")
    ] = None,
    title: Annotated[str, typer.Option("--title")] = "report",
    reference: Annotated[str | None, typer.Option("--reference", help="folder name of the reference")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write report.json, report.md and one self-contained report.html.

    Example: sdcompress report artifacts/full artifacts/early-exit --bench bench.json --out report
    """
    from sdcompress import api
    from sdcompress.cli.tables import show_report
    from sdcompress.reporting.read import read_result
    from sdcompress.schema.report import Evaluation

    made = api.report(
        _by_name(artifacts),
        out,
        evaluations=[read_result(path, Evaluation) for path in evaluation or []],
        benches=[read_result(path, BenchReport) for path in bench_file or []],
        title=title,
        reference=reference,
        command=command_line(),
        overwrite=overwrite,
    )
    if json:
        write_json(made.model_dump(mode="json", exclude={"benches"}))
        return
    show_report(made)
    say("", f"report: {out / 'report.html'}")


def _by_name(artifacts: list[Path]) -> dict[str, Path]:
    """Folders by their names, which become the rows of the report."""
    named = {path.resolve().name: path for path in artifacts}
    if len(named) < len(artifacts):
        raise UsageError(
            f"Two folders have one name: {', '.join(map(str, artifacts))}.",
            allowed="folders of different names: results go by the name",
            next_step="rename one, or name each once",
        )
    return named


def _bench_settings(**given: Any) -> Bench:
    """The options that were given, the others as a recipe has them."""
    if given["batch"] and given["scenarios"] and "offline" not in given["scenarios"]:
        raise UsageError(
            "--batch is given, and no scenario that has batches.",
            allowed="--batch with the scenario offline; single-stream runs one image at a time",
            next_step="add --scenario offline, or leave --batch out",
        )
    try:
        return Bench.model_validate({key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        raise explain(error, Bench, "the options", UsageError) from error


VERBS = (evaluate, predict, explain_, bench, report)
