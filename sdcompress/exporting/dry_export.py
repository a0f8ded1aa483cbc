"""A dry export of the network before its training, so that a refusal comes before the training."""

from __future__ import annotations

import numpy as np
import torch

from sdcompress import methods
from sdcompress.data.samples import Dataset
from sdcompress.errors import ParityError
from sdcompress.exporting.checkpoint_outputs import edge_case_outputs
from sdcompress.exporting.ensemble import GeometricEnsemble
from sdcompress.exporting.export_spec import kept_exits
from sdcompress.exporting.graph import export_all_exits
from sdcompress.exporting.layout import cut_layout
from sdcompress.models.build import build
from sdcompress.models.multiexit import MultiExit
from sdcompress.schema.recipe import Recipe
from sdcompress.training.warm_start import start_cuts
from sdcompress.verification.gate import ParityGate

__all__ = ["dry_export"]

_SAMPLES = 8
_passed: set[str] = set()  # in this process; controls of a run often train the same network


def dry_export(recipe: Recipe, dataset: Dataset) -> None:
    """Export and cut a recipe's network with random weights, without writing anything; takes as long as one export.

    A network that starts from a pruned checkpoint is pruned like that.

    Args:
        recipe: with the model, exits, method and export.
        dataset: for the number of classes, and a few images.

    Raises:
        CheckpointError: if it starts from a checkpoint that is not intact.
        UsageError: if torch cannot export the network, it cannot be cut, or its task has no ensemble of exits.
        ParityError: if the graph loses the batch axis, or images of a batch influence each other.
    """
    heads = methods.build(recipe.method).needs.exits
    exits = recipe.exits.model_dump_json() if heads else ""
    cuts = start_cuts(recipe, exits=heads)
    settings = recipe.model.model_dump_json(), exits, recipe.export.model_dump_json(), cuts
    key = repr((*settings, dataset.modality, dataset.task))
    if key in _passed:
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        net = build(
            recipe.model.untrained,
            recipe.exits,
            outputs=dataset.task.output_shape,
            inputs=dataset.modality.tensors,
            heads=heads,
            cuts=cuts,
        ).eval()
    _export(net, recipe, dataset)
    _passed.add(key)


def _export(net: MultiExit, recipe: Recipe, dataset: Dataset) -> None:
    settings, exits = recipe.export, net.exit_names
    logits_of = net.logits_only()
    ensemble = GeometricEnsemble(logits_of, dataset.task) if settings.ensemble else logits_of
    graph = export_all_exits(ensemble, exits, dataset.modality, opset=settings.opset)
    layout = cut_layout(graph, "all", exits, dataset.task)
    for name in settings.layouts if len(exits) > 1 else ():
        cut_layout(
            graph, name, exits[-1:] if name == "single" else kept_exits(exits, settings.keep_exits), dataset.task
        )
    examples = dataset.train.examples(np.arange(min(_SAMPLES, len(dataset.train))))
    with torch.no_grad():
        arrays = dataset.modality.ordered(dataset.modality.collate(examples))
        outputs = [output.numpy() for output in ensemble(*map(torch.from_numpy, arrays))]
    truth = dict(zip(exits, outputs, strict=True))
    edge_cases = edge_case_outputs(ensemble, exits, dataset.modality)
    gate = ParityGate(
        examples,
        truth,
        edge_cases,
        modality=dataset.modality,
        task=dataset.task,
        settings=settings,
        advance=lambda _: None,
    )
    # untrained logits that are not finite prove nothing about a trained network
    problems = [
        f"{finding.exit}: {finding.problem}"
        for finding in gate.findings(layout.graphs, layout.outputs)
        if finding.problem and np.isfinite(truth[finding.exit]).all()
    ]
    if problems:
        raise ParityError(
            f"The network cannot be exported: its graph does not compute what torch computes. {'; '.join(problems)}.",
            allowed="the same outputs, and no influence of one example of a batch on another",
            next_step="use norms with running statistics (no track_running_stats=False), or choose another backbone",
        )
