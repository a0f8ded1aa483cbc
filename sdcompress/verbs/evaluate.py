"""evaluate: compute the metric of every exit on a split; predict: predict files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from sdcompress.artifact.output_path import check_outside
from sdcompress.data.labelled import labelled_examples
from sdcompress.data.samples import Samples
from sdcompress.evaluation.evaluate import evaluate as run_evaluate
from sdcompress.evaluation.predict import example_files
from sdcompress.evaluation.predict import predict as run_predict
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.machine import default_threads
from sdcompress.options import Options
from sdcompress.schema.report import Evaluation, FilePrediction
from sdcompress.verbs._types import Folder, Source

__all__ = ["evaluate", "predict"]


def evaluate(
    source: Source,
    options: Options | None = None,
    *,
    split: Literal["validation", "test"] = "test",
    samples: Folder | None = None,
    name: str | None = None,
) -> Evaluation:
    """Compute the metric of every exit, of their ensemble and of the policy.

    Args:
        source: a checkpoint, the folder of a training run, or an artifact.
        options: of the engine; default threads: those that other work leaves free. Progress in samples.
        split: validation (which chose thresholds) or test (which only reports).
        samples: labelled samples instead of a split: a folder that holds one folder for each class, with its name; for
            texts a table with the columns of the training. The training data set is not needed then.
        name: in the result; default: the folder's name.

    Raises:
        CheckpointError, ArtifactError, DataError: if the folder or the data is not intact.
        UsageError: if the checkpoint names a module that is not trusted.
    """
    model = open_trained_model(source, _free_threads(options))
    engine = model.engine()
    chosen: Samples
    if samples is not None:
        chosen = labelled_examples(Path(samples), engine.task, engine.modality, model.recipe.data.label)
        data = str(samples)
    else:
        dataset = model.dataset()
        chosen, data = dataset.split(split), dataset.name
    return run_evaluate(
        engine,
        chosen,
        kind=model.kind,
        name=name or model.path.resolve().name,
        source=str(model.path),
        digest=model.digest,
        data=data,
        split=split if samples is None else "external",
        progress=model.options.progress,
    )


def predict(
    source: Source,
    files: Iterable[Folder],
    options: Options | None = None,
    *,
    top: int = 1,
    pictures: Folder | None = None,
) -> tuple[FilePrediction, ...]:
    """Predict files, one at a time: decision of the task, exit, and milliseconds.

    Args:
        source: an artifact, a checkpoint, or the folder of a training run.
        files: files of raw examples, and folders of them.
        options: of the engine; default threads: those that other work leaves free. Progress in files.
        top: number of classes for each file; a set of labels is given whole.
        pictures: folder for PNG files of the decisions, for tasks with masks; files in it may be replaced.

    Returns:
        One for each file; for a file that cannot be read, its error.

    Raises:
        CheckpointError, ArtifactError: if the folder is not intact.
        DataError: if a path does not exist, or holds no file that the network takes.
        UsageError: if there is nothing to draw.
        OutputExistsError: if ``pictures`` is an artifact or a training run, or lies inside of one.
    """
    if pictures is not None:
        check_outside(pictures, adds=True)
    model = open_trained_model(source, _free_threads(options))
    engine = model.engine()
    return run_predict(
        engine,
        example_files(files, engine.modality),
        top=top,
        pictures=None if pictures is None else Path(pictures),
        progress=model.options.progress,
    )


def _free_threads(options: Options | None) -> Options:
    options = options or Options()
    return options if options.threads is not None else replace(options, threads=default_threads().threads)
