"""export: export a checkpoint to ONNX, or a calibrated cascade to one graph that exits by itself."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from sdcompress import recipes
from sdcompress.errors import UsageError, requires_extra
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.exporting.export_spec import ExportSpec
from sdcompress.machine import check_threads, default_threads, machine
from sdcompress.options import Options
from sdcompress.schema.graphs import Layout
from sdcompress.schema.manifest import Manifest
from sdcompress.schema.recipe import Export
from sdcompress.verbs._types import Folder, Overrides, Source

__all__ = ["export", "export_all"]


def export(
    source: Source,
    out: Folder,
    settings: Export | Overrides | None = None,
    options: Options | None = None,
    *,
    layout: Layout = "cascade",
    truncate_at: str | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Export a checkpoint to an artifact of ONNX graphs, which are compared with the checkpoint.

    Args:
        source: a checkpoint, or the folder of a training run; for ``graph`` and ``if`` a calibrated cascade.
        out: folder of the artifact.
        settings: opset, tolerances, ensemble; ``keep_exits``: those that ``cascade`` and ``all`` keep beside the last.
        options: folder of the data; threads of the comparison. Progress in samples.
        layout: ``single`` (one exit), ``cascade`` (early exit), ``all`` (outputs of every exit), or a cascade with a
            graph that exits by itself: ``graph``, or ``if`` for one sample at a time.
        truncate_at: the exit at which the network ends, so the last of a cascade; default: the last that it has.
        overwrite: replace an existing artifact.

    Raises:
        CheckpointError, ArtifactError: if the source is not intact.
        ParityError: if the outputs differ from those of the checkpoint; no artifact is written then.
        VerificationError: if early exit is not faster in ``graph`` or ``if``.
        OutputExistsError: if ``out`` holds something.
        UsageError: if ``options.threads`` is more than this machine runs at once, the layout cannot be made from
            ``source``, or a checkpoint names a module that is not trusted.
    """
    options = options or Options()
    if layout == "graph" or layout == "if":  # noqa: PLR1714 - mypy narrows by ==
        chosen = [] if settings is None else list(settings) if isinstance(settings, Mapping) else ["settings"]
        chosen += ["truncate_at"] * (truncate_at is not None) + ["threads"] * (options.threads is not None)
        if chosen:
            raise UsageError(
                f"{', '.join(chosen)} cannot be chosen with the layout '{layout}', made of a calibrated cascade.",
                allowed="the exits, opset and outputs of the cascade; it is timed with one thread",
                next_step="leave it out, or export the cascade with it and calibrate that",
            )
        return _export_one_graph(source, out, layout, options, overwrite=overwrite)
    model = open_trained_model(source, options)
    section = recipes.override(model.checkpoint().recipe.export, settings)
    named = isinstance(settings, Mapping) and "keep_exits" in settings  # those of the recipe are for other layouts
    kept = section.keep_exits if layout != "single" or named else ()
    (manifest,) = export_all(
        model, [ExportSpec(Path(out), layout, truncate_at, kept)], section, options, overwrite=overwrite
    )
    return manifest


def export_all(
    source: Source,
    targets: Sequence[ExportSpec],
    settings: Export | Overrides | None = None,
    options: Options | None = None,
    *,
    overwrite: bool = False,
) -> tuple[Manifest, ...]:
    """Export a checkpoint to several artifacts, with as few exports by torch as possible; all are written or none.

    Args:
        source: a checkpoint, or the folder of a training run.
        targets: the artifacts to make; at least one.
        settings: as in ``export``, which also lists the errors.
        options: as in ``export``.
        overwrite: replace existing artifacts.
    """
    options = options or Options()
    threads = default_threads().threads if options.threads is None else options.threads
    check_threads(threads)
    with requires_extra("export"):
        from sdcompress.exporting.export import export_all as run_export
        from sdcompress.models.threads import torch_threads

    model = open_trained_model(source, options)
    section = recipes.override(model.checkpoint().recipe.export, settings)
    with torch_threads(threads):
        return run_export(model, targets, section, options, overwrite=overwrite)


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
            next_step=f"sdcompress export {shlex.quote(str(model.path))} --layout cascade --out CASCADE; sdcompress "
            f"calibrate CASCADE --out EARLY; sdcompress export EARLY --layout {kind} --out {shlex.quote(str(out))}",
        )
    machine_info = machine()
    host = Host(machine_info.cpu, machine_info.busy_cores)
    return export_one_graph(model, out, options, kind=kind, host=host, overwrite=overwrite)
