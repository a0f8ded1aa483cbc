"""evaluate: a model on samples with targets; predict: on files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from sdcompress.data.labelled import labelled_examples
from sdcompress.data.samples import Samples
from sdcompress.evaluation.evaluate import evaluate as run_evaluate
from sdcompress.evaluation.predict import example_files
from sdcompress.evaluation.predict import predict as run_predict
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.machine import default_threads
from sdcompress.options import Options
from sdcompress.schema.prediction import FilePrediction
from sdcompress.schema.report import Evaluation
from sdcompress.verbs._types import Folder, Source

__all__ = ["evaluate", "predict"]


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
        options: of the engine; default threads: what other work leaves free. Progress in samples.
        split: validation (which chose thresholds) or test (which only reports).
        images: labelled examples in the place of a split: a folder that holds a folder for each class, by its name; for
            texts a table with the columns of the training. The data set that was trained on is not needed then.
        name: in the result; default: the folder's name.

    Raises:
        CheckpointError, ArtifactError, DataError: if the folder or the data is not intact.
        UsageError: if the checkpoint names a module that is not trusted.
    """
    model = open_trained_model(source, _free_threads(options))
    engine = model.engine()
    samples: Samples
    if images is not None:
        samples = labelled_examples(Path(images), engine.task, engine.modality, model.recipe.data.label)
        data = str(images)
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
        split=split if images is None else "external",
        progress=model.options.progress,
    )


def predict(
    source: Source, images: Iterable[Folder], options: Options | None = None, *, top: int = 1
) -> tuple[FilePrediction, ...]:
    """Predict files, one at a time: what the task states, exit, and milliseconds.

    Args:
        source: an artifact, a checkpoint, or the folder of a training run.
        images: files of raw examples, and folders of them.
        options: of the engine; default threads: what other work leaves free. Progress in files.
        top: how many classes each prediction names; a set of labels is stated whole.

    Returns:
        One for each file; a file that cannot be read has its error in the place of a prediction.

    Raises:
        CheckpointError, ArtifactError: if the folder is not intact.
        DataError: if there is nothing at a path, or no file that the network takes.
    """
    model = open_trained_model(source, _free_threads(options))
    engine = model.engine()
    return run_predict(engine, example_files(images, engine.modality), top=top, progress=model.options.progress)


def _free_threads(options: Options | None) -> Options:
    options = options or Options()
    return options if options.threads is not None else replace(options, threads=default_threads().threads)
