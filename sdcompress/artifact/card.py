"""The card of an artifact (README.md), which explains the files to people who do not know sdcompress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdcompress.artifact.card_program import example
from sdcompress.artifact.execution_target import ExecutionTarget
from sdcompress.modalities import modality_of
from sdcompress.printable import plural
from sdcompress.schema.manifest import Certificate, Manifest, OneGraph, Policy
from sdcompress.tasks import Task, task_of

__all__ = ["EXTERNAL", "card_of", "guarantee"]

_LAYOUTS = {
    "single": "One plain ONNX graph with one exit.",
    "cascade": "A chain of ONNX graphs. Samples with a high score leave after each graph; the others go on.",
    "all": "One ONNX graph with the outputs of every exit.",
}

_ENSEMBLE = " An exit's outputs are those of the geometric mean of the exits up to it (geometric ensemble)."

# the new samples that a certificate covers, and what it does not cover
_GROUPS = {
    None: "like them",
    "stratum": "of each {stratum} like them",
    "exit": "like them that leave at an exit or before it, whichever exit, and of all of them",
}

# how samples of the user relate to the training samples
EXTERNAL = {
    "disjoint": "none of them is a training sample",
    "not compared": "not compared with the training samples, which were not available",
}

_TEXT = """# {name} ({layout})

From `{modality}` to `{task}`, {outputs}: backbone `{backbone}`, trained with `{method}`. {what}

Input: {inputs}; {preparation}.

{exits}

{parameters:.3f} M parameters, {mebibytes:.2f} MiB{precision}.

{policy}## Run it with sdcompress

```python
import sdcompress

engine = sdcompress.open(".")
prediction = engine(engine.preprocess([raw_example]))
print(prediction.decision[0], prediction.exit_names[0])
```

{program}The examples in golden.npz are prepared already, but for what the network's inputs need beside.

Exported {created} from weights `{weights:.12}`, recipe `{recipe:.12}`, data `{data:.12}`.
"""

_PROGRAM = """## Run it without sdcompress

Save it as `predict.py` beside this folder: sdcompress refuses an artifact that holds other files. In this folder
`python ../predict.py {argument}` then prints what the network decides of it. It needs onnxruntime and what it imports.
`inputs_of` is the whole preparation of the inputs.

```python{code}```

"""


def card_of(manifest: Manifest) -> str:
    """Return the card of a manifest, as Markdown."""
    recipe, segments, policy = manifest.provenance.recipe, manifest.segments, manifest.policy
    return _TEXT.format(
        name=recipe.get("name", "network"),
        layout=manifest.layout,
        task=manifest.task.name,
        modality=manifest.modality.name,
        outputs=task_of(manifest).card_text(),
        backbone=_section(recipe, "model").get("name"),
        method=_section(recipe, "method").get("name"),
        what=_LAYOUTS[manifest.layout] + (_ENSEMBLE if _section(recipe, "export").get("ensemble") else ""),
        inputs=", ".join(f"`{t.name}`, {t.dtype} [{', '.join(map(str, t.shape))}]" for t in manifest.inputs),
        preparation=modality_of(manifest).card_text(),
        exits=_table(manifest),
        parameters=sum(segment.parameters for segment in segments) / 1e6,
        mebibytes=sum(segment.bytes for segment in segments) / 2**20,
        precision="".join(f", computed in {name}" for name in manifest.precisions if name != "fp32"),
        policy=(_policy(manifest, policy) if policy else "")
        + (_times(manifest.one_graph) if manifest.one_graph else ""),
        program=_program(manifest),
        created=manifest.provenance.created,
        weights=manifest.provenance.weights_sha256,
        recipe=manifest.provenance.recipe_sha256,
        data=manifest.provenance.data_fingerprint,
    )


def _program(manifest: Manifest) -> str:
    code = example(manifest)
    return _PROGRAM.format(code=code, argument=modality_of(manifest).card_argument) if code else ""


def _section(recipe: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a section of a recipe, empty if it is missing or malformed: the manifest may be untrusted."""
    section = recipe.get(name)
    return section if isinstance(section, Mapping) else {}


def _table(manifest: Manifest) -> str:
    parity, metric = manifest.parity, task_of(manifest).metric
    samples = f"on {parity[0].samples} samples" if parity else ""
    further = sorted({name for exit_ in manifest.exits for name in exit_.metrics if name != metric})
    titles = ("exit", f"validation {metric}", *further, "MACs up to it")
    titles += (f"largest difference from the checkpoint {samples}",)
    rows = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    differences = {record.exit: f"{record.max_abs_diff:.1e}" for record in parity}
    for exit_ in manifest.exits:
        macs = sum(segment.macs for segment in manifest.segments[: exit_.segment + 1]) / 1e6
        values = [f"{exit_.metrics[name]:.4f}" if name in exit_.metrics else "-" for name in further]
        cells = (exit_.name, _percent(exit_.metrics.get(metric)), *values, f"{macs:.2f} M", differences[exit_.name])
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _policy(manifest: Manifest, policy: Policy) -> str:
    exits, certificate, metric = manifest.exits, manifest.certificate, task_of(manifest).metric
    rules = ", ".join(
        f"{exit_.name} at a score of {threshold:.4f} (temperature {exit_.temperature:.3f})"
        if threshold <= 1
        else f"{exit_.name} never"
        for exit_, threshold in zip(exits, policy.thresholds, strict=False)
    )
    figures = f"{_percent(policy.metric)} against {_percent(policy.reference_metric)} of {_reference(certificate)}"
    states_guarantee = certificate is not None or policy.guarantee == "in expectation"
    guarantee_text = f"\n\n{guarantee(policy, certificate, task_of(manifest))}" if states_guarantee else ""
    return (
        f"Samples leave early by the policy `{policy.name}`: {rules}; the rest at {exits[-1].name}. "
        f"{metric.capitalize()} on {policy.samples} {policy.split} samples: {figures}.{guarantee_text}\n\n"
    )


def guarantee(policy: Policy, certificate: Certificate | None, task: Task) -> str:
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
    population = _GROUPS[certificate.group_by].format(stratum=task.stratum)
    single = [plural(task.stratum)] if task.strata_names and certificate.group_by != "stratum" else []
    if certificate.group_by == "exit":  # it bounds the mean up to each exit, which an exit of few samples hardly moves
        single.append("exits after the first")
    not_covered = f" or of single {' or '.join(single)}" if single else ""
    target = ExecutionTarget(certificate.backend, certificate.device, certificate.plans)
    external_text = f" ({EXTERNAL[certificate.external]})" if certificate.external else ""
    return (
        f"Guarantee: certified for {target_risk}, on {certificate.certify_samples} samples that were not used for "
        f"tuning{external_text}. {_promise(policy, certificate, task, population)} Valid for these graphs and "
        f"thresholds on {target}. It does not cover data that drifts{not_covered}."
    )


def _promise(policy: Policy, certificate: Certificate, task: Task, population: str) -> str:
    bound, reference = _plain(policy.max_drop), _reference(certificate)
    disagreement = certificate.loss == "disagreement"
    if task.binary_loss:
        what = f"differ from {reference}" if disagreement else f"fewer are right than at {reference}"
        return f"Of the predictions for new samples {population}, at most {bound} {what}."
    if disagreement:
        return f"Over new samples {population}, the mean loss against the decisions of {reference} is at most {bound}."
    return f"Over new samples {population}, the {task.metric} is at most {bound} below that of {reference}."


def _reference(certificate: Certificate | None) -> str:
    reference = certificate and certificate.reference
    return f"the last exit of the artifact {reference[:12]}" if reference else "the last exit"


def _plain(share: float) -> str:
    return f"{100 * share:.4g} %"


def _times(one_graph: OneGraph) -> str:
    timings = ", ".join(
        f"{time.exit} {time.ms:.3f} ms (to the end {time.full_depth_ms:.3f}, without exits {time.no_exits_ms:.3f})"
        for time in one_graph.times
        if time.ms is not None
    )
    batch = "a batch of one sample, no other size" if one_graph.kind == "if" else "a batch of any size"
    compared = f"On {one_graph.samples} real samples"
    if one_graph.whole_validation_split:
        compared += ", all that certified the segments among them,"
    return (
        f"`{one_graph.file}` runs all segments and the policy in one graph, for {batch}. {compared} "
        f"its exits and predictions were those of the segments ({one_graph.near_threshold} undecided). A "
        f"certificate is about the segments. One sample on one thread of {one_graph.machine}: {timings}.\n\n"
    )
