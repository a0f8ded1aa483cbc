"""inspect: print what an artifact is; other verbs print it, too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import sdcompress
from sdcompress.cli.console import ms, percent, say, table, write_json
from sdcompress.cli.options import Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sdcompress.artifact.execution_target import ExecutionTarget
    from sdcompress.schema.manifest import Certificate, Manifest, OneGraph, Policy, Segment
    from sdcompress.tasks import Task

__all__ = ["in_every", "inspect", "show_manifest"]


def inspect(artifact: Annotated[Path, typer.Argument(help="folder of an artifact")], json: Json = False) -> None:
    """Show what an artifact is: exits, costs, policy, where it comes from.

    Example: sdcompress inspect artifacts/early-exit
    """
    manifest = sdcompress.inspect(artifact)
    if json:
        write_json(manifest.model_dump(mode="json"))
    else:
        show_manifest(manifest, str(artifact))


def show_manifest(manifest: Manifest, folder: str) -> None:
    """Print what an artifact is, with the sums of its segments up to each exit."""
    from sdcompress.cli.build_engines import show_engines
    from sdcompress.cli.prune import show_rounds
    from sdcompress.tasks import task_of

    inputs = ", ".join(f"{each.name} {each.dtype} [{', '.join(map(str, each.shape))}]" for each in manifest.inputs)
    metric, count = task_of(manifest).metric, len(manifest.outputs)
    kind = ", ".join([manifest.layout, *(each for each in manifest.precisions if each != "fp32")])
    kind += ", geometric ensemble of exits" if manifest.exits_are_ensembles else ""
    say(f"{folder}: {kind}, {manifest.task.name}, {count} output{'s' * (count > 1)}, inputs {inputs}")
    say(f"digest {manifest.digest}")
    policy, rows = manifest.policy, []
    calibrated = any("ece" in exit_.metrics for exit_ in manifest.exits)
    parity = {record.exit: record for record in manifest.parity}
    for k, exit_ in enumerate(manifest.exits):
        segments = manifest.segments[: exit_.segment + 1]
        threshold = policy.thresholds[k] if policy and k < len(policy.thresholds) else None
        rows.append(
            [
                exit_.name,
                percent(exit_.metrics.get(metric)),
                *([percent(exit_.metrics.get("ece"))] if calibrated else []),
                f"{sum(s.macs for s in segments) / 1e6:.2f} M",
                f"{sum(s.parameters for s in segments) / 1e3:.1f} k",
                f"{parity[exit_.name].max_abs_diff:.1e}",
                f"{exit_.temperature:.3f}",
                "-" if threshold is None else "never" if threshold > 1 else f"{threshold:.4f}",
                percent(policy.shares[k]) if policy else "-",
            ]
        )
    columns = ["exit", f"val {metric}", *(["ECE"] if calibrated else []), "MACs", "parameters", "parity"]
    table([*columns, "temperature", "threshold", "share"], rows)
    if manifest.provenance.pruned:
        show_rounds(manifest.provenance.pruned)
    if manifest.provenance.teacher_sha256:
        say(f"taught by the network with the weights {manifest.provenance.teacher_sha256[:12]}")
    if policy:
        _show_policy(policy)
        _show_segments_apart(manifest, policy, folder)
    if manifest.certificate:
        _show_certificate(manifest.certificate, task_of(manifest))
    if manifest.one_graph:
        _show_one_graph(manifest.one_graph)
    for built in manifest.engines:
        show_engines(built, " and ".join(manifest.precisions))


def _show_policy(policy: Policy) -> None:
    """Print how the thresholds were chosen; without targets no metric is known."""
    from sdcompress.artifact.execution_target import ExecutionTarget

    reached = f": {percent(policy.metric)} instead of {percent(policy.reference_metric)} there"
    say(
        f"policy: {policy.name}, chosen on {policy.samples} {policy.split} samples for a drop of at most "
        f"{policy.max_drop:.2%}{'' if policy.metric is None else reached}; {policy.mean_ms:.3f} ms on average; "
        f"guarantee: {policy.guarantee}; by {ExecutionTarget(policy.backend, policy.device, policy.plans)}"
    )
    if policy.rejected_ms is not None:
        say(
            f"no early exit: the whole network takes {policy.whole_ms:.3f} ms, the thresholds that keep the drop "
            f"{policy.rejected_ms:.3f} ms"
        )
    elif policy.whole_ms is not None:
        say(f"the whole network takes {policy.whole_ms:.3f} ms, {policy.whole_ms / policy.mean_ms:.2f} times as long")


def _show_segments_apart(manifest: Manifest, policy: Policy, folder: str) -> None:
    """Say how to spare the borders of segments at which no sample exits, where the engine does not join these."""
    if manifest.precisions == ("fp32",) or not _stay_apart(manifest, policy, Path(folder)):
        return
    exits = zip(manifest.exits, policy.thresholds, strict=False)
    taken = [exit_.name for exit_, threshold in exits if threshold <= 1]
    layout = " ".join(["cascade", *(f"--keep-exits {name}" for name in taken)]) if taken else "single"
    layout += " --ensemble geometric" if manifest.exits_are_ensembles else ""
    say(
        f"in {' and '.join(manifest.precisions)} segments are not joined where no sample exits: exported with --layout "
        f"{layout}, and quantised then, the network has fewer of them"
        + ("; its exits then average the kept exits alone" if taken and manifest.exits_are_ensembles else "")
    )


def _stay_apart(manifest: Manifest, policy: Policy, folder: Path) -> bool:
    """Return whether some segments around an exit that no sample takes run one by one."""
    from sdcompress.artifact.execution_target import ExecutionTarget
    from sdcompress.runtime.headless import stretches

    target = ExecutionTarget(policy.backend, policy.device, policy.plans)
    unused = {k for k, threshold in enumerate(policy.thresholds) if threshold > 1}
    groups = (
        [manifest.segments[index] for index in manifest.segments_between(first, last)]
        for first, last in stretches(len(manifest.exits), unused)
    )
    return any(len(group) > 1 and not _are_joined(group, target, folder) for group in groups)


def _are_joined(segments: Sequence[Segment], target: ExecutionTarget, folder: Path) -> bool:
    from sdcompress.runtime.headless import joinable, joined
    from sdcompress.untrusted import Refused

    if not joinable(segments, target):
        return False
    try:
        return joined([(folder / segment.file).read_bytes() for segment in segments], ()) is not None
    except Refused:  # opening it as an engine says why
        return False


def _show_one_graph(one_graph: OneGraph) -> None:
    """Print the times of the one graph with and without early exits."""
    rows = [
        [
            time.exit,
            str(time.samples),
            ms(time.ms),
            ms(time.full_depth_ms),
            ms(time.no_exits_ms),
            f"{time.wins_vs_full_depth}, {time.wins_vs_no_exits} of {time.rounds}",
        ]
        for time in one_graph.times
    ]
    columns = ["exit", "samples", "ms", "to the end", "without exits", "rounds faster"]
    table(columns, rows, f"{one_graph.file} ({one_graph.kind}): one sample, one thread, {one_graph.machine}")
    every = ", all of the validation split," if one_graph.whole_validation_split else ""
    say(
        f"{one_graph.file}: same exits and decisions as the segments on {one_graph.samples} samples{every} "
        f"in batches of {', '.join(map(str, one_graph.batches))} ({one_graph.near_threshold} undecided), "
        f"outputs within {one_graph.max_abs_diff:.1e}"
    )


def _show_certificate(certificate: Certificate, task: Task) -> None:
    """Print the tests, one line for each target drop."""
    from sdcompress.artifact.card import EXTERNAL
    from sdcompress.artifact.execution_target import ExecutionTarget
    from sdcompress.certification.groups import group_name, loss_name

    group = group_name(certificate.group_by, task)
    say(
        f"certificate: {loss_name(certificate.loss, task)}{in_every(group)}, confidence "
        f"{certificate.confidence:.4g}, on {certificate.certify_samples} samples that chose nothing "
        f"({certificate.tuning_samples} others tuned the thresholds); for "
        f"{ExecutionTarget(certificate.backend, certificate.device, certificate.plans)}"
        + (
            f"; compared with the last exit of the artifact {certificate.reference[:12]}"
            if certificate.reference
            else ""
        )
        + (f"; samples of the user, {EXTERNAL[certificate.external]}" if certificate.external else "")
    )
    for level in certificate.levels:
        last = level.p_values[level.certified - 1] if level.certified else None
        stop = level.p_values[level.certified] if len(level.p_values) > level.certified else None
        say(
            f"  at most {level.max_drop:.2%}: "
            + (f"step {level.certified} of the path (p = {last:.2g})" if last is not None else "no certificate")
            + (f"; the next has p = {stop:.2g}" if stop is not None else "")
            + f" at delta {level.delta:.4g}"
        )


def in_every(group_by: str | None) -> str:
    """Return the groups that a certificate holds in, as the end of a sentence."""
    return (
        "" if group_by is None else " of the samples up to each exit" if group_by == "exit" else f" in every {group_by}"
    )
