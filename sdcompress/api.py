"""The verbs as Python calls; the command line and ``run`` (in ``pipeline``) are made of these.

Each reads one folder and writes one: ``verb(source, out, settings, options)``. A source is a folder, or what was opened
from it. Settings are a section of the recipe: None for that of the recipe that the source was made by, some of its
keys in a mapping, or a whole section. Options say where and how it runs. Nothing here prints.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from sdcompress import recipes
from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.artifact.signature import sign
from sdcompress.benchmarking.candidate import bench_originals, bench_samples
from sdcompress.benchmarking.run import bench as run_bench
from sdcompress.calibration.calibrate import OWN, with_given
from sdcompress.calibration.calibrate import calibrate as run_calibrate
from sdcompress.calibration.sample_size import plan as run_plan
from sdcompress.checkpoint import Checkpoint, open_checkpoint
from sdcompress.data import Loader
from sdcompress.data.labelled import labelled_images
from sdcompress.data.samples import Samples
from sdcompress.data.unlabelled import UnlabelledImages
from sdcompress.diagnosis import diagnose as doctor
from sdcompress.entries import list_entries
from sdcompress.errors import SetupError, UsageError, requires_extra
from sdcompress.evaluation.evaluate import evaluate as run_evaluate
from sdcompress.evaluation.predict import image_files
from sdcompress.evaluation.predict import predict as run_predict
from sdcompress.evaluation.trained_model import TrainedModel, open_trained_model
from sdcompress.explaining.explain import explain
from sdcompress.exporting.exit_selection import Target
from sdcompress.exporting.preflight import warn_of_export
from sdcompress.machine import check_threads, default_threads, machine
from sdcompress.options import Options
from sdcompress.progress import Progress
from sdcompress.reporting.build import build as build_report
from sdcompress.reporting.write import write as write_report
from sdcompress.schema.graphs import Layout
from sdcompress.schema.manifest import Manifest
from sdcompress.schema.prediction import FilePrediction
from sdcompress.schema.quantized import Quantized
from sdcompress.schema.recipe import Bench, Calibrate, Export, Quantize, Recipe
from sdcompress.schema.report import BenchReport, Evaluation, Plan, Report
from sdcompress.tensorrt.building.build import build_engines
from sdcompress.verification.verify import verify

__all__ = [
    "bench",
    "build_engines",
    "calibrate",
    "doctor",
    "evaluate",
    "explain",
    "export",
    "export_all",
    "inspect",
    "list_entries",
    "plan",
    "predict",
    "quantize",
    "report",
    "sign",
    "train",
    "verify",
]

Folder = Path | str
Source = TrainedModel | Folder
Given = Mapping[str, Any]
RecipeLike = Recipe | Given | Folder | None


def train(
    recipe: RecipeLike = None,
    out: Folder | None = None,
    *,
    settings: Iterable[recipes.Setting] = (),
    extends: Folder | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    on_start: Callable[[str], None] | None = None,
    on_check: Progress | None = None,
    checked: bool = False,
    load: Loader | None = None,
) -> Checkpoint:
    """Train with self-distillation; a run that was stopped goes on.

    Args:
        recipe: a YAML file, a shipped recipe's name, a mapping or a ``Recipe``; None for the defaults.
        out: folder of the training run; default ``runs/<name>/train/<method>``, or ``<extends>-<epochs>-epochs``.
        settings: ``section.key=value``, or pairs of key and value, on top of the recipe.
        extends: the folder of a training run, or a checkpoint, that is to be made longer: the recipe is the run's
            (give None), with more epochs by ``settings``; the checkpoint's record says so.
        overwrite: throw away a run of another recipe that is there.
        progress: called with (steps done, all steps).
        on_epoch: called with the metrics of each epoch.
        on_start: called with a sentence about threads and device before the first step.
        on_check: called with (image files checked, all of them) before the first step.
        checked: the image files were checked, and an export was tried, already.
        load: loads the data; default: from the disk.

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
        checked=checked,
        load=load,
        before=None if checked else partial(warn_of_export, read),
    )


def export(
    source: Source,
    out: Folder,
    settings: Export | Given | None = None,
    options: Options | None = None,
    *,
    layout: Layout = "cascade",
    exit: str | None = None,  # noqa: A002 - the field's word
    overwrite: bool = False,
) -> Manifest:
    """Write an artifact of ONNX graphs, proven against the checkpoint.

    Args:
        source: a checkpoint, or the folder of a training run; for ``graph`` and ``if`` a calibrated cascade.
        out: folder of the artifact.
        settings: opset, tolerances, ensemble; ``kept_exits`` are those that ``cascade`` and ``all`` keep beside the
            last.
        options: where the data lies, and the threads while graphs are compared; progress in images.
        layout: ``single`` (one exit), ``cascade`` (early exit) or ``all`` (every exit's logits); or one graph that
            exits by itself beside the cascade: ``graph``, or ``if`` for one image at a time.
        exit: of ``single``; default: the last.
        overwrite: replace an artifact that is there.

    Raises:
        CheckpointError, ArtifactError: if the source is not intact.
        ParityError: if the result does not compute what the checkpoint computes; nothing verified is left then.
        VerificationError: if leaving early is not faster in ``graph`` or ``if``.
        OutputExistsError: if ``out`` holds something.
        UsageError: if ``options.threads`` is more than this machine runs at once, ``source`` is not what is asked for
            is made of, or a checkpoint names a module that is not trusted.
    """
    options = options or Options()
    if layout == "graph" or layout == "if":  # noqa: PLR1714 - mypy narrows by ==
        chosen = [] if settings is None else list(settings) if isinstance(settings, Mapping) else ["settings"]
        chosen += ["exit"] * (exit is not None) + ["threads"] * (options.threads is not None)
        if chosen:
            raise UsageError(
                f"{', '.join(chosen)} cannot be chosen with the layout '{layout}', made of a calibrated cascade.",
                allowed="the cascade's own exits, opset and logits; it is timed with one thread",
                next_step="leave it out, or export the cascade with it and calibrate that",
            )
        return _export_one_graph(source, out, layout, options, overwrite=overwrite)
    model = open_trained_model(source, options)
    section = recipes.override(open_checkpoint(_checkpoint(model)).recipe.export, settings)
    named = isinstance(settings, Mapping) and "kept_exits" in settings  # those of the recipe are for other layouts
    kept = section.kept_exits if layout != "single" or named else ()
    (manifest,) = export_all(model, [Target(Path(out), layout, exit, kept)], section, options, overwrite=overwrite)
    return manifest


def export_all(
    source: Source,
    targets: Sequence[Target],
    settings: Export | Given | None = None,
    options: Options | None = None,
    *,
    overwrite: bool = False,
) -> tuple[Manifest, ...]:
    """Export a checkpoint to several artifacts, with as few exports by torch as there can be; all are written or none.

    Args:
        source: a checkpoint, or the folder of a training run.
        targets: the artifacts to make; at least one.
        settings: as ``export`` takes them, and the errors are its, too.
        options: likewise.
        overwrite: replace artifacts that are there.
    """
    options = options or Options()
    threads = default_threads().threads if options.threads is None else options.threads
    check_threads(threads)
    with requires_extra("export"):
        from sdcompress.exporting.export import export_all as run_export
        from sdcompress.models.threads import torch_threads

    model = open_trained_model(source, options)
    section = recipes.override(open_checkpoint(_checkpoint(model)).recipe.export, settings)
    with torch_threads(threads):
        return run_export(model, targets, section, options, overwrite=overwrite)


def _checkpoint(model: TrainedModel) -> Checkpoint | Path:
    return model.opened if isinstance(model.opened, Checkpoint) else model.path


def _export_one_graph(
    source: Source, out: Folder, kind: Literal["graph", "if"], options: Options, *, overwrite: bool
) -> Manifest:
    with requires_extra("export"):
        from sdcompress.exporting.one_graph import Host, export_one_graph

    model = open_trained_model(source, options)
    if model.kind == "checkpoint":
        raise UsageError(
            f"'{model.path}' is a checkpoint; the thresholds of a cascade go into the layout '{kind}'.",
            allowed="a calibrated cascade",
            next_step=f"sdcompress export {model.path} --layout cascade --out CASCADE; sdcompress calibrate CASCADE "
            f"--out EARLY; sdcompress export EARLY --layout {kind} --out {out}",
        )
    here = machine()
    host = Host(here.cpu, here.busy_cores)
    return export_one_graph(model, out, options, kind=kind, host=host, overwrite=overwrite)


def quantize(
    source: Source,
    out: Folder,
    precision: str,
    settings: Quantize | Given | None = None,
    options: Options | None = None,
    *,
    overwrite: bool = False,
) -> Quantized:
    """Write an artifact in a lower precision, which is kept only if no exit loses more accuracy than is allowed.

    The policy, its certificate, temperatures, a graph that exits by itself and engines are not in the new artifact:
    they were made for other confidences. Calibrate it next.

    Args:
        source: an artifact in fp32, of any layout.
        out: folder of the new artifact.
        precision: of 'sdcompress list precisions'.
        settings: the accuracy that every exit may lose, and how many images give ranges.
        options: threads of ONNX Runtime; default: what other work leaves free. Progress in images: calibration, segment
            by segment, then validation.
        overwrite: replace an artifact that is there.

    Returns:
        What every exit lost, the sizes, and how fast it is here beside ``source``. Opening ``out`` gives the rest.

    Raises:
        ArtifactError, DataError: if the artifact or the data is not intact or not there.
        UsageError: if the artifact is not in fp32, an argument is out of range, or ``samples`` is given to a precision
            that needs none; UnknownNameError: no such precision.
        SetupError: if ONNX Runtime cannot run this precision on this machine.
        VerificationError: if an exit loses more, and then the graphs and figures are left in ``<out>.failed``; or if
            float16 does not hold what the network computes in fp16 or fp8.
        ParityError: if what was written does not repeat the logits that were measured.
        OutputExistsError, StorageError: if ``out`` cannot be written.
    """
    options = options or Options()
    threads = default_threads().threads if options.threads is None else options.threads
    check_threads(threads)
    with requires_extra("quantize"):
        from sdcompress.quantizing.quantize import quantize as run_quantize

    model = open_trained_model(source, options)
    artifact = model.artifact(
        allowed="an artifact in fp32",
        next_step=f"sdcompress export {model.path} --out ARTIFACT; sdcompress quantize ARTIFACT --precision "
        f"{precision} --out {out}",
    )
    section, dataset = recipes.override(model.recipe.quantize, settings), model.dataset()
    return run_quantize(
        artifact,
        out,
        precision=precision,
        training=dataset.train,
        validation=dataset.split("validation"),
        max_drop=section.max_drop,
        samples=section.samples,
        timed=True,
        threads=threads,
        overwrite=overwrite,
        progress=options.progress,
    )


def calibrate(
    source: Source,
    out: Folder,
    settings: Calibrate | Given | None = None,
    options: Options | None = None,
    *,
    images: Folder | None = None,
    against: Artifact | Folder | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Choose a cascade's thresholds on the validation split; writes a new artifact with the policy.

    With a confidence the thresholds come with a certificate, or never fire where none is found: docs/certificates.md.

    Args:
        source: a cascade.
        out: folder of the calibrated artifact.
        settings: the policy, what may be lost, with what confidence.
        options: the threads (default: one) at which the segments are timed; the backend and the device that will run
            the policy, whose outputs choose the thresholds. Progress in images.
        images: without labels, for ``unlabelled``: a folder of your own, instead of the validation split.
        against: an artifact, for example the one this was quantised from: the drop is counted against its last exit.
        overwrite: replace an artifact that is there.

    Raises:
        ArtifactError, DataError: if the artifact or the data is not intact.
        UsageError: if a setting is out of range, or there is nothing to calibrate.
    """
    options = options or Options()
    model = open_trained_model(source, options)
    section = with_given(model.recipe.calibrate, settings)
    samples, split = _calibration_samples(model, section, images)
    return run_calibrate(
        model.artifact(),
        Path(out),
        section,
        options,
        samples=samples,
        split=split,
        against=against,
        overwrite=overwrite,
        progress=options.progress,
    )


def plan(
    source: Source,
    settings: Calibrate | Given | None = None,
    options: Options | None = None,
    *,
    images: Folder | None = None,
) -> Plan:
    """Say how many calibration samples a certificate needs; nothing is written, and nothing that certifies is seen.

    Args:
        source: a cascade.
        settings: of the calibration that is planned.
        options: as ``calibrate`` takes them.
        images: a folder of images of your own.

    Raises:
        ArtifactError, DataError: if the artifact or the data is not intact.
        UsageError: if there is no confidence, or nothing to calibrate.
    """
    options = options or Options()
    model = open_trained_model(source, options)
    section = with_given(model.recipe.calibrate, settings)
    samples, _ = _calibration_samples(model, section, images)
    return run_plan(model.artifact(), section, options, samples=samples, progress=options.progress)


def _calibration_samples(model: TrainedModel, settings: Calibrate, images: Folder | None) -> tuple[Samples, str]:
    """The validation split, or a user's own images, compared with the training images where these can be had."""
    if images is None:
        return model.dataset().split("validation"), "validation"
    if not settings.unlabelled:
        raise UsageError(
            "A folder of images is given, which has no labels, for a drop that is counted with labels.",
            allowed="--images with --unlabelled: disagreement with the last exit, which the drop cannot exceed",
            next_step="add --unlabelled, or leave --images out to use the data set's validation split",
        )
    manifest, progress = model.artifact().manifest, model.options.progress
    channels, height, width = (int(size) for size in manifest.input.shape[1:])
    users = UnlabelledImages(Path(images), manifest.input.preprocess, (height, width, channels), progress)
    try:
        training = model.dataset().train
    except (UsageError, SetupError) as error:
        if model.options.data_dir is not None:
            raise  # it was said to be there
        warnings.warn(f"The images are not compared with the training images: {error.found}", stacklevel=3)
        return users, OWN
    users.check_apart(training, progress)
    return users, OWN


def evaluate(
    source: Source,
    options: Options | None = None,
    *,
    split: Literal["validation", "test"] = "test",
    images: Folder | None = None,
    name: str | None = None,
) -> Evaluation:
    """Score every exit, their ensemble and the policy.

    Args:
        source: a checkpoint, the folder of a training run, or an artifact.
        options: of the engine; default threads: what other work leaves free. Progress in images.
        split: validation (which chose thresholds) or test (which only reports).
        images: labelled images in the place of a split: a folder that holds a folder for each class, by its name. The
            data set that was trained on is not needed then.
        name: in the result; default: the folder's name.

    Raises:
        CheckpointError, ArtifactError, DataError: if the folder or the data is not intact.
        UsageError: if the checkpoint names a module that is not trusted.
    """
    model = open_trained_model(source, _free_threads(options))
    engine = model.engine()
    samples: Samples
    if images is not None:
        samples, data = labelled_images(Path(images), engine.classes, engine.preprocess_spec), str(images)
    else:
        dataset = model.dataset()
        samples, data = dataset.split(split), dataset.name
    return run_evaluate(
        engine,
        samples,
        kind=model.kind,
        name=name or model.path.resolve().name,
        source=str(model.path),
        digest=model.digest,
        data=data,
        split=split if images is None else "own",
        progress=model.options.progress,
    )


def predict(
    source: Source, images: Iterable[Folder], options: Options | None = None, *, top: int = 1
) -> tuple[FilePrediction, ...]:
    """Predict image files, one at a time: class, probability, exit, and milliseconds.

    Args:
        source: an artifact, a checkpoint, or the folder of a training run.
        images: image files, and folders of them.
        options: of the engine; default threads: what other work leaves free. Progress in files.
        top: how many classes each prediction names.

    Returns:
        One for each file; a file that cannot be read has its error in the place of a prediction.

    Raises:
        CheckpointError, ArtifactError: if the folder is not intact.
        DataError: if there is nothing at a path, or no image at all.
    """
    files = image_files(images)
    model = open_trained_model(source, _free_threads(options))
    return run_predict(model.engine(), files, top=top, progress=model.options.progress)


def _free_threads(options: Options | None) -> Options:
    options = options or Options()
    return options if options.threads is not None else replace(options, threads=default_threads().threads)


def bench(
    sources: Sequence[Source],
    settings: Bench | Given | None = None,
    options: Options | None = None,
    *,
    images: Literal["test", "golden"] = "test",
    names: Sequence[str] | None = None,
    reference: str | None = None,
) -> BenchReport:
    """Measure artifacts in turn on this machine.

    Args:
        sources: artifacts; the first is the reference unless ``reference`` names another.
        settings: scenarios, durations; threads, backend and device where the options do not say them.
        options: where the data lies; progress in rounds.
        images: the test split of the first artifact's data, or its golden samples, which it carries along.
        names: in the result; default: the folders' names.
        reference: the name of the artifact that speed-ups are against.

    Raises:
        ArtifactError, DataError, UsageError: an artifact or the data is not intact, or no artifact is given.
    """
    if not sources:
        raise UsageError("No artifact was given.", next_step="name at least one artifact folder")
    options = options or Options()
    said = {"threads": options.threads, "backend": options.backend, "device": options.device}
    section = recipes.override(recipes.override(Bench(), settings), {k: v for k, v in said.items() if v is not None})
    artifacts = [open_trained_model(source).artifact() for source in sources]
    if images == "golden":
        golden, data = artifacts[0].golden(), f"golden samples of {artifacts[0].path}"
        pixels, labels, originals = golden.images, golden.labels, None
    else:
        dataset = open_trained_model(artifacts[0], options).dataset()
        (pixels, labels), data = bench_samples(dataset.test), f"test split of {dataset.name}"
        originals = bench_originals(dataset.test)
    return run_bench(
        artifacts,
        images=pixels,
        labels=labels,
        originals=originals,
        settings=section,
        names=names,
        reference=reference,
        source=data,
        command=options.command,
        allow_uncertified=options.allow_uncertified,
        progress=options.progress,
    )


def report(
    artifacts: Mapping[str, Artifact | Folder],
    out: Folder,
    options: Options | None = None,
    *,
    evaluations: Sequence[Evaluation] = (),
    benches: Sequence[BenchReport] = (),
    title: str = "report",
    reference: str | None = None,
    recipe: Recipe | None = None,
    training: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
    overwrite: bool = False,
) -> Report:
    """Write report.json, report.md and report.html into a folder.

    Args:
        artifacts: the rows: name -> folder.
        out: the folder.
        options: the command, for the record.
        evaluations: of these artifacts, from ``evaluate``.
        benches: of these artifacts, from ``bench``.
        title: of the page.
        reference: the row that the others are compared with.
        recipe: that all of it was made by.
        training: the metrics of each epoch, by method.
        overwrite: replace a report that is there.
    """
    built = build_report(
        title=title,
        command=(options or Options()).command,
        artifacts=artifacts,
        evaluations=evaluations,
        benches=benches,
        recipe=None if recipe is None else recipe.model_dump(mode="json"),
        training=training,
        reference=reference,
    )
    write_report(built, out, overwrite=overwrite)
    return built


def inspect(source: Source) -> Manifest:
    """What an artifact is: exits, costs, policy, where it comes from.

    Raises:
        ArtifactError: if it is not intact.
    """
    return open_artifact(source.path if isinstance(source, TrainedModel) else source).manifest
