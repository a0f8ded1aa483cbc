"""The verbs as Python calls; the command line is made of these. Each reads one folder and writes one.

Nothing here prints. Calls that take long take ``progress``, which is called with (done, all).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from sdcompress import pipeline, recipes
from sdcompress.artifact.read import open_artifact
from sdcompress.benchmarking.contender import bench_samples
from sdcompress.benchmarking.run import bench as run_bench
from sdcompress.calibration.verbs import calibrate, plan
from sdcompress.checkpoint import Checkpoint
from sdcompress.errors import UsageError, requires_extra
from sdcompress.evaluation.evaluate import evaluate as run_evaluate
from sdcompress.evaluation.subject import open_subject
from sdcompress.explaining.explain import explain
from sdcompress.exporting.verify import verify
from sdcompress.formats import export
from sdcompress.look_ahead import warn_of_export
from sdcompress.quantizing.verbs import quantize
from sdcompress.reporting.build import build as build_report
from sdcompress.reporting.write import write as write_report
from sdcompress.schema import recipe as schema
from sdcompress.schema.recipe import Recipe
from sdcompress.schema.report import BenchReport, Evaluation, Report

__all__ = [
    "bench",
    "calibrate",
    "evaluate",
    "explain",
    "export",
    "plan",
    "quantize",
    "report",
    "run",
    "train",
    "verify",
]

Folder = Path | str
Progress = Callable[[int, int], None]
RecipeLike = Recipe | Mapping[str, Any] | Path | str | None


def train(
    recipe: RecipeLike = None,
    out: Folder | None = None,
    *,
    settings: Iterable[str] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Checkpoint:
    """Train with self-distillation; a run that was stopped goes on.

    Args:
        recipe: a YAML file, a shipped recipe's name, a mapping or a ``Recipe``; None for the defaults.
        out: folder of the training run; default ``runs/<name>/train/<method>``.
        settings: ``section.key=value`` on top of the recipe.
        overwrite: throw away a run of another recipe that is there.
        progress: called with (steps done, all steps).
        on_epoch: called with the metrics of each epoch.

    Raises:
        RecipeError: if the recipe is not valid.
        OutputExistsError: if ``out`` holds a run of another recipe.
        TrainingDivergedError: if the loss is not finite; the last good checkpoint is kept.
        Interrupted: on Ctrl-C; the same call goes on.
    """
    read = recipes.read(recipe, settings)  # before torch takes its seconds
    with requires_extra("train"):
        from sdcompress.training.run import train as run_train

    folder = Path(out) if out is not None else Path("runs") / read.name / "train" / read.method.name
    return run_train(
        read,
        folder,
        overwrite=overwrite,
        on_step=progress,
        on_epoch=on_epoch,
        before=partial(warn_of_export, read),
    )


def evaluate(
    folder: Folder,
    *,
    split: Literal["validation", "test"] = "test",
    data_dir: Folder | None = None,
    name: str | None = None,
    threads: int | None = None,
    backend: str | None = None,
    device: str = "cpu",
    allow_uncertified: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Score every exit, their ensemble and the policy.

    Args:
        folder: a checkpoint, the folder of a training run, or an artifact.
        split: validation (which chose thresholds) or test (which only reports).
        data_dir: where the data lies, if elsewhere than in the recipe.
        name: in the result; default: the folder's name.
        threads: of the engine; None leaves the choice to it.
        backend: of 'sdcompress list backends'; default: onnxruntime for an artifact, torch for a checkpoint.
        device: "cpu" or "cuda".
        allow_uncertified: also run what the artifact's certificate does not cover, such as another device.
        progress: called with (images done, all images).

    Raises:
        CheckpointError, ArtifactError, DataError: if the folder or the data is not intact.
    """
    subject = open_subject(folder)
    dataset = subject.dataset(data_dir)
    return run_evaluate(
        subject.engine(backend=backend, threads=threads, device=device, allow_uncertified=allow_uncertified),
        dataset.split(split),
        kind=subject.kind,
        name=name or Path(folder).resolve().name,
        source=str(folder),
        digest=subject.digest,
        data=dataset.name,
        split=split,
        progress=progress,
    )


def bench(
    artifacts: Sequence[Folder],
    *,
    images: Literal["test", "golden"] = "test",
    data_dir: Folder | None = None,
    names: Sequence[str] | None = None,
    reference: str | None = None,
    settings: schema.Bench | None = None,
    command: str = "",
    allow_uncertified: bool = False,
    progress: Progress | None = None,
) -> BenchReport:
    """Measure artifacts in turn on this machine.

    Args:
        artifacts: folders; the first is the reference unless ``reference`` names another.
        images: the test split of the first artifact's data, or its golden samples, which it carries along.
        data_dir: where the data lies, if elsewhere than in the recipe.
        names: in the result; default: the folders' names.
        reference: the name of the artifact that speed-ups are against.
        settings: scenarios, threads, durations.
        command: what the user typed, for the record.
        allow_uncertified: also run what an artifact's certificate does not cover, such as another device.
        progress: called with (rounds done, all rounds).

    Raises:
        ArtifactError, DataError, UsageError: an artifact or the data is not intact, or no artifact is given.
    """
    if not artifacts:
        raise UsageError("No artifact was given.", next_step="name at least one artifact folder")
    if images == "golden":
        golden, source = open_artifact(artifacts[0]).golden(), f"golden samples of {artifacts[0]}"
        pixels, labels = golden.images, golden.labels
    else:
        dataset = open_subject(artifacts[0]).dataset(data_dir)
        (pixels, labels), source = bench_samples(dataset.test), f"test split of {dataset.name}"
    return run_bench(
        artifacts,
        images=pixels,
        labels=labels,
        settings=settings or schema.Bench(),
        names=names,
        reference=reference,
        source=source,
        command=command,
        allow_uncertified=allow_uncertified,
        progress=progress,
    )


def report(
    artifacts: Mapping[str, Folder],
    out: Folder,
    *,
    evaluations: Sequence[Evaluation] = (),
    benches: Sequence[BenchReport] = (),
    title: str = "report",
    reference: str | None = None,
    command: str = "",
    overwrite: bool = False,
) -> Report:
    """Write report.json, report.md and report.html into a folder.

    Args:
        artifacts: the rows: name -> folder.
        out: the folder.
        evaluations: of these artifacts, from ``evaluate``.
        benches: of these artifacts, from ``bench``.
        title: of the page.
        reference: the row that the others are compared with.
        command: what the user typed, for the record.
        overwrite: replace a report that is there.
    """
    made = build_report(
        title=title,
        command=command,
        artifacts=artifacts,
        evaluations=evaluations,
        benches=benches,
        reference=reference,
    )
    write_report(made, out, overwrite=overwrite)
    return made


def run(
    recipe: RecipeLike,
    out: Folder | None = None,
    *,
    settings: Iterable[str] = (),
    command: str = "",
    overwrite: bool = False,
    stage: pipeline.Stage | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Report:
    """The whole way of a recipe: train it and its controls, export, calibrate, evaluate, bench, report.

    Args:
        recipe: a YAML file, a shipped recipe's name, a mapping or a ``Recipe``.
        out: folder of the run; default ``runs/<name>``.
        settings: ``section.key=value`` on top of the recipe.
        command: what the user typed, for the record.
        overwrite: throw away training runs of other recipes that are there.
        stage: shows what goes on, see ``sdcompress.pipeline.Stage``.
        on_epoch: called with the metrics of each epoch.
    """
    read = recipes.read(recipe, settings)
    folder = Path(out) if out is not None else Path("runs") / read.name
    return pipeline.run(read, folder, command=command, overwrite=overwrite, stage=stage, on_epoch=on_epoch)
