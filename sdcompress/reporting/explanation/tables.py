"""The tables of an explanation as text, the same for Markdown and HTML."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sdcompress.reporting import quantities as q
from sdcompress.reporting.table import Table
from sdcompress.schema.explain import Class, Explanation, Interval, OperatingPoint, Overthinking

__all__ = ["MOST_CLASSES", "by_depth", "details", "summary", "thinned"]

MOST_CLASSES = 12  # more are shown by their ends, the earliest and the latest
_MOST_STEPS = 12


def summary(found: Explanation) -> Table:
    """The policy, each exit taken by everybody, and the oracle."""
    against = {row.exit: row for row in found.policy.truncations} if found.policy else {}
    rows = [] if found.policy is None else [_point_row(found, "policy", found.policy.point, found.policy.mean_ms)]
    for exit_ in found.exits:
        other = against.get(exit_.name)
        rows.append(
            (
                f"all to {exit_.name}",
                q.accuracy(exit_.accuracy, found.samples),
                _interval(exit_.ms),
                q.short_count(exit_.macs),
                _interval(other.saving_ms) if other else q.NOTHING,
                q.paired_cell(other.difference) if other else q.NOTHING,
            )
        )
    if found.oracle:
        rows.append(_point_row(found, "oracle", found.oracle, None))
    note = (
        "Accuracy with its 95 % Wilson interval; ms with the lowest and the highest turn. Saving and difference are the"
        " policy's, against that line; the difference with its paired 95 % interval. The oracle knows the labels and"
        " leaves at the first exit that is right, at the last where none is."
    )
    columns = ("network", "accuracy", "mean ms", "mean MACs", "policy saves", "policy's accuracy is")
    return Table("Summary", columns, tuple(rows), note).without_empty_columns()


def _point_row(found: Explanation, name: str, point: OperatingPoint, ms: Interval | None) -> tuple[str, ...]:
    timed = _interval(ms) if ms else q.milliseconds(point.mean_ms)
    accuracy = q.accuracy(point.accuracy, found.samples)
    return name, accuracy, timed, q.short_count(point.mean_macs), q.NOTHING, q.NOTHING


def details(found: Explanation) -> list[Table]:
    """Everything else, as far as there are figures."""
    tables = [_exits(found), _time(found), _overthinking(found), _curve(found), _risk(found), _classes(found)]
    return [table for table in tables if table is not None]


def _exits(found: Explanation) -> Table:
    rows = tuple(
        (
            exit_.name,
            q.accuracy(exit_.accuracy, found.samples),
            f"{exit_.ece * 100:.1f} %",
            q.NOTHING if exit_.auroc is None else f"{exit_.auroc:.3f}",
            q.NOTHING if exit_.aurc is None else f"{exit_.aurc * 100:.3f} %",
            q.NOTHING if exit_.share is None else q.share(exit_.share),
            q.accuracy(exit_.left_accuracy),
        )
        for exit_ in found.exits
    )
    note = (
        "ECE with 15 equal-width bins. AUROC: how often a right answer has the higher score than a wrong one, 0.5 says"
        " nothing. AURC: mean error over all coverages, lower is better. Both of the policy's score; at the last exit,"
        " which has none, of its confidence."
    )
    columns = ("exit", "accuracy of all", "ECE", "AUROC", "AURC", "left here", "accuracy of those")
    return Table("Exits", columns, rows, note).without_empty_columns()


def _time(found: Explanation) -> Table | None:
    """Which stage takes how much of the policy's mean."""
    if found.policy is None or found.policy.mean_ms is None:
        return None
    mean, rows, before, last = found.policy.mean_ms.value, [], 0.0, len(found.exits) - 1
    deciding = 0.0
    for k, exit_ in enumerate(found.exits):
        reached, until = sum(found.policy.point.shares[k:]), exit_.ms.value if exit_.ms else 0.0
        deciding += reached * (found.decision_ms or 0.0) * (k < last)
        rows.append(_part(f"to {exit_.name}", reached, until - before, reached * (until - before), mean))
        before = until
    rows.append(("deciding", q.NOTHING, q.NOTHING, q.milliseconds(deciding), q.share(deciding / mean)))
    note = (
        "Each stage's ms by the share of images that reach it. Deciding: the confidences of all exits that are passed."
    )
    return Table(
        "Where the time goes", ("stage", "reached by", "takes", "on average", "of the mean"), tuple(rows), note
    )


def _part(name: str, reached: float, ms: float, average: float, mean: float) -> tuple[str, ...]:
    return name, q.share(reached), q.milliseconds(ms), q.milliseconds(average), q.share(average / mean)


def _overthinking(found: Explanation) -> Table | None:
    kinds = (("whole network", found.overthinking), ("policy", found.policy_overthinking))
    rows = tuple(_waste_row(name, waste) for name, waste in kinds if waste is not None)
    if not rows:
        return None
    note = (
        "Already right: an exit before the one where they left has them right. ms after that: what was computed since,"
        " mean over all images. Spoiled: right earlier, wrong where they left."
    )
    return Table("Overthinking", ("", "already right", "ms after that", "spoiled"), rows, note).without_empty_columns()


def _waste_row(name: str, waste: Overthinking) -> tuple[str, ...]:
    return name, q.share(waste.wasteful), q.milliseconds(waste.wasted_ms), f"{waste.destructive * 100:.2f} %"


def _curve(found: Explanation) -> Table | None:
    if not found.curve:
        return None
    last = found.exits[-1].accuracy
    rows = tuple(
        (
            str(step),
            q.milliseconds(found.curve[step].mean_ms),
            q.accuracy(found.curve[step].accuracy),
            q.difference(found.curve[step].accuracy - last),
            q.short_count(found.curve[step].mean_macs),
            ", ".join(q.share(share) for share in found.curve[step].shares),
        )
        for step in thinned(len(found.curve), _MOST_STEPS)
    )
    note = (
        f"{len(found.curve)} steps of thresholds, made on {q.count(found.curve_samples)} images of the"
        f" {found.curve_split} split, shown on the {found.split} split; safest first. explain.json has all of them."
    )
    columns = ("step", "mean ms", "accuracy", "against the last exit", "mean MACs", "leave at each exit")
    return Table("Accuracy on a budget", columns, rows, note)


def _risk(found: Explanation) -> Table | None:
    risk = found.risk
    if risk is None:
        return None
    shown = sorted({*thinned(len(risk.steps), _MOST_STEPS), risk.chosen, risk.certified})
    rows = tuple(
        (
            f"{risk.steps[k].step}{' (chosen)' if k == risk.chosen else ''}",
            q.milliseconds(risk.steps[k].mean_ms),
            f"{risk.steps[k].loss * 100:.2f} %",
            f"{risk.steps[k].bound * 100:.2f} %",
            "yes" if (k or not risk.against) and k <= risk.certified else "no",
        )
        for k in shown
    )
    note = (
        f"{risk.loss.capitalize()} on the {q.count(risk.samples)} images that certified, by the certificate's evidence."
        f" Bound: the largest mean loss that the {risk.test} test does not reject at {risk.delta:.4g}; each alone is"
        f" too low with at most that probability. Certified for {risk.max_drop * 100:.4g} % are the first steps whose"
        " bound is below it."
        + (f" Loss and bound are those of the worst {risk.per}." if risk.per else "")
        + (f" Counted against the last exit of the artifact {risk.against[:12]}." if risk.against else "")
    )
    title = f"Risk along the certificate's path: {risk.loss}"
    return Table(title, ("step", "mean ms", "measured", "bound", "certified"), rows, note)


def _classes(found: Explanation) -> Table | None:
    if not found.classes:
        return None
    shown = by_depth(found.classes)
    names = tuple(f"left at {exit_.name}" for exit_ in found.exits)
    rows = tuple(
        (
            one.name,
            q.count(one.samples),
            *(q.share(share) for share in one.shares),
            q.accuracy(one.accuracy, one.samples),
            q.accuracy(one.last_accuracy),
        )
        for one in shown
    )
    few = len(shown) < len(found.classes)
    note = f"The earliest and the latest of {len(found.classes)} classes; explain.json has all." if few else ""
    columns = ("class", "images", *names, "accuracy", "at the last exit")
    return Table("Classes, those that leave earliest first", columns, rows, note)


def by_depth(classes: Sequence[Class]) -> list[Class]:
    """By the mean position of the exits where they leave, earliest first; of many the two ends."""
    order = sorted(classes, key=lambda one: (sum(k * share for k, share in enumerate(one.shares)), one.name))
    half = MOST_CLASSES // 2
    return order if len(order) <= MOST_CLASSES else [*order[:half], *order[-half:]]


def thinned(count: int, most: int) -> list[int]:
    """At most so many positions of 0..count-1, evenly spread, with both ends."""
    return [int(position) for position in np.unique(np.linspace(0, count - 1, min(count, most)).round())]


def _interval(found: Interval | None) -> str:
    if found is None:
        return q.NOTHING
    # a number of its own digits at each end: a saving can be near 0 between ends that are not
    low, high = (q.milliseconds(end).removesuffix(" ms") for end in (found.low, found.high))
    return f"{q.milliseconds(found.value)} [{low}, {high}]".replace("-", "−")
