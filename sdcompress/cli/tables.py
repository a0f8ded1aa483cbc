"""Results as tables for people. Nothing is computed here."""

from __future__ import annotations

from sdcompress.artifact.card import EXTERNAL
from sdcompress.artifact.certificate import ExecutionTarget
from sdcompress.certification.groups import group_name, loss_name
from sdcompress.cli.engine_table import show_engines
from sdcompress.cli.screen import say, table
from sdcompress.doctor import Diagnosis
from sdcompress.schema.explain import Explanation
from sdcompress.schema.manifest import Certificate, Manifest, OneGraph
from sdcompress.schema.report import BenchReport, CertificateVerdict, Evaluation, Plan, Report, VerifyReport
from sdcompress.tasks import Task, task_of

__all__ = [
    "show_bench",
    "show_diagnosis",
    "show_evaluation",
    "show_explanation",
    "show_manifest",
    "show_plan",
    "show_report",
    "show_verdicts",
]


def show_manifest(manifest: Manifest, folder: str) -> None:
    """What an artifact is."""
    shape = ", ".join(map(str, manifest.input.shape))
    kind = ", ".join([manifest.layout, *(each for each in manifest.precisions if each != "fp32")])
    say(f"{folder}: {kind}, {len(manifest.classes)} classes, input {manifest.input.dtype} [{shape}]")
    say(f"digest {manifest.digest}")
    policy, rows = manifest.policy, []
    parity = {record.exit: record for record in manifest.parity}
    for k, exit_ in enumerate(manifest.exits):
        segments = manifest.segments[: exit_.segment + 1]
        threshold = policy.thresholds[k] if policy and k < len(policy.thresholds) else None
        rows.append(
            [
                exit_.name,
                _percent(exit_.accuracy),
                _percent(exit_.ece),
                f"{sum(s.macs for s in segments) / 1e6:.2f} M",
                f"{sum(s.parameters for s in segments) / 1e3:.1f} k",
                f"{parity[exit_.name].max_abs:.1e}",
                f"{exit_.temperature:.3f}",
                "-" if threshold is None else "never" if threshold > 1 else f"{threshold:.4f}",
                _percent(policy.shares[k]) if policy else "-",
            ]
        )
    columns = ["exit", "val accuracy", "ECE", "MACs", "parameters", "parity", "temperature", "threshold", "leave here"]
    table(columns, rows)
    if policy:
        say(
            f"policy: {policy.kind}, chosen on {policy.samples} {policy.split} images for a drop of at most "
            f"{policy.max_drop:.2%}: {_percent(policy.accuracy)} instead of {_percent(policy.reference_accuracy)} "
            f"there; {policy.mean_ms:.3f} ms on average; guarantee: {policy.guarantee}; by "
            f"{ExecutionTarget(policy.backend, policy.device, policy.plans)}"
        )
    if manifest.certificate:
        _show_certificate(manifest.certificate, task_of(manifest))
    if manifest.one_graph:
        _show_one_graph(manifest.one_graph)
    for built in manifest.engines:
        show_engines(built, " and ".join(manifest.precisions))


def _show_one_graph(found: OneGraph) -> None:
    """What its early exits save."""
    rows = [
        [
            time.exit,
            str(time.images),
            _ms(time.ms),
            _ms(time.to_end_ms),
            _ms(time.whole_ms),
            f"{time.faster}, {time.faster_than_whole} of {time.rounds}",
        ]
        for time in found.times
    ]
    columns = ["leave at", "images", "ms", "to the end", "without exits", "rounds faster"]
    table(columns, rows, f"{found.file} ({found.kind}): one image, one thread, {found.machine}")
    say(
        f"{found.file}: exits and answers of the segments on {found.samples} images in batches of "
        f"{', '.join(map(str, found.batches))} ({found.undecided} undecided), logits within {found.max_abs:.1e}"
    )


def _show_certificate(found: Certificate, task: Task) -> None:
    """The tests, one line for each target drop."""
    say(
        f"certificate: {loss_name(found.loss, task)}{_in_every(group_name(found.per, task))}, confidence "
        f"{found.confidence:.4g}, on {found.certify_samples} samples that chose nothing ({found.tuning_samples} others "
        "tuned the thresholds); for "
        f"{ExecutionTarget(found.backend, found.device, found.plans)}"
        + (f"; against the last exit of the artifact {found.reference[:12]}" if found.reference else "")
        + (f"; samples of one's own, {EXTERNAL[found.external]}" if found.external else "")
    )
    for level in found.levels:
        last = level.p_values[level.certified - 1] if level.certified else None
        stop = level.p_values[level.certified] if len(level.p_values) > level.certified else None
        say(
            f"  at most {level.max_drop:.2%}: "
            + (f"step {level.certified} of the path (p = {last:.2g})" if last is not None else "no certificate")
            + (f"; the next has p = {stop:.2g}" if stop is not None else "")
            + f" at delta {level.delta:.4g}"
        )


def show_verdicts(found: VerifyReport) -> None:
    """That an artifact is what it says."""
    rows = [[v.name, f"{v.max_abs:.1e}", f"{v.row_abs:.1e}", f"{v.allowed:.1e}", str(v.flips)] for v in found.exits]
    table(["exit", "largest difference", "between batches", "allowed", "flips"], rows)
    say(f"{found.source}: intact ({found.files} files), verified on {found.samples} golden samples")
    if found.one_graph:
        say("model.onnx: gives the exits and answers of the segments on them")
    if found.certificate:
        _show_certificate_verdict(found.certificate)
    for title, sentences in (("proved here", found.proved), ("only claimed by whoever wrote it", found.claimed)):
        say(f"{title}:")
        for sentence in sentences:
            say(f"  - {sentence}")
    if found.signature:
        say(f"signed by the holder of '{found.signature.key}', who stands for these claims")
    else:
        say("no signature was checked (--key): whoever can write the folder can write all of this")


def _show_certificate_verdict(found: CertificateVerdict) -> None:
    nothing = "nothing" if found.reference else "no drop (no early exit)"
    kept = ", ".join(f"{drop:.2%}" for drop in found.certified) or nothing
    other = f" against the last exit of the artifact {found.reference[:12]}" if found.reference else ""
    say(
        f"certificate: {found.tests} tests on {found.samples} images, computed again, are as it says: {kept} of "
        f"{found.loss}{_in_every(found.per)}{other} at {found.confidence:.4g} confidence"
    )


def show_plan(found: Plan) -> None:
    """The samples that a wish needs at each speed."""
    title = (
        f"images that certify at most {found.max_drop:.2%} {found.loss}{_in_every(found.per)} at "
        f"{found.confidence:.4g} confidence"
    )
    rows = [
        [
            "assumed" if row.mean_ms is None else f"seen at {row.mean_ms:.3f} ms",
            _percent(row.lost),
            _percent(row.gained),
            "out of reach" if row.needs is None else f"{row.needs:,}",
        ]
        for row in (*found.assumed, *found.observed)
    ]
    table(["thresholds", "lost", "gained", "images needed"], rows, title)
    say(
        f"{found.source}: there are {found.samples:,} images for calibration; below {found.least:,} it is refused. "
        f"With the number needed, {found.power:.0%} of calibrations find the certificate. "
        f"Seen on the {found.seen:,} images that tune the thresholds and certify nothing."
        + (f" The smallest {found.per} is {found.smallest}." if found.smallest else "")
    )


def show_evaluation(found: Evaluation) -> None:
    """The scores of every exit and stratum, and what is taken for what."""
    from sdcompress.reporting.strata import confusions, stratum_cautions, stratum_table
    from sdcompress.reporting.tables import further

    rows = [
        [
            score.name,
            f"{score.score:.2%}",
            *(further(name, value) for name, value in score.further.items()),
            "-" if score.macs is None else f"{score.macs / 1e6:.2f} M",
        ]
        for score in found.exits
    ]
    names = [name.upper() for name in found.exits[0].further]
    table(["exit", found.metric, *names, "MACs"], rows, f"{found.source} on {found.data}/{found.split}")
    balanced = "" if found.balanced_score is None else f"; balanced {found.metric} {found.balanced_score:.2%}"
    say(f"{found.samples} images{balanced}")
    if found.policy:
        shares = ", ".join(
            f"{score.name} {share:.1%}" for score, share in zip(found.exits, found.policy.shares, strict=False)
        )
        say(f"early exit: {found.metric} {found.policy.score:.2%}; leave at {shares}")
    for drawn in (stratum_table(found), confusions(found)):
        if drawn:
            table(list(drawn.columns), [list(row) for row in drawn.rows], drawn.title)
            say(drawn.note)
    for _, sentence in stratum_cautions(found):
        say(f"caution: {sentence}")


def show_explanation(found: Explanation) -> None:
    """The verdict, the summary and the findings of the page."""
    from sdcompress.reporting.explanation.findings import cautions, findings, headline
    from sdcompress.reporting.explanation.tables import summary

    said = summary(found)
    table(list(said.columns), [list(row) for row in said.rows], f"{found.source} on {found.data}/{found.split}")
    for sentence in (headline(found), *findings(found)):
        say(sentence)
    for sentence in cautions(found):
        say(f"caution: {sentence}")


def show_bench(found: BenchReport) -> None:
    """Latency of every artifact, of the run and end to end, and the ratios."""
    from sdcompress.reporting.cautions import noise

    rows = []
    for record in found.records:
        values = {p.percent: p for p in record.latency.percentiles}
        rows.append(
            [
                record.name,
                record.scenario,
                str(record.batch),
                *(_ms(values[p].value_ms if p in values else None) for p in (50.0, 99.0)),
                _ms(record.latency.mean_ms),
                _ms(record.preparation.mean_ms if record.preparation else None),
                _ms(record.end_to_end_ms),
                f"{record.images_per_second:.0f}",
                "yes" if record.stable else "no",
            ]
        )
    columns = ["artifact", "scenario", "batch", "run p50 ms", "run p99 ms", "run mean ms", "preparation ms"]
    table([*columns, "end to end ms", "images/s", "steady"], rows)
    for ratio in found.comparisons:
        say(
            f"{ratio.name} against {ratio.reference}, {ratio.scenario}, batch {ratio.batch}: "
            f"mean {ratio.speedup_mean:.2f}x [{ratio.mean_low:.2f}, {ratio.mean_high:.2f}] ({ratio.verdict}), "
            f"p50 {ratio.speedup_p50:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"
            + _end_to_end(ratio.speedup_end_to_end, ratio.end_to_end_low, ratio.end_to_end_high)
        )
    if said := noise(found.records):
        say(said)
    say(f"{found.machine.cpu}, {found.threads} thread(s), {found.input}")
    if found.preparation:
        say(f"preparation: {found.preparation}")


def _end_to_end(value: float | None, low: float | None, high: float | None) -> str:
    return "" if value is None else f", end to end {value:.2f}x [{low:.2f}, {high:.2f}]"


def show_report(made: Report) -> None:
    """The table of a report."""
    rows = [
        [
            row.name,
            _percent(row.test_score),
            "-" if row.macs is None else f"{row.macs / 1e6:.2f} M",
            f"{row.parameters / 1e3:.1f} k",
            _ms(row.p50_ms),
            _ms(row.mean_ms),
            _ms(row.end_to_end_ms),
            _times(row.speedup, row.speedup_low, row.speedup_high),
            _times(row.speedup_end_to_end, row.end_to_end_low, row.end_to_end_high),
        ]
        for row in made.rows
    ]
    title = made.title + (f": speed-up against {made.reference}" if made.reference else "")
    columns = [
        "network",
        f"test {made.metric}",
        "mean MACs",
        "parameters",
        "run p50 ms",
        "run mean ms",
        "end to end ms",
    ]
    table([*columns, "speed-up", "end to end"], rows, title)


def _times(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}x" + (f" [{low:.2f}, {high:.2f}]" if low and high else "")


def show_diagnosis(found: Diagnosis) -> None:
    """What this machine has and lacks."""
    machine = found.machine
    say(f"{machine.cpu}: {machine.cores} cores for us, {machine.memory_gib:.1f} GiB, {', '.join(machine.isa)}")
    say(f"{machine.os}, Python {machine.python}, GPU: {machine.gpu or 'none'}")
    say(f"onnxruntime providers: {', '.join(found.providers) or 'none'}")
    for extra in found.extras:
        missing = [p.name + (f">={p.minimum}" if p.minimum else "") for p in extra.packages if not p.right]
        state = "complete" if extra.complete else f"lacks {', '.join(missing)}: {extra.install}"
        say(f"{extra.name:<8} {state}")
    trt = found.tensorrt
    say(f"TensorRT: {trt.tensorrt or 'none'}, cuda-bindings {trt.cuda_bindings or 'none'}, on {trt.gpu or 'no GPU'}")
    for piece in trt.missing:
        say(f"  missing for --format trt: {piece}")
    for warning in found.warnings:
        say(f"warning: {warning}")


def _in_every(per: str | None) -> str:
    return "" if per is None else " of what has left by each exit" if per == "exit" else f" in every {per}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
