"""From a checkpoint to artifacts: one ONNX export, cut for each layout, proved on real images before it is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdcompress.artifact.golden import Golden
from sdcompress.artifact.write import staged
from sdcompress.checkpoint import Checkpoint, open_checkpoint
from sdcompress.errors import UnknownNameError, UsageError
from sdcompress.exporting.gate import Gate
from sdcompress.exporting.graph import BATCH, INPUT, all_exits
from sdcompress.exporting.layout import Facts, LayoutName, cut, write
from sdcompress.exporting.provenance import provenance
from sdcompress.exporting.reference import Reference, reference
from sdcompress.schema import recipe
from sdcompress.schema.manifest import Input, Manifest

__all__ = ["Target", "export", "export_all"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Target:
    """One artifact to be made.

    Attributes:
        out: the folder to write.
        layout: single, cascade or all.
        exit: the exit that 'single' keeps; None for the last.
    """

    out: Path
    layout: LayoutName
    exit: str | None = None


def export(
    checkpoint: Path | str,
    out: Path | str,
    *,
    layout: LayoutName,
    exit: str | None = None,  # noqa: A002 - the word of the manifest and of the command line
    settings: recipe.Export,
    data_dir: Path | str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Export one artifact; see ``Target`` and ``export_all``."""
    target = Target(Path(out), layout, exit)
    (manifest,) = export_all(
        checkpoint, [target], settings=settings, data_dir=data_dir, overwrite=overwrite, progress=progress
    )
    return manifest


def export_all(
    checkpoint: Path | str,
    targets: Sequence[Target],
    *,
    settings: recipe.Export,
    data_dir: Path | str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[Manifest, ...]:
    """Export a checkpoint to several artifacts with a single torch export; either all are written or none.

    Args:
        checkpoint: a checkpoint or training folder.
        targets: the artifacts to make; at least one.
        settings: opset, largest batch and tolerances.
        data_dir: where the data lies, if elsewhere than in the recipe.
        overwrite: replace artifacts that are there.
        progress: told (done, total) images.

    Returns:
        The manifest of each target.

    Raises:
        CheckpointError: if the checkpoint is not intact.
        DataError: if there are too few held-out images to prove the export.
        UsageError: if the network cannot be exported or cut, or there is no such exit.
        OutputExistsError: if an output folder holds something that would be lost.
        ParityError: if an export does not compute what the checkpoint computes; it is left in ``<out>.failed``.
        StorageError: if the disk is full.
    """
    source = open_checkpoint(checkpoint)
    net = source.network()
    exits = [_exits(net.exit_names, target) for target in targets]
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(staged(target.out, overwrite=overwrite)) for target in targets]
        dataset = source.dataset(data_dir)
        count = _Counter(progress, len(dataset.val) + settings.parity_samples * (1 + len(targets)))
        truth = reference(net.logits_only(), dataset, samples=settings.parity_samples, tick=count)
        facts = _facts(source, net.exit_names, truth)
        logits = dict(zip(net.exit_names, truth.logits, strict=True))
        gate = Gate(truth.images, logits, network_input=facts.network_input, settings=settings, tick=count)
        model = all_exits(net.logits_only(), net.exit_names, source.image, opset=settings.opset)
        uncut = cut(model, "all", net.exit_names)
        gate(uncut.graphs, uncut.logits, out=targets[0].out, what="ONNX export")
        manifests = []
        for target, kept, folder in zip(targets, exits, folders, strict=True):
            layout = cut(model, target.layout, kept)
            records = gate(layout.graphs, layout.logits, out=target.out, what=f"layout '{target.layout}'")
            gate.signals(layout.graphs, layout.signals, layout.logits)
            manifests.append(write(layout, facts, records, folder))
    return tuple(manifests)


def _exits(known: tuple[str, ...], target: Target) -> tuple[str, ...]:
    if target.exit is None:
        return known[-1:] if target.layout == "single" else known
    if target.layout != "single":
        raise UsageError(
            f"The exit '{target.exit}' was asked for with the layout '{target.layout}', which keeps all exits.",
            allowed="an exit with the layout 'single'",
            next_step="choose the layout 'single', or leave the exit out",
        )
    if target.exit not in known:
        raise UnknownNameError("exits", target.exit, known)
    return (target.exit,)


def _facts(source: Checkpoint, exits: tuple[str, ...], truth: Reference) -> Facts:
    return Facts(
        classes=source.classes,
        network_input=Input(name=INPUT, dtype="float32", shape=(BATCH, *source.image), preprocess=source.preprocess),
        accuracy=dict(zip(exits, truth.accuracy, strict=True)),
        ece=dict(zip(exits, truth.ece, strict=True)),
        golden=Golden(truth.images, truth.labels, truth.logits).capped(),
        provenance=provenance(source),
    )


class _Counter:
    """Adds up images for a progress function."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, images: int) -> None:
        self._done = min(self._done + images, self._total)
        if self._progress is not None:
            self._progress(self._done, self._total)
