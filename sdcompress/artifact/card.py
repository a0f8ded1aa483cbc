"""The card of an artifact (README.md), which explains the files to people who do not know sdcompress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdcompress.artifact.certificate import ExecutionTarget
from sdcompress.artifact.example import example
from sdcompress.modalities.image import Image
from sdcompress.schema.manifest import (
    Certificate,
    Exit,
    Input,
    Manifest,
    OneGraph,
    ParityRecord,
    Policy,
    Provenance,
    Segment,
)

__all__ = ["EXTERNAL", "card", "card_of", "guarantee"]

_LAYOUTS = {
    "single": "One plain ONNX graph with one exit.",
    "cascade": "A chain of ONNX graphs. Samples with a high score leave after each graph; the others go on.",
    "all": "One ONNX graph with the logits of every exit.",
}

_ENSEMBLE = " An exit's logits are the mean of the log probabilities of the exits up to it (geometric ensemble)."

# the new samples that a certificate covers, and what it does not cover
_GROUPS = {
    None: ("like them", " or of single classes"),
    "stratum": ("of each class like them", ""),
    "exit": ("like them that leave at any one exit, and to all of them", " or of single classes"),
}

# how images of the user relate to the training images
EXTERNAL = {
    "apart": "none of them is a training image",
    "not compared": "not compared with the training images, which were not available",
}

_TEXT = """# {name} ({layout})

An image classifier of {classes} classes: backbone `{backbone}`, trained with `{method}`. {what}

Input: `{input}`, {dtype} [{shape}]; {pixels}.

{exits}

{parameters:.3f} M parameters, {mebibytes:.2f} MiB{precision}.

{policy}## Run it with sdcompress

```python
import sdcompress

engine = sdcompress.open(".")
prediction = engine(engine.preprocess([image]))
print(prediction.labels[0], prediction.exit_names[0])
```

## Run it without sdcompress

Save it as `classify.py` in this folder; `python classify.py photo.jpg` then prints the class of an image. It needs
numpy, Pillow and onnxruntime. `network_input` is the whole preparation of the input.

```python{code}```

The images in golden.npz are already resized and cropped.

Exported {created} from weights `{weights:.12}`, recipe `{recipe:.12}`, data `{data:.12}`.
"""


def card(
    *,
    layout: str,
    classes: Sequence[str],
    network_input: Input,
    segments: Sequence[Segment],
    exits: Sequence[Exit],
    parity: Sequence[ParityRecord],
    provenance: Provenance,
    policy: Policy | None = None,
    certificate: Certificate | None = None,
    one_graph: OneGraph | None = None,
) -> str:
    """Return the card as Markdown; the arguments are fields of the manifest.

    Args:
        layout: single, cascade or all.
        classes: their names.
        network_input: the input tensor and its preprocessing.
        segments: the graphs.
        exits: the exits.
        parity: the difference of each exit from the checkpoint.
        provenance: the origin of the artifact.
        policy: the calibrated exit policy, if there is one.
        certificate: of the policy, if there is one.
        one_graph: the single graph with early exit inside, if there is one.
    """
    recipe = provenance.recipe
    return _TEXT.format(
        name=recipe.get("name", "network"),
        layout=layout,
        classes=len(classes),
        backbone=_section(recipe, "model").get("name"),
        method=_section(recipe, "method").get("name"),
        what=_LAYOUTS[layout] + (_ENSEMBLE if _section(recipe, "export").get("ensemble") else ""),
        input=network_input.name,
        dtype=network_input.dtype,
        shape=", ".join(map(str, network_input.shape)),
        pixels=_pixels(network_input),
        exits=_table(segments, exits, parity),
        parameters=sum(segment.parameters for segment in segments) / 1e6,
        mebibytes=sum(segment.bytes for segment in segments) / 2**20,
        precision="".join(f", computed in {name}" for name in sorted({s.precision for s in segments} - {"fp32"})),
        policy=(_policy(policy, certificate, exits) if policy else "") + (_times(one_graph) if one_graph else ""),
        code=example(
            modality=Image.of(network_input.preprocess, network_input.shape[2:]),
            segments=segments,
            exits=exits,
            policy=policy,
            one_graph=one_graph,
        ),
        created=provenance.created,
        weights=provenance.weights_sha256,
        recipe=provenance.recipe_sha256,
        data=provenance.data_fingerprint,
    )


def card_of(manifest: Manifest) -> str:
    """Return the card of a manifest."""
    shared_fields = (
        "layout",
        "classes",
        "segments",
        "exits",
        "parity",
        "provenance",
        "policy",
        "certificate",
        "one_graph",
    )
    return card(network_input=manifest.input, **{name: getattr(manifest, name) for name in shared_fields})


def _section(recipe: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a section of a recipe, empty if it is missing or malformed: the manifest may be untrusted."""
    section = recipe.get(name)
    return section if isinstance(section, Mapping) else {}


def _pixels(network_input: Input) -> str:
    spec = network_input.preprocess
    steps = []
    if isinstance(spec.resize, int):
        steps = [f"the shorter side resized to {spec.resize} pixels ({spec.interpolation}), the aspect ratio kept"]
    elif spec.resize:
        steps = [f"resized to {spec.resize[0]}x{spec.resize[1]} (height x width, {spec.interpolation})"]
    steps += [f"the centre of {spec.crop[0]}x{spec.crop[1]} cropped"] if spec.crop else []
    return ", ".join([*steps, f"(pixel / 255 - {list(spec.mean)}) / {list(spec.std)}, channels first"])


def _table(segments: Sequence[Segment], exits: Sequence[Exit], parity: Sequence[ParityRecord]) -> str:
    images = f"on {parity[0].samples} images" if parity else ""
    titles = ("exit", "validation accuracy", "ECE", "MACs up to it", f"largest difference from the checkpoint {images}")
    rows = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    differences = {record.exit: f"{record.max_abs:.1e}" for record in parity}
    for exit_ in exits:
        macs = sum(segment.macs for segment in segments[: exit_.segment + 1]) / 1e6
        cells = (exit_.name, _percent(exit_.accuracy), _percent(exit_.ece), f"{macs:.2f} M", differences[exit_.name])
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _policy(policy: Policy, certificate: Certificate | None, exits: Sequence[Exit]) -> str:
    rules = ", ".join(
        f"{exit_.name} at a score of {threshold:.4f} (temperature {exit_.temperature:.3f})"
        if threshold <= 1
        else f"{exit_.name} never"
        for exit_, threshold in zip(exits, policy.thresholds, strict=False)
    )
    scores = f"{_percent(policy.accuracy)} against {_percent(policy.reference_accuracy)} of {_reference(certificate)}"
    states_guarantee = certificate is not None or policy.guarantee == "in expectation"
    guarantee_text = f"\n\n{guarantee(policy, certificate)}" if states_guarantee else ""
    return (
        f"Samples leave early by the policy `{policy.kind}`: {rules}; the rest at {exits[-1].name}. "
        f"Accuracy on {policy.samples} {policy.split} samples: {scores}.{guarantee_text}\n\n"
    )


def guarantee(policy: Policy, certificate: Certificate | None) -> str:
    """Return the guarantee of a policy as text. It may be certified, hold in expectation, or be none."""
    if policy.guarantee == "in expectation":
        return (
            f"Guarantee: in expectation only. Over many calibrations like this one the mean loss is at most "
            f"{_plain(policy.max_drop)}; this one may lose more. Nothing is certified."
        )
    if policy.guarantee == "none" or certificate is None:
        return "Guarantee: none. The thresholds were chosen on the calibration samples and not tested on others."
    target_risk = f"{_plain(policy.max_drop)} at {_plain(certificate.confidence)} confidence"
    if policy.guarantee == "no certificate":
        return (
            f"Guarantee: no certificate was found for {target_risk} on {certificate.certify_samples} samples. Every "
            f"sample runs through the whole network{'' if certificate.reference else ', so that nothing is lost'}."
        )
    loss_text = f"fewer are right than at {_reference(certificate)}"
    if certificate.loss == "disagreement":
        loss_text = f"differ from {_reference(certificate)}"
    population, not_covered = _GROUPS[certificate.per]
    target = ExecutionTarget(certificate.backend, certificate.device, certificate.plans)
    external_text = f" ({EXTERNAL[certificate.external]})" if certificate.external else ""
    return (
        f"Guarantee: certified for {target_risk}, on {certificate.certify_samples} samples that were "
        f"not used for tuning{external_text}. Of the predictions for new samples {population}, at most "
        f"{_plain(policy.max_drop)} {loss_text}. Valid for these graphs and thresholds on {target}. It does not cover "
        f"data that drifts{not_covered}."
    )


def _reference(certificate: Certificate | None) -> str:
    reference = certificate and certificate.reference
    return f"the last exit of the artifact {reference[:12]}" if reference else "the last exit"


def _plain(share: float) -> str:
    return f"{100 * share:.4g} %"


def _times(one_graph: OneGraph) -> str:
    timings = ", ".join(
        f"{time.exit} {time.ms:.3f} ms (to the end {time.to_end_ms:.3f}, without exits {time.whole_ms:.3f})"
        for time in one_graph.times
        if time.ms is not None
    )
    batch = "a batch of one image, no other size" if one_graph.kind == "if" else "a batch of any size"
    return (
        f"`{one_graph.file}` runs all segments and the policy in one graph, for {batch}. On {one_graph.samples} "
        f"real images its exits and predictions were those of the segments ({one_graph.undecided} undecided). A "
        f"certificate is about the segments. One image on one thread of {one_graph.machine}: {timings}.\n\n"
    )
