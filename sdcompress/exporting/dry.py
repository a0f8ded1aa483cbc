"""A dry export: the untrained network goes through the export, so that a refusal does not wait for the training."""

from __future__ import annotations

import numpy as np
import torch

from sdcompress import methods
from sdcompress.data.samples import Dataset
from sdcompress.errors import ParityError
from sdcompress.exporting.ensemble import GeometricEnsemble
from sdcompress.exporting.exit_selection import kept_exits
from sdcompress.exporting.graph import BATCH, INPUT, all_exits
from sdcompress.exporting.layout import cut
from sdcompress.exporting.reference import hard_logits
from sdcompress.modalities._geometry import normalise
from sdcompress.models.build import build
from sdcompress.models.multiexit import MultiExit
from sdcompress.schema.manifest import Input
from sdcompress.schema.recipe import Recipe
from sdcompress.verification.gate import Gate

__all__ = ["dry_export"]

_IMAGES = 8
_passed: set[str] = set()  # in this process; controls of a run often train the same network


def dry_export(recipe: Recipe, dataset: Dataset) -> None:
    """Export and cut a recipe's network with random weights; nothing is written. Takes as long as one export.

    Args:
        recipe: its model, exits, method and export decide.
        dataset: for the number of classes, and a few images.

    Raises:
        UsageError: if torch cannot export the network, or it cannot be cut.
        ParityError: if the graph loses the batch axis, or lets the images of a batch influence each other.
    """
    heads = methods.build(recipe.method).needs.exits
    exits = recipe.exits.model_dump_json() if heads else ""
    key = repr((recipe.model.model_dump_json(), exits, recipe.export.model_dump_json(), dataset.image, dataset.outputs))
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
        ).eval()
    _export(net, recipe, dataset)
    _passed.add(key)


def _export(net: MultiExit, recipe: Recipe, dataset: Dataset) -> None:
    settings, exits = recipe.export, net.exit_names
    whole = net.logits_only()
    heard = GeometricEnsemble(whole, list(range(len(exits)))) if settings.ensemble else whole
    graph = all_exits(heard, exits, dataset.image, opset=settings.opset)
    layout = cut(graph, "all", exits, dataset.task)
    for name in settings.layouts if len(exits) > 1 else ():
        cut(graph, name, exits[-1:] if name == "single" else kept_exits(exits, settings.kept_exits), dataset.task)
    images = dataset.train.examples(np.arange(min(_IMAGES, len(dataset.train))))
    with torch.no_grad():
        logits = [said.numpy() for said in heard(torch.from_numpy(normalise(images, dataset.preprocess)))]
    network_input = Input(name=INPUT, dtype="float32", shape=(BATCH, *dataset.image), preprocess=dataset.preprocess)
    truth = dict(zip(exits, logits, strict=True))
    hard = hard_logits(heard, exits, dataset.image, dataset.preprocess)
    gate = Gate(
        images, truth, hard, network_input=network_input, task=dataset.task, settings=settings, tick=lambda _: None
    )
    # untrained logits that are not finite say nothing of what a trained network gives
    problems = [
        f"{found.exit}: {found.problem}"
        for found in gate.findings(layout.graphs, layout.logits)
        if found.problem and np.isfinite(truth[found.exit]).all()
    ]
    if problems:
        raise ParityError(
            f"The network cannot be exported: its graph does not compute what torch computes. {'; '.join(problems)}.",
            allowed="the same logits, and no influence of one image of a batch on another",
            next_step="use norms with running statistics (no track_running_stats=False), or choose another backbone",
        )
