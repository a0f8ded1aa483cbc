"""quantize: an artifact becomes one in a lower precision."""

from __future__ import annotations

from sdcompress import recipes
from sdcompress.errors import requires_extra
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.machine import check_threads, default_threads
from sdcompress.options import Options
from sdcompress.schema.quantized import Quantized
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
        samples=section.calibration_samples,
        timed=True,
        threads=threads,
        overwrite=overwrite,
        progress=options.progress,
    )
