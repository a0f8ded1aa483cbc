"""A cascade of two networks as an artifact: the small one answers what it is sure of, the large one sees the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import compose

from sdcompress.artifact.golden import Golden
from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.write import staged
from sdcompress.exporting.graph import BATCH, output_name
from sdcompress.exporting.layout import ExportFacts, LayoutGraphs, write_layout
from sdcompress.modalities.image import Image
from sdcompress.onnx_graph.exit_signals import add_signals

__all__ = ["two_networks"]


def two_networks(small: Path, large: Path, out: Path) -> None:
    """Join two networks of one exit each; the second takes the image again.

    Args:
        small: an artifact of layout 'single'.
        large: another, of the same classes and input, exported with the same data.
        out: the cascade to write.
    """
    artifacts = {"small": open_artifact(small), "large": open_artifact(large)}
    models = {
        name: _named(name, onnx.load(artifact.file(artifact.manifest.segments[0])))
        for name, artifact in artifacts.items()
    }
    task = artifacts["large"].task
    first, signals = add_signals(models["small"], "small", output_name("small"), task, batch=BATCH)
    layout = LayoutGraphs(
        "cascade", ("small", "large"), {"segment-0.onnx": first, "segment-1.onnx": models["large"]}, {"small": signals}
    )
    manifests = {name: artifact.manifest for name, artifact in artifacts.items()}
    golden = {name: artifact.golden() for name, artifact in artifacts.items()}
    assert np.array_equal(golden["small"].examples, golden["large"].examples), "the networks saw other data"
    facts = ExportFacts(
        task=task,
        modality=artifacts["large"].modality,
        metrics={name: manifest.exits[0].metrics for name, manifest in manifests.items()},
        golden=Golden(
            golden["large"].examples,
            golden["large"].targets,
            np.concatenate([golden[name].outputs for name in ("small", "large")]),
        ),
        provenance=manifests["large"].provenance,
    )
    records = tuple(manifest.parity[0].model_copy(update={"exit": name}) for name, manifest in manifests.items())
    with staged(out, overwrite=True) as folder:
        write_layout(layout, facts, records, folder)


def _named(name: str, model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with the input of all networks and logits of its own; all else is prefixed."""
    (given,), (logits,) = model.graph.input, model.graph.output
    names = {f"{name}/{given.name}": Image.INPUT, f"{name}/{logits.name}": output_name(name)}
    found = compose.add_prefix(model, f"{name}/", rename_value_infos=True)
    for node in found.graph.node:
        node.input[:] = [names.get(one, one) for one in node.input]
        node.output[:] = [names.get(one, one) for one in node.output]
    for value in (*found.graph.input, *found.graph.output):
        value.name = names[value.name]
    for value in (*found.graph.input, *found.graph.output, *found.graph.value_info):
        if value.type.tensor_type.shape.dim and value.type.tensor_type.shape.dim[0].dim_param:
            value.type.tensor_type.shape.dim[0].dim_param = BATCH  # add_prefix renames axes too
    onnx.checker.check_model(found, full_check=True)
    return found
