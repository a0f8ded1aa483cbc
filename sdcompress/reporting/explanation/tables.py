"""The tables of an explanation as text, shared by Markdown and HTML."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sdcompress.printable import plural
from sdcompress.reporting import quantities as q
from sdcompress.reporting.page import Table
from sdcompress.schema.explain import Explanation, Interval, OperatingPoint, Overthinking, Stratum

__all__ = ["MAX_STRATA", "by_depth", "details", "oracle_rule", "summary", "thinned"]

MAX_STRATA = 12  # of more strata those with the earliest and the latest exits are shown
_MAX_STEPS = 12


def summary(record: Explanation) -> Table:
    """Return the table of the policy, each exit alone, and the oracle."""
    truncations = {row.exit: row for row in record.policy.truncations} if record.policy else {}
    rows = [] if record.policy is None else [_point_row(record, "policy", record.policy.point, record.policy.mean_ms)]
    for exit_ in record.exits:
        truncation = truncations.get(exit_.name)
        rows.append(
            (
                f"all to {exit_.name}",
                q.score(exit_.metric, record.samples, exit_.standard_error),
                _interval(exit_.ms),
                q.short_count(exit_.macs),
                _interval(truncation.saving_ms) if truncation else q.NOTHING,
                q.paired_cell(truncation.difference) if truncation else q.NOTHING,
            )
        )
    if record.oracle:
        rows.append(_point_row(record, "oracle", record.oracle, None))
    note = (
        f"{q.capitalized(record.metric_name)} with its 95 % {'Wilson ' if record.binary_loss else ''}interval; ms with"
        " the lowest and the highest round. Saving and difference compare the policy with that line; the difference has"
        f" its paired 95 % interval. The oracle knows the targets: {oracle_rule(record)}."
    )
    metric = record.metric_name
    columns = ("network", metric, "mean ms", "mean MACs", "policy saves", f"policy's {metric} is")
    return Table("Summary", columns, tuple(rows), note).without_empty_columns()


def oracle_rule(record: Explanation) -> str:
    """Return the exits of the oracle in words."""
    if record.binary_loss:
        return "each sample exits at the first correct exit, else at the last"
    return "each sample exits at the first exit with its lowest loss"


def _point_row(record: Explanation, name: str, point: OperatingPoint, ms: Interval | None) -> tuple[str, ...]:
    timed = _interval(ms) if ms else q.milliseconds(point.mean_ms)
    score = q.score(point.metric, record.samples, point.standard_error)
    return name, score, timed, q.short_count(point.mean_macs), q.NOTHING, q.NOTHING


def details(record: Explanation) -> list[Table]:
    """Return the other tables for which the explanation has figures."""
    tables = [_exits(record), _time(record), _overthinking(record), _curve(record), _risk(record), _strata(record)]
    return [table for table in tables if table is not None]


def _exits(record: Explanation) -> Table:
    rows = tuple(
        (
            exit_.name,
            q.score(exit_.metric, record.samples, exit_.standard_error),
            q.NOTHING if exit_.ece is None else f"{exit_.ece * 100:.1f} %",
            q.NOTHING if exit_.auroc is None else f"{exit_.auroc:.3f}",
            q.NOTHING if exit_.aurc is None else f"{exit_.aurc * 100:.3f} %",
            q.NOTHING if exit_.share is None else q.share(exit_.share),
            q.score(exit_.exited_metric),
        )
        for exit_ in record.exits
    )
    binary_note = (
        "ECE with 15 equal-width bins. AUROC: how often a correct decision has a higher score than a wrong one; 0.5 is"
        " chance. "
    )
    note = (binary_note if record.binary_loss else "") + (
        "AURC: mean loss over all coverages, lower is better. The score is that of the policy; the last exit has none"
    )
    note += "." if record.exits[-1].aurc is None else ", so that its confidence is used."
    metric = record.metric_name
    columns = ("exit", f"{metric} of all", "ECE", "AUROC", "AURC", "exit here", f"{metric} of those")
    return Table("Exits", columns, rows, note).without_empty_columns()


def _time(record: Explanation) -> Table | None:
    """Return how much of the mean time of the policy each stage takes."""
    if record.policy is None or record.policy.mean_ms is None:
        return None
    mean, rows, before, last = record.policy.mean_ms.value, [], 0.0, len(record.exits) - 1
    deciding = 0.0
    for k, exit_ in enumerate(record.exits):
        reached, until = sum(record.policy.point.shares[k:]), exit_.ms.value if exit_.ms else 0.0
        deciding += reached * (record.decision_ms or 0.0) * (k < last)
        rows.append(_part(f"to {exit_.name}", reached, until - before, reached * (until - before), mean))
        before = until
    rows.append(("deciding", q.NOTHING, q.NOTHING, q.milliseconds(deciding), q.share(deciding / mean)))
    note = (
        "The ms of each stage times the share of samples that reach it. Deciding: the decisions of all exits on the "
        "way."
    )
    return Table(
        "Where the time goes", ("stage", "reached by", "takes", "on average", "of the mean"), tuple(rows), note
    )


def _part(name: str, reached: float, ms: float, average: float, mean: float) -> tuple[str, ...]:
    return name, q.share(reached), q.milliseconds(ms), q.milliseconds(average), q.share(average / mean)


def _overthinking(record: Explanation) -> Table | None:
    kinds = (("whole network", record.overthinking), ("policy", record.policy_overthinking))
    rows = tuple(_overthinking_row(name, figures) for name, figures in kinds if figures is not None)
    if not rows:
        return None
    first, second = ("correct", "wrong") if record.binary_loss else ("at its lowest loss", "at a higher one")
    note = (
        f"Wasteful: share of samples that are {first} at an earlier exit than theirs. ms after that: time of the"
        f" computation since, mean over all samples. Destructive: {first} earlier, {second} at their exit."
    )
    return Table("Overthinking", ("", "wasteful", "ms after that", "destructive"), rows, note).without_empty_columns()


def _overthinking_row(name: str, figures: Overthinking) -> tuple[str, ...]:
    return name, q.share(figures.wasteful), q.milliseconds(figures.wasted_ms), f"{figures.destructive * 100:.2f} %"


def _curve(record: Explanation) -> Table | None:
    if not record.curve:
        return None
    last = record.exits[-1].metric
    rows = tuple(
        (
            str(step),
            q.milliseconds(record.curve[step].mean_ms),
            q.score(record.curve[step].metric),
            q.difference(record.curve[step].metric - last),
            q.short_count(record.curve[step].mean_macs),
            ", ".join(q.share(share) for share in record.curve[step].shares),
        )
        for step in thinned(len(record.curve), _MAX_STEPS)
    )
    note = (
        f"{len(record.curve)} steps of thresholds, made on {q.count(record.curve_samples)} samples of the "
        f"{record.curve_split} split, shown on the {record.split} split; safest first. explain.json has all of them."
    )
    columns = ("step", "mean ms", record.metric_name, "less the last exit's", "mean MACs", "share at each exit")
    return Table(f"{q.capitalized(record.metric_name)} on a budget", columns, rows, note)


def _risk(record: Explanation) -> Table | None:
    risk = record.risk
    if risk is None:
        return None
    positions = sorted({*thinned(len(risk.steps), _MAX_STEPS), risk.chosen, risk.certified})
    rows = tuple(
        (
            f"{risk.steps[k].step}{' (chosen)' if k == risk.chosen else ''}",
            q.milliseconds(risk.steps[k].mean_ms),
            f"{risk.steps[k].loss * 100:.2f} %",
            f"{risk.steps[k].bound * 100:.2f} %",
            "yes" if (k or not risk.reference) and k <= risk.certified else "no",
        )
        for k in positions
    )
    note = (
        f"{q.capitalized(risk.loss)} on the {q.count(risk.samples)} samples of the certificate, from its evidence."
        f" Bound: the largest mean loss that the {risk.test} test does not reject at {risk.delta:.4g}; each alone is"
        f" too low with at most that probability. The first steps with a bound"
        f" below {risk.max_drop * 100:.4g} % are certified for it."
        + _worst_group(risk.group_by)
        + (f" Counted against the last exit of the artifact {risk.reference[:12]}." if risk.reference else "")
    )
    title = f"Risk along the certificate's path: {risk.loss}"
    return Table(title, ("step", "mean ms", "measured", "bound", "certified"), rows, note)


def _worst_group(group_by: str | None) -> str:
    if group_by is None:
        return ""
    group = "samples up to the exit at which they are largest" if group_by == "exit" else f"worst {group_by}"
    return f" Loss and bound are those of the {group}."


def _strata(record: Explanation) -> Table | None:
    if not record.strata:
        return None
    strata, word = by_depth(record.strata), record.stratum or "stratum"
    names = tuple(f"exit at {exit_.name}" for exit_ in record.exits)
    rows = tuple(
        (
            figures.name,
            q.count(figures.samples),
            *(q.share(share) for share in figures.shares),
            q.score(figures.metric, figures.samples if record.binary_loss else None),
            q.score(figures.last_exit_metric),
        )
        for figures in strata
    )
    words, shortened = plural(word), len(strata) < len(record.strata)
    note = f"The earliest and the latest of {len(record.strata)} {words}; explain.json has all." if shortened else ""
    columns = (word, "samples", *names, record.metric_name, "at the last exit")
    return Table(f"{q.capitalized(words)}, earliest exits first", columns, rows, note)


def by_depth(strata: Sequence[Stratum]) -> list[Stratum]:
    """Return strata sorted by their mean exit, earliest first; of many only both ends."""
    order = sorted(strata, key=lambda figures: (sum(k * share for k, share in enumerate(figures.shares)), figures.name))
    half = MAX_STRATA // 2
    return order if len(order) <= MAX_STRATA else [*order[:half], *order[-half:]]


def thinned(count: int, most: int) -> list[int]:
    """Return at most ``most`` positions of 0..count-1, evenly spread, with both ends."""
    return [int(position) for position in np.unique(np.linspace(0, count - 1, min(count, most)).round())]


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return q.NOTHING
    # each end has three digits of its own: a value near 0 may lie between large ends
    ends = f"{q.three_digits(interval.low)}, {q.three_digits(interval.high)}"
    return f"{q.milliseconds(interval.value)} [{ends}]".replace("-", "−")
