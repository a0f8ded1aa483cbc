"""quantize: write an artifact in a lower precision."""

from __future__ import annotations

import shlex

from sdcompress import recipes
from sdcompress.errors import requires_extra
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.machine import check_threads, default_threads
from sdcompress.options import Options
from sdcompress.schema.change import Quantized
from sdcompress.schema.recipe import Quantize
from sdcompress.verbs._types import Folder, Overrides, Source

__all__ = ["quantize"]


def quantize(
    source: Source,
    out: Folder,
    precision: str,
    settings: Quantize | Overrides | None = None,
    options: Options | None = None,
    *,
    overwrite: bool = False,
) -> Quantized:
    """Write an artifact in a lower precision, unless an exit loses more than the largest drop of the metric.

    The new artifact has no policy, certificate, temperatures, graph that exits by itself, nor engines, because scores
    change. Calibrate it next.

    Args:
        source: an artifact in fp32, of any layout.
        out: folder of the new artifact.
        precision: one of 'sdcompress list precisions'.
        settings: the largest drop of every exit, and the number of samples for ranges.
        options: threads of ONNX Runtime; default: those that other work leaves free. Progress in samples: calibration,
            segment by segment, then validation.
        overwrite: replace an existing artifact.

    Returns:
        The drop of every exit, the sizes, and the speed here compared with ``source``.

    Raises:
        ArtifactError, DataError: if the artifact or the data is missing or not intact.
        UsageError: if the artifact is not in fp32, an argument is out of range, or ``samples`` is given to a precision
            that needs none; UnknownNameError: no such precision.
        SetupError: if ONNX Runtime cannot run this precision on this machine.
        VerificationError: if an exit loses more, with graphs and figures in ``<out>.failed``; or if values of the
            network overflow float16, in fp16 or fp8.
        ParityError: if the written file does not repeat the measured outputs.
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
        next_step=f"sdcompress export {shlex.quote(str(model.path))} --out ARTIFACT; sdcompress quantize ARTIFACT "
        f"--precision {precision} --out {shlex.quote(str(out))}",
    )
    section, dataset = recipes.override(model.recipe.quantize, settings), model.dataset()
    return run_quantize(
        artifact,
        out,
        precision=precision,
        training=dataset.train,
        validation=dataset.split("validation"),
        max_drop=section.max_drop,
        samples=section.calibration_samples,
        timed=True,
        threads=threads,
        overwrite=overwrite,
        progress=options.progress,
    )
