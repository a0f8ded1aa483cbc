"""export to ONNX: a checkpoint, or a calibrated cascade, and what is loaded only for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from sdcompress import recipes
from sdcompress.artifact.read import MANIFEST
from sdcompress.checkpoint import open_checkpoint
from sdcompress.errors import UsageError, requires_extra
from sdcompress.machine import check_threads, default_threads, machine
from sdcompress.schema.graphs import Ensemble, Layout
from sdcompress.schema.manifest import Manifest

__all__ = ["export"]

Folder = Path | str
Progress = Callable[[int, int], None]


def export(
    source: Folder,
    out: Folder,
    *,
    layout: Layout = "cascade",
    exit: str | None = None,  # noqa: A002 - the field's word
    exits: Sequence[str] | None = None,
    opset: int | None = None,
    ensemble: Ensemble | None = None,
    trust_modules: bool = False,
    data_dir: Folder | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """The part of ``sdcompress.export`` that writes ONNX; arguments and errors are described there."""
    if layout == "graph" or layout == "if":  # noqa: PLR1714 - mypy narrows by ==
        given = {"exit": exit, "exits": exits, "opset": opset, "ensemble": ensemble, "threads": threads}
        if ignored := [name for name, value in given.items() if value is not None]:
            raise UsageError(
                f"{', '.join(ignored)} cannot be chosen with the layout '{layout}', made of a calibrated cascade.",
                allowed="the cascade's own exits, opset and logits; it is timed with one thread",
                next_step="leave it out, or export the cascade with it and calibrate that",
            )
        return _export_one_graph(source, out, layout, data_dir=data_dir, overwrite=overwrite, progress=progress)
    threads = default_threads().threads if threads is None else threads
    check_threads(threads)
    with requires_extra("export"):
        from sdcompress.exporting.export import export as run_export
        from sdcompress.models.threads import torch_threads

    asked = {"opset": opset, "ensemble": ensemble, "kept_exits": None if exits is None else list(exits)}
    chosen = [f"export.{key}={json.dumps(value)}" for key, value in asked.items() if value is not None]
    recipe = recipes.read(open_checkpoint(source).recipe, chosen)
    kept = recipe.export.kept_exits if layout != "single" else tuple(exits or ())
    with torch_threads(threads):
        return run_export(
            source,
            out,
            layout=layout,
            exit=exit,
            exits=kept,
            settings=recipe.export,
            trust_modules=trust_modules,
            data_dir=data_dir,
            overwrite=overwrite,
            progress=progress,
        )


def _export_one_graph(
    source: Folder,
    out: Folder,
    kind: Literal["graph", "if"],
    *,
    data_dir: Folder | None,
    overwrite: bool,
    progress: Progress | None,
) -> Manifest:
    with requires_extra("export"):
        from sdcompress.exporting.one_graph import Host, export_one_graph

    if not (Path(source) / MANIFEST).exists():
        open_checkpoint(source)  # or neither
        raise UsageError(
            f"'{source}' is a checkpoint; the thresholds of a cascade go into the layout '{kind}'.",
            allowed="a calibrated cascade",
            next_step=f"sdcompress export {source} --layout cascade --out CASCADE; sdcompress calibrate CASCADE --out "
            f"EARLY; sdcompress export EARLY --layout {kind} --out {out}",
        )
    here = machine()
    host = Host(here.cpu, here.busy_cores)
    return export_one_graph(
        source, out, kind=kind, host=host, data_dir=data_dir, overwrite=overwrite, progress=progress
    )
