"""export in a format: ONNX graphs of a checkpoint, or TensorRT engines beside the graphs of an artifact."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from sdcompress.artifact.read import MANIFEST
from sdcompress.checkpoint import open_checkpoint
from sdcompress.errors import UsageError
from sdcompress.exporting import verbs
from sdcompress.schema.graphs import Ensemble, Layout
from sdcompress.schema.manifest import Manifest
from sdcompress.tensorrt.building.build import build_engines
from sdcompress.tensorrt.building.settings import BuildSettings
from sdcompress.tensorrt.nvidia.trt import load

__all__ = ["export"]

Folder = Path | str
Progress = Callable[[int, int], None]


def export(
    source: Folder,
    out: Folder,
    *,
    format: Literal["onnx", "trt"] = "onnx",  # noqa: A002 - the word of the command line
    layout: Layout | None = None,
    exit: str | None = None,  # noqa: A002 - the field's word
    exits: Sequence[str] | None = None,
    opset: int | None = None,
    ensemble: Ensemble | None = None,
    data_dir: Folder | None = None,
    threads: int | None = None,
    build: BuildSettings | None = None,
    trust_modules: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Write an artifact, proven against the checkpoint: its ONNX graphs, or with ``trt`` these and engines of them.

    Args:
        source: a checkpoint, or the folder of a training run; for ``graph`` and ``if`` a calibrated cascade; for
            ``trt`` an artifact, or a checkpoint, which is exported to ONNX first.
        out: folder of the artifact; for ``trt`` it may be ``source`` itself, with ``overwrite``.
        format: onnx, or trt: TensorRT engines for the GPU of this machine, one for each graph.
        layout: ``single`` (one exit, the others pruned), ``cascade`` (early exit, the default) or ``all`` (every exit's
            logits); or one graph that exits by itself beside the cascade: ``graph``, or ``if`` for one image at a time.
        exit: of ``single``; default: the last.
        exits: of ``cascade`` and ``all``: those to keep beside the last; their segments are joined, the heads of the
            others pruned. Default: the recipe's, or all.
        opset: of ONNX; default: the recipe's, which also gives the tolerances.
        ensemble: geometric: an exit's logits are the mean of log softmax over the exits so far, of those in the file
            (of ``single``: over all of the network); default: the recipe's.
        data_dir: where the data lies, if elsewhere than in the recipe. Engines are held against its validation images
            too; where it is not given and they are not there, they are not, with a warning.
        threads: of the CPU, while a checkpoint is exported and its graphs are compared with it; default: what other
            work leaves free.
        build: how engines are built.
        trust_modules: of a checkpoint: import the module that it names, which runs its code, also where you have not
            trained it here yourself.
        overwrite: replace an artifact that is there.
        progress: told (done, total).

    Raises:
        CheckpointError, ArtifactError: if the source is not intact.
        ParityError: if the result does not compute what the checkpoint computes; nothing verified is left then.
        SetupError: if this machine has no GPU or TensorRT that engines could be built with.
        VerificationError: if leaving early is not faster in ``graph`` or ``if``; or if a plan is not as asked for, or
            engines lose more accuracy than they may.
        OutputExistsError: if ``out`` holds something.
        UsageError: if ``threads`` is more than this machine runs at once, ``source`` is not what is asked for is made
            of, TensorRT cannot parse it, or a checkpoint names a module that is not trusted.
    """
    asked: dict[str, Any] = {
        "layout": layout,
        "exit": exit,
        "exits": exits,
        "opset": opset,
        "ensemble": ensemble,
    }
    onnx = {name: value for name, value in asked.items() if value is not None}
    if format == "onnx":
        if build is not None:
            raise UsageError(
                "Settings for building engines are given, and no engines are asked for.",
                allowed="these with the format 'trt'",
                next_step="add --format trt, or leave them out",
            )
        onnx |= {"threads": threads, "trust_modules": trust_modules}
        return verbs.export(source, out, **onnx, data_dir=data_dir, overwrite=overwrite, progress=progress)
    return _export_engines(
        source,
        out,
        onnx,
        build,
        threads=threads,
        trust_modules=trust_modules,
        data_dir=data_dir,
        overwrite=overwrite,
        progress=progress,
    )


def _export_engines(
    source: Folder,
    out: Folder,
    onnx: dict[str, Any],
    build: BuildSettings | None,
    *,
    threads: int | None,
    trust_modules: bool,
    data_dir: Folder | None,
    overwrite: bool,
    progress: Progress | None,
) -> Manifest:
    if (Path(source) / MANIFEST).exists():
        if onnx or threads is not None:
            chosen = [*onnx, *(["threads"] if threads is not None else [])]
            raise UsageError(
                f"'{source}' is an artifact: its graphs are made, {', '.join(chosen)} cannot be chosen any more.",
                allowed="these with a checkpoint",
                next_step=f"leave {' and '.join(chosen)} out, or name the checkpoint",
            )
        return build_engines(source, out, settings=build, data_dir=data_dir, overwrite=overwrite, progress=progress)
    open_checkpoint(source)  # or neither
    if (layout := onnx.get("layout")) in ("graph", "if"):
        raise UsageError(
            f"The layout '{layout}' is one graph that exits by itself; TensorRT runs both branches of it.",
            allowed="single, cascade or all: an engine for each graph, chained by the runtime",
            next_step="leave --layout out for a cascade",
        )
    load(builds=True)  # before the export takes its minutes
    with tempfile.TemporaryDirectory(prefix="sdcompress-") as folder:
        graphs = Path(folder) / "onnx"
        onnx |= {"threads": threads, "trust_modules": trust_modules}
        verbs.export(source, graphs, **onnx, data_dir=data_dir, progress=progress)
        return build_engines(graphs, out, settings=build, data_dir=data_dir, overwrite=overwrite, progress=progress)
