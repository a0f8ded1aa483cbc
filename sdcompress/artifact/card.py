"""The card: README.md of an artifact, readable by people who never heard of sdcompress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdcompress.artifact.certificate import ExecutionTarget
from sdcompress.artifact.example import example
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

__all__ = ["OWN_IMAGES", "card", "card_of", "guarantee"]

_LAYOUTS = {
    "single": "One plain ONNX graph with one exit.",
    "cascade": "A chain of ONNX graphs: run one, let sure samples leave, go on with the others.",
    "all": "One ONNX graph with the logits of every exit.",
}

_ENSEMBLE = " An exit's logits are the mean of the log probabilities of the exits up to it (geometric ensemble)."

# about which new samples a certificate speaks, and what else it does not promise
_GROUPS = {
    None: ("like them", " or of single classes"),
    "class": ("of each class like them", ""),
    "exit": ("like them that have left by an exit, whichever, and to all of them", " or of single classes"),
}

# what is known of images of a user's own beside the training images
OWN_IMAGES = {
    "apart": "none of them among the training images",
    "not compared": "not compared with the training images, which were not at hand",
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
print(engine.classes[prediction.logits[0].argmax()], prediction.exit_index[0])
```

## Run it without

Save it as `classify.py` in this folder; `python classify.py photo.jpg` then says the class of an image. It needs numpy,
Pillow and onnxruntime. `network_input` is the complete rule from an image to the input.

```python{code}```

The images in golden.npz are resized and cropped already.

Made {created} from weights `{weights:.12}`, recipe `{recipe:.12}`, data `{data:.12}`.
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
    """The text of the card, in Markdown; the arguments are the manifest's fields.

    Args:
        layout: single, cascade or all.
        classes: names of the classes.
        network_input: the network's input and its preprocessing.
        segments: the graphs.
        exits: the exits.
        parity: how far each exit is from the checkpoint.
        provenance: where the artifact comes from.
        policy: the exit policy, where one was calibrated.
        certificate: of the policy, where one was asked for.
        one_graph: the graph that exits by itself, where there is one.
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
        code=example(network_input=network_input, segments=segments, exits=exits, policy=policy, one_graph=one_graph),
        created=provenance.created,
        weights=provenance.weights_sha256,
        recipe=provenance.recipe_sha256,
        data=provenance.data_fingerprint,
    )


def card_of(manifest: Manifest) -> str:
    """The card of a manifest that is there."""
    said = ("layout", "classes", "segments", "exits", "parity", "provenance", "policy", "certificate", "one_graph")
    return card(network_input=manifest.input, **{name: getattr(manifest, name) for name in said})


def _section(recipe: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of a recipe that may have been written by anybody."""
    found = recipe.get(name)
    return found if isinstance(found, Mapping) else {}


def _pixels(network_input: Input) -> str:
    spec = network_input.preprocess
    steps = []
    if isinstance(spec.resize, int):
        steps = [
            f"the shorter side resized to {spec.resize} pixels ({spec.interpolation}), the image keeping its shape"
        ]
    elif spec.resize:
        steps = [f"resized to {spec.resize[0]}x{spec.resize[1]} (height x width, {spec.interpolation})"]
    steps += [f"the centre of {spec.crop[0]}x{spec.crop[1]} cut out"] if spec.crop else []
    return ", ".join([*steps, f"(pixel / 255 - {list(spec.mean)}) / {list(spec.std)}, channels first"])


def _table(segments: Sequence[Segment], exits: Sequence[Exit], parity: Sequence[ParityRecord]) -> str:
    images = f"on {parity[0].samples} images" if parity else ""
    titles = ("exit", "validation accuracy", "ECE", "MACs to here", f"largest difference from the checkpoint {images}")
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
    said = certificate is not None or policy.guarantee == "in expectation"
    promise = f"\n\n{guarantee(policy, certificate)}" if said else ""
    return (
        f"Samples leave by the policy `{policy.kind}`: {rules}; the rest at {exits[-1].name}. "
        f"Accuracy on {policy.samples} {policy.split} samples: {scores}.{promise}\n\n"
    )


def guarantee(policy: Policy, certificate: Certificate | None) -> str:
    """What is promised of a policy, in a sentence."""
    if policy.guarantee == "in expectation":
        return (
            f"Guarantee: in expectation only. Over many calibrations like this one the mean loss is at most "
            f"{_plain(policy.max_drop)}; this one may lose more. Nothing is certified."
        )
    if policy.guarantee == "none" or certificate is None:
        return "Guarantee: none. The thresholds were chosen on the calibration samples, nothing is tested."
    wish = f"{_plain(policy.max_drop)} at {_plain(certificate.confidence)} confidence"
    if policy.guarantee == "no certificate":
        return (
            f"Guarantee: no certificate was found for {wish} on {certificate.certify_samples} samples. Every sample "
            f"runs through the whole network{'' if certificate.against else ', so that nothing is lost'}."
        )
    counted = f"fewer are right than at {_reference(certificate)}"
    if certificate.loss == "disagreement":
        counted = f"are not what {_reference(certificate)} says"
    new, silent = _GROUPS[certificate.per]
    target = ExecutionTarget(certificate.backend, certificate.device, certificate.plans)
    own = f" ({OWN_IMAGES[certificate.own_images]})" if certificate.own_images else ""
    return (
        f"Guarantee: certified for {wish}, on {certificate.certify_samples} samples that chose nothing{own}: of the "
        f"answers to new samples {new}, at most {_plain(policy.max_drop)} {counted}. Valid for these graphs and "
        f"thresholds on {target}. It says nothing about "
        f"data that drifts{silent}."
    )


def _reference(certificate: Certificate | None) -> str:
    against = certificate and certificate.against
    return f"the last exit of the artifact {against[:12]}" if against else "the last exit"


def _plain(share: float) -> str:
    return f"{100 * share:.4g} %"


def _times(found: OneGraph) -> str:
    ways = ", ".join(
        f"{time.exit} {time.ms:.3f} ms (to the end {time.to_end_ms:.3f}, without exits {time.whole_ms:.3f})"
        for time in found.times
        if time.ms is not None
    )
    batch = "a batch of one image, no other size" if found.kind == "if" else "a batch of any size"
    return (
        f"`{found.file}` is all of that in one graph, for {batch}. On {found.samples} real images it gave the exits "
        f"and answers of the segments ({found.undecided} undecided); a certificate is about the segments. One image "
        f"on one thread of {found.machine}: {ways}.\n\n"
    )
