"""quantize as a Python call: an artifact, and the data that belongs to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sdcompress.errors import UsageError, requires_extra
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.machine import check_threads, default_threads
from sdcompress.schema.quantized import Quantized

__all__ = ["quantize"]

Folder = Path | str
Progress = Callable[[int, int], None]


def quantize(
    artifact: Folder,
    out: Folder,
    *,
    precision: str,
    max_drop: float = 0.01,
    samples: int | None = None,
    data_dir: Folder | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Quantized:
    """Write an artifact in a lower precision, which is kept only if no exit loses more accuracy than is allowed.

    The policy, its certificate, temperatures, a graph that exits by itself and engines are not in the new artifact:
    they were made for other confidences. Calibrate it next.

    Args:
        artifact: in fp32, of any layout.
        out: folder of the new artifact.
        precision: of 'sdcompress list precisions'.
        max_drop: accuracy that every exit may lose on the validation split, 0.01 = one point.
        samples: training images that give the ranges of activations, for a precision that needs them;
            default: 512, or all where there are fewer.
        data_dir: where the data lies, if elsewhere than in the recipe.
        threads: of ONNX Runtime; default: what other work leaves free.
        overwrite: replace an artifact that is there.
        progress: called with (images run, all images): calibration, segment by segment, then validation.

    Returns:
        What every exit lost, the sizes, and how fast it is here beside ``artifact``. Opening ``out`` gives the rest.

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
    threads = default_threads().threads if threads is None else threads
    check_threads(threads)
    with requires_extra("quantize"):
        from sdcompress.quantizing.quantize import quantize as run_quantize
        from sdcompress.quantizing.speed import speed_beside

    trained = open_trained_model(artifact)
    if trained.kind == "checkpoint":
        raise UsageError(
            f"'{artifact}' is a checkpoint.",
            allowed="an artifact in fp32",
            next_step=f"sdcompress export {artifact} --out ARTIFACT; sdcompress quantize ARTIFACT --precision "
            f"{precision} --out {out}",
        )
    dataset = trained.dataset(data_dir)
    validation = dataset.split("validation")
    found = run_quantize(
        artifact,
        out,
        precision=precision,
        training=dataset.train,
        validation=validation,
        max_drop=max_drop,
        samples=samples,
        threads=threads,
        overwrite=overwrite,
        progress=progress,
    )
    return found.model_copy(update={"speed": speed_beside(artifact, out, validation, threads=threads)})
