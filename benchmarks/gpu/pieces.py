"""What is measured, in pieces of some minutes. Each returns figures, or raises ``NotMeasured`` with the reason."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from cascades import cascade
from clocks import Sample, in_turn, medians, ratio, wall
from engines import limits, single
from place import BATCHES, NotMeasured, Place, engine, inputs_of, needs, needs_gpu, needs_tensorrt
from races import build, distilled, options, precisions
from table import PRECISIONS

from sdcompress.artifact.read import open_artifact
from sdcompress.errors import SdcompressError
from sdcompress.runtime.open import open_engine


def ceilings(place: Place) -> dict[str, Any]:
    """What this card can do at most."""
    del place
    needs_tensorrt()
    from ceilings import copies, products

    return {"copies": copies(), "tflops": products()}


def torch_beside(place: Place) -> dict[str, Any]:
    """Torch eager and compiled, FP32 and FP16, of the same network; TensorRT beside it where this Python has it."""
    needs("torch")
    import torch

    if not torch.cuda.is_available():
        raise NotMeasured("torch sees no GPU")
    checkpoint = place.artifacts / "checkpoint"
    if not checkpoint.exists():
        raise NotMeasured("there is no 'checkpoint' in the folder of --artifacts")
    from yardsticks import torch_calls

    found: dict[str, Any] = {}
    for rows in (1, 64):
        calls = torch_calls(checkpoint, rows)
        for precision in PRECISIONS[:2]:
            ours = _ours(place, precision, rows)
            if isinstance(ours, str):
                found[f"ours {precision}"] = ours
            else:
                calls[f"ours {precision}"] = ours
        times = in_turn(calls, rounds=6)
        found[f"batch {rows}"] = {
            **medians(times),
            "times against eager fp32": {
                name: ratio(times, "eager fp32", name, "end_to_end") for name in calls if name != "eager fp32"
            },
        }
    return found


def _ours(place: Place, precision: str, rows: int) -> Callable[[], Sample] | str:
    """Our engine in the same process as torch, or why it cannot be there."""
    try:
        path = place.built("single", precision)
        needs_tensorrt()
        network = engine(path)
    except (NotMeasured, SdcompressError) as error:
        return f"not measured: {str(error).splitlines()[0]}"
    batch = np.resize(inputs_of(open_artifact(path)), (rows, *network.modality.tensors[0].shape[1:]))
    return wall(partial(network, batch))


def ort_cuda(place: Place, precision: str = "fp32") -> dict[str, Any]:
    """ONNX Runtime on CUDA, from arrays to arrays."""
    needs_gpu()
    needs("onnxruntime")
    path = place.source("single", precision)
    try:
        network = open_engine(path, device="cuda", allow_uncertified=True)
    except SdcompressError as error:
        raise NotMeasured(error.problem) from error
    inputs, found = inputs_of(open_artifact(path)), {}
    for rows in BATCHES:
        batch = np.resize(inputs, (rows, *inputs.shape[1:]))
        found[f"batch {rows}"] = medians(in_turn({"onnxruntime cuda": wall(partial(network, batch))}, rounds=5))
    return found


PIECES: dict[str, Callable[[Place], dict[str, Any]]] = {
    "ceilings": ceilings,
    **{
        f"{name}-{precision}": partial(piece, precision=precision)
        for precision in PRECISIONS
        for name, piece in (
            ("build-single", partial(build, layout="single")),
            ("build-cascade", partial(build, layout="cascade")),
            ("single", single),
            ("cascade", cascade),
            ("limits", limits),
        )
    },
    "precisions": precisions,
    "options": options,
    **{f"distilled-{precision}": partial(distilled, precision=precision) for precision in PRECISIONS[:2]},
    "torch": torch_beside,
    "onnxruntime": ort_cuda,
}
