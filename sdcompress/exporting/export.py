"""Export a checkpoint to artifacts: one ONNX export, cut for each layout, and compared with the checkpoint."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch

from sdcompress.artifact.golden import Golden
from sdcompress.artifact.write import staged
from sdcompress.checkpoint import Checkpoint
from sdcompress.data.samples import Dataset
from sdcompress.errors import UnknownNameError, UsageError
from sdcompress.evaluation.trained_model import TrainedModel, open_trained_model
from sdcompress.exporting.checkpoint_outputs import CheckpointOutputs, edge_case_outputs, gate_samples, reference
from sdcompress.exporting.ensemble import GeometricEnsemble
from sdcompress.exporting.export_spec import ExportSpec, kept_exits
from sdcompress.exporting.graph import export_all_exits
from sdcompress.exporting.layout import ExportFacts, LayoutGraphs, cut_layout, write_layout
from sdcompress.exporting.provenance import provenance
from sdcompress.models.multiexit import MultiExit
from sdcompress.onnx_graph.tensorrt8 import DYNAMO_OPSET, unsupported_by_8_5
from sdcompress.options import Options
from sdcompress.progress import progress_counter
from sdcompress.schema import recipe
from sdcompress.schema.manifest import Manifest
from sdcompress.verification import parity
from sdcompress.verification.gate import ParityGate

__all__ = ["export_all"]


def export_all(
    source: TrainedModel | Path | str,
    targets: Sequence[ExportSpec],
    settings: recipe.Export,
    options: Options | None = None,
    *,
    overwrite: bool = False,
) -> tuple[Manifest, ...]:
    """Export a checkpoint to several artifacts with as few torch exports as possible; writes all or none.

    An ensemble consists of the exits that a file keeps, so each choice of exits needs an export.

    Args:
        source: a checkpoint or training folder.
        targets: the artifacts to make; at least one.
        settings: opset, largest batch and tolerances, and whether exits are ensembles.
        options: where the data lies; progress in images.
        overwrite: replace existing artifacts.

    Returns:
        The manifest of each target.

    Raises:
        CheckpointError: if the checkpoint is not intact.
        DataError: if there is no held-out image to compare the export on.
        UsageError: if the network cannot be exported or cut, or there is no such exit.
        OutputExistsError: if an output folder holds something that would be lost.
        ParityError: if an export does not compute what the checkpoint computes; it is saved in ``<out>.failed``.
        StorageError: if the disk is full.
    """
    options = options or Options()
    model = open_trained_model(source, options)
    checkpoint = model.checkpoint()
    net = checkpoint.network(trust_modules=options.trust_modules)
    exits_of = [_exits_of_target(net.exit_names, target) for target in targets]
    choices = [
        exits if settings.ensemble and target.layout != "single" else net.exit_names
        for target, exits in zip(targets, exits_of, strict=True)
    ]
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(staged(target.out, overwrite=overwrite)) for target in targets]
        dataset = model.dataset()
        distinct = tuple(dict.fromkeys(choices))
        proving = gate_samples(dataset, settings.parity_samples, len(net.exit_names))
        if weaker := parity.weaker(proving, settings.parity_samples):
            warnings.warn(weaker, stacklevel=2)
        images = len(distinct) * (len(dataset.val) + proving) + len(targets) * proving
        tick = progress_counter(options.progress, images)
        exported = {
            choice: _export(
                checkpoint, net, choice, dataset, settings=settings, count=tick, out=targets[choices.index(choice)].out
            )
            for choice in distinct
        }
        manifests, layouts = [], []
        for target, exits, choice, folder in zip(targets, exits_of, choices, folders, strict=True):
            graph = exported[choice]
            layout = cut_layout(graph.model, target.layout, exits, checkpoint.task)
            layout.describe(checkpoint.task, checkpoint.modality)
            files = layout.graphs
            records = graph.gate(files, layout.outputs, out=target.out, what=f"layout '{target.layout}'")
            graph.gate.signals(files, layout.signals, layout.outputs)
            manifests.append(write_layout(layout, graph.facts, records, folder))
            layouts.append(layout)
    if settings.opset < DYNAMO_OPSET:
        _warn_unsupported({target.out.name: layout for target, layout in zip(targets, layouts, strict=True)})
    return tuple(manifests)


def _warn_unsupported(layouts: Mapping[str, LayoutGraphs]) -> None:
    """Warn of operators that TensorRT 8.5 cannot parse, for which these opsets are mostly used.

    It is no error, because other runtimes support them, and only the parser decides when engines are built. But that
    happens on another machine, perhaps without torch to export again.
    """
    unknown = unsupported_by_8_5(
        {f"{out}/{file}": model for out, layout in layouts.items() for file, model in layout.models.items()}
    )
    if unknown:
        warnings.warn(
            f"TensorRT 8.5 cannot parse {unknown}. For TensorRT 8.5, export with --opset 16, which decomposes "
            "LayerNormalization; for other operators, choose another backbone or other heads, or TensorRT 10 or 11.",
            stacklevel=3,
        )


def _exits_of_target(exit_names: tuple[str, ...], target: ExportSpec) -> tuple[str, ...]:
    if target.exit is not None and target.exit not in exit_names:
        raise UnknownNameError("exits", target.exit, exit_names)
    end = target.exit or exit_names[-1]
    if target.layout != "single":
        return kept_exits(exit_names, target.exits, end=end)
    if target.exits:
        raise UsageError(
            f"Exits to keep ({', '.join(target.exits)}) were named with the layout 'single', which has one exit.",
            allowed="exits to keep with the layouts 'cascade' and 'all'",
            next_step="name the one exit (--truncate-at), or choose the layout 'cascade'",
        )
    return (end,)


@dataclass(frozen=True)
class _Exported:
    """All exits of a network as one graph that passed the gate."""

    model: onnx.ModelProto
    gate: ParityGate
    facts: ExportFacts


def _export(
    source: Checkpoint,
    net: MultiExit,
    exits: tuple[str, ...],
    dataset: Dataset,
    *,
    settings: recipe.Export,
    count: Callable[[int], None],
    out: Path,
) -> _Exported:
    """Export some exits of an ensemble, or all of a network without one."""
    positions = [net.exit_names.index(exit_) for exit_ in exits]
    outputs_of = (
        GeometricEnsemble(net.logits_only(), source.task, positions) if settings.ensemble else net.logits_only()
    )
    samples = gate_samples(dataset, settings.parity_samples, len(net.exit_names))
    truth = reference(outputs_of, dataset, samples=samples, advance=count)
    facts = _facts(source, settings, exits, truth)
    outputs = dict(zip(exits, truth.outputs, strict=True))
    gate = ParityGate(
        truth.examples,
        outputs,
        edge_case_outputs(outputs_of, exits, source.modality),
        modality=source.modality,
        task=source.task,
        settings=settings,
        advance=count,
        threads=torch.get_num_threads(),
    )
    model = export_all_exits(outputs_of, exits, source.modality, opset=settings.opset)
    uncut = cut_layout(model, "all", exits, source.task)
    gate(uncut.graphs, uncut.outputs, out=out, what="ONNX export")
    return _Exported(model, gate, facts)


def _facts(
    source: Checkpoint, settings: recipe.Export, exits: tuple[str, ...], truth: CheckpointOutputs
) -> ExportFacts:
    return ExportFacts(
        task=source.task,
        modality=source.modality,
        metrics=dict(zip(exits, truth.metrics, strict=True)),
        golden=Golden(truth.examples, truth.targets, truth.outputs).capped(source.modality),
        provenance=provenance(source, settings),
    )
