"""The verbs as Python calls; the command line is made of these. Each reads one folder and writes one.

Nothing here prints. Calls that take long take ``progress``, which is called with (done, all).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from sdcompress import recipes
from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.signature import sign
from sdcompress.benchmarking.candidate import bench_originals, bench_samples
from sdcompress.benchmarking.run import bench as run_bench
from sdcompress.calibration.verbs import calibrate, plan
from sdcompress.checkpoint import Checkpoint, open_checkpoint
from sdcompress.data.labelled import labelled_images
from sdcompress.data.samples import Samples
from sdcompress.errors import UsageError, requires_extra
from sdcompress.evaluation.evaluate import evaluate as run_evaluate
from sdcompress.evaluation.predict import image_files
from sdcompress.evaluation.predict import predict as run_predict
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.explaining.explain import explain
from sdcompress.formats import export
from sdcompress.machine import default_threads
from sdcompress.modalities.image import Image
from sdcompress.pipeline.preflight import warn_of_export
from sdcompress.pipeline.run import Stage
from sdcompress.pipeline.run import run as run_pipeline
from sdcompress.quantizing.verbs import quantize
from sdcompress.reporting.build import build as build_report
from sdcompress.reporting.write import write as write_report
from sdcompress.schema import recipe as schema
from sdcompress.schema.prediction import FilePrediction
from sdcompress.schema.recipe import Recipe
from sdcompress.schema.report import BenchReport, Evaluation, Report
from sdcompress.verification.verify import verify

__all__ = [
    "bench",
    "calibrate",
    "evaluate",
    "explain",
    "export",
    "plan",
    "predict",
    "quantize",
    "report",
    "run",
    "sign",
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
    extends: Folder | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    on_start: Callable[[str], None] | None = None,
    on_check: Progress | None = None,
) -> Checkpoint:
    """Train with self-distillation; a run that was stopped goes on.

    Args:
        recipe: a YAML file, a shipped recipe's name, a mapping or a ``Recipe``; None for the defaults.
        out: folder of the training run; default ``runs/<name>/train/<method>``, or ``<extends>-<epochs>-epochs``.
        settings: ``section.key=value`` on top of the recipe.
        extends: the folder of a training run, or a checkpoint, that is to be made longer: the recipe is the run's
            (give None), with more epochs by ``settings``; the checkpoint's record says so.
        overwrite: throw away a run of another recipe that is there.
        progress: called with (steps done, all steps).
        on_epoch: called with the metrics of each epoch.
        on_start: called with a sentence about threads and device before the first step.
        on_check: called with (image files checked, all of them) before the first step.

    Raises:
        RecipeError: if the recipe is not valid.
        DataError: if the data is not there, or an image file is broken.
        OutputExistsError: if ``out`` holds a run of another recipe.
        TrainingDivergedError: if the loss is not finite; the last good checkpoint is kept.
        Interrupted: on Ctrl-C; the same call goes on.
    """
    if extends is not None and recipe is not None:
        raise UsageError(
            "A recipe was given, and a training run to make longer.",
            allowed="one of the two: a run is made longer by its own recipe",
            next_step="leave the recipe out",
        )
    longer = open_checkpoint(extends) if extends is not None else None
    read = recipes.read(longer.recipe if longer else recipe, settings)  # before torch takes its seconds
    with requires_extra("train"):
        from sdcompress.training.run import train as run_train

    folder = Path("runs") / read.name / "train" / read.method.name
    if longer is not None:
        run = longer.path.parents[1]
        folder = run.with_name(f"{run.name}-{read.train.epochs}-epochs")
    return run_train(
        read,
        Path(out) if out is not None else folder,
        extends=longer,
        overwrite=overwrite,
        on_step=progress,
        on_epoch=on_epoch,
        on_start=on_start,
        on_check=on_check,
        before=partial(warn_of_export, read),
    )


def evaluate(
    folder: Folder,
    *,
    split: Literal["validation", "test"] = "test",
    images: Folder | None = None,
    data_dir: Folder | None = None,
    name: str | None = None,
    threads: int | None = None,
    backend: str | None = None,
    device: str = "cpu",
    allow_uncertified: bool = False,
    trust_modules: bool = False,
    download: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Score every exit, their ensemble and the policy.

    Args:
        folder: a checkpoint, the folder of a training run, or an artifact.
        split: validation (which chose thresholds) or test (which only reports).
        images: labelled images in the place of a split: a folder that holds a folder for each class, by its name. The
            data set that was trained on is not needed then.
        data_dir: where the data lies, if elsewhere than in the recipe.
        name: in the result; default: the folder's name.
        threads: of the engine; default: what other work leaves free.
        backend: of 'sdcompress list backends'; default: onnxruntime for an artifact, torch for a checkpoint.
        device: "cpu" or "cuda".
        allow_uncertified: also run what the artifact's certificate does not cover, such as another device.
        trust_modules: of a checkpoint: import the module that it names, which runs its code, also where you have not
            trained it here yourself.
        download: let a data set that is not there be downloaded to where the stored recipe says, or to ``data_dir``.
        progress: called with (images done, all images).

    Raises:
        CheckpointError, ArtifactError, DataError: if the folder or the data is not intact.
        UsageError: if the checkpoint names a module that is not trusted.
    """
    trained = open_trained_model(folder)
    engine = trained.engine(
        backend=backend,
        threads=default_threads().threads if threads is None else threads,
        device=device,
        allow_uncertified=allow_uncertified,
        trust_modules=trust_modules,
    )
    source: tuple[Samples, str]
    if images is not None:
        assert isinstance(engine.modality, Image), "the only modality with folders of files so far"
        source = labelled_images(Path(images), engine.task.outputs, engine.modality.preprocess), str(images)
    else:
        dataset = trained.dataset(data_dir, download=download, trust_modules=trust_modules)
        source = dataset.split(split), dataset.name
    return run_evaluate(
        engine,
        source[0],
        kind=trained.kind,
        name=name or Path(folder).resolve().name,
        source=str(folder),
        digest=trained.digest,
        data=source[1],
        split=split if images is None else "external",
        progress=progress,
    )


def predict(
    folder: Folder,
    images: Iterable[Folder],
    *,
    top: int = 1,
    threads: int | None = None,
    backend: str | None = None,
    device: str = "cpu",
    allow_uncertified: bool = False,
    trust_modules: bool = False,
    progress: Progress | None = None,
) -> tuple[FilePrediction, ...]:
    """Predict image files, one at a time: class, probability, exit, and milliseconds.

    Args:
        folder: an artifact, a checkpoint, or the folder of a training run.
        images: image files, and folders of them.
        top: how many classes each prediction names.
        threads: of the engine; default: what other work leaves free.
        backend: of 'sdcompress list backends'; default: onnxruntime for an artifact, torch for a checkpoint.
        device: "cpu" or "cuda".
        allow_uncertified: also run what the artifact's certificate does not cover, such as another device.
        trust_modules: of a checkpoint: import the module that it names, which runs its code, also where you have not
            trained it here yourself.
        progress: called with (files done, all files).

    Returns:
        One for each file; a file that cannot be read has its error in the place of a prediction.

    Raises:
        CheckpointError, ArtifactError: if the folder is not intact.
        DataError: if there is nothing at a path, or no image at all.
    """
    files = image_files(images)
    engine = open_trained_model(folder).engine(
        backend=backend,
        threads=default_threads().threads if threads is None else threads,
        device=device,
        allow_uncertified=allow_uncertified,
        trust_modules=trust_modules,
    )
    return run_predict(engine, files, top=top, progress=progress)


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
        pixels, labels, originals = golden.images, golden.labels, None
    else:
        dataset = open_trained_model(artifacts[0]).dataset(data_dir)
        (pixels, labels), source = bench_samples(dataset.test), f"test split of {dataset.name}"
        originals = bench_originals(dataset.test)
    return run_bench(
        artifacts,
        images=pixels,
        labels=labels,
        originals=originals,
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
    stage: Stage | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    on_start: Callable[[str], None] | None = None,
) -> Report:
    """The whole way of a recipe: train it and its controls, export, calibrate, evaluate, bench, report.

    Args:
        recipe: a YAML file, a shipped recipe's name, a mapping or a ``Recipe``.
        out: folder of the run; default ``runs/<name>``.
        settings: ``section.key=value`` on top of the recipe.
        command: what the user typed, for the record.
        overwrite: throw away training runs of other recipes that are there.
        stage: shows what goes on, see ``sdcompress.pipeline.run.Stage``.
        on_epoch: called with the metrics of each epoch.
        on_start: called with a sentence about threads and device before a training's first step.
    """
    read = recipes.read(recipe, settings)
    folder = Path(out) if out is not None else Path("runs") / read.name
    return run_pipeline(
        read, folder, command=command, overwrite=overwrite, stage=stage, on_epoch=on_epoch, on_start=on_start
    )
