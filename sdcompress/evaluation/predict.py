"""Predict the raw examples in files, one at a time, as a service does."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from sdcompress.data.sources._listing import Skipped, files_below
from sdcompress.errors import DataError, InputError, UsageError
from sdcompress.modalities import Modality
from sdcompress.progress import Progress
from sdcompress.runtime.engine import Engine
from sdcompress.schema.report import FilePrediction, OutputValue
from sdcompress.storage import storage_errors

__all__ = ["example_files", "predict"]


def example_files(paths: Iterable[Path | str], modality: Modality) -> tuple[Path, ...]:
    """Return the given files, and the files of the modality in the given folders, in the order of their paths.

    Args:
        paths: files of any suffix, and folders; a warning counts the files of folders that are skipped.
        modality: of the network, which knows the suffixes of its files.

    Raises:
        DataError: if a path does not exist, or there is no file.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            skipped = Skipped(modality.suffixes)
            files += files_below(path, skipped)
            skipped.warn(path)
        elif path.exists():
            files.append(path)
        else:
            raise DataError(f"There is no file and no folder '{path}'.", next_step="correct the path")
    if not files:
        raise DataError(
            "The given folders hold no file that the network takes.",
            allowed=f"files, or folders with files that end in {', '.join(sorted(modality.suffixes))}",
            next_step="name the folder that holds the files",
        )
    return tuple(files)


def predict(
    engine: Engine,
    files: Iterable[Path],
    *,
    top: int = 1,
    pictures: Path | None = None,
    progress: Progress | None = None,
) -> tuple[FilePrediction, ...]:
    """Predict each raw example in a batch of one; one that cannot be used gets its error, and the others are predicted.

    Args:
        engine: runs the network.
        files: one raw example in each, such as an image, or one in each row, such as texts.
        top: number of outputs that a prediction names, if the task decides for one.
        pictures: folder for PNG files of the decisions, named after the files; None: no PNG files.
        progress: called with (examples done, all examples).

    Raises:
        DataError: if a file of rows cannot be read.
        UsageError: if pictures are asked for, and the task decides nothing that can be drawn.
        StorageError: if they cannot be written.
    """
    listed = [named for file in files for named in engine.modality.raw_examples(file)]
    # the first calls load codecs and allocate buffers, which is not the time of a file
    first = engine(engine.modality.collate(np.stack([next(iter(engine.modality.edge_cases().values()))])))
    if pictures is not None and first.picture(0) is None:
        raise UsageError(
            f"Pictures are requested, but decisions of the task '{engine.task.record.name}' cannot be drawn.",
            allowed="a task with masks, such as segmentation",
            next_step="leave --pictures out",
        )
    names = _picture_names([name for name, _ in listed], pictures)
    with contextlib.suppress(InputError):
        engine.preprocess([raw for _, raw in listed[:1]])
    predictions = []
    for done, ((name, raw), picture) in enumerate(zip(listed, names, strict=True), start=1):
        predictions.append(_predicted(engine, name, raw, top, picture))
        if progress:
            progress(done, len(listed))
    if broken := sum(prediction.error is not None for prediction in predictions):
        warnings.warn(f"{broken} of {len(listed)} examples have no prediction; see the error of each.", stacklevel=2)
    return tuple(predictions)


def _picture_names(listed: Sequence[str], folder: Path | None) -> list[Path | None]:
    """Return a file for the picture of each prediction: the file's name, with a number where others have it too.

    Raises:
        UsageError: if a picture would replace a file that is predicted.
    """
    if folder is None:
        return [None] * len(listed)
    seen: Counter[str] = Counter()
    names: dict[Path, None] = {}
    for stem in (Path(name).stem for name in listed):
        file = None
        while file is None or file in names:  # a file may have a name that another one got by its number
            seen[stem] += 1
            file = folder / (stem + (f"-{seen[stem]}" if seen[stem] > 1 else "") + ".png")
        names[file] = None
    if replaced := {Path(name).resolve() for name in listed} & {file.resolve() for file in names}:
        raise UsageError(
            f"The picture of a prediction would replace the file '{min(replaced)}', which is predicted.",
            allowed="a folder that holds none of the files",
            next_step="choose another folder for --pictures",
        )
    return list(names)


def _predicted(engine: Engine, name: str, raw: Any, top: int, picture: Path | None) -> FilePrediction:
    began = perf_counter()
    try:
        inputs = engine.preprocess([raw])
    except InputError as error:
        reason = error.__cause__ if isinstance(error.__cause__, InputError) else error  # without the index in the batch
        return FilePrediction(file=name, error=reason.problem)
    prepared = perf_counter()
    prediction = engine(inputs)
    ended = perf_counter()
    if not np.isfinite(prediction.outputs).all():
        return FilePrediction(file=name, error="The network's outputs are not finite.")
    if picture is not None:
        drawn = prediction.picture(0)
        assert drawn is not None, "asked before"
        with storage_errors(picture.parent):
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_bytes(drawn)
    return FilePrediction(
        file=name,
        picture=None if picture is None else str(picture),
        stated=tuple(OutputValue(name=name, value=value) for name, value in prediction.stated(top)[0]),
        kind=prediction.kind,
        unit=prediction.unit,
        exit=prediction.exit_names[0],
        prepare_ms=1000 * (prepared - began),
        run_ms=1000 * (ended - prepared),
    )
