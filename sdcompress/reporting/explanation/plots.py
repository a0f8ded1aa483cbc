"""Draw the plots of an explanation as SVG elements; a table gives the figures of each."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sdcompress.printable import plural
from sdcompress.reporting import quantities as q
from sdcompress.reporting._figure import (
    INK,
    MUTED,
    PAPER,
    SERIES,
    Label,
    beside_line_ends,
    beside_points,
    draw,
    key,
    name_lines,
    shortened,
    stacked,
)
from sdcompress.reporting.explanation.tables import by_depth, oracle_rule
from sdcompress.reporting.page import Plot
from sdcompress.schema.explain import ExitFigures, Explanation, Risk

__all__ = ["plots"]

_PATH, _EXITS, _POLICY, _ORACLE = SERIES[0], SERIES[1], SERIES[5], SERIES[2]
_ACROSS = 3  # reliability diagrams in a row
_LONGEST_NAME = 18  # characters


def plots(record: Explanation) -> list[Plot]:
    """Return every plot for which the explanation has figures."""
    drawn = [_budget(record), _shares(record), _risk(record.risk), _reliability(record)]
    return [plot for plot in drawn if plot is not None]


def _budget(record: Explanation) -> Plot | None:
    """Plot the metric against mean ms for the path of thresholds, each exit alone, the policy and the oracle."""
    if not record.curve:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xlabel("mean ms of one sample")
        axes.set_ylabel(f"{record.split} {record.metric_name}, %")
        path = [(point.mean_ms or 0.0, point.metric * 100) for point in record.curve]
        exits = [(exit_.ms.value if exit_.ms else 0.0, exit_.metric * 100) for exit_ in record.exits]
        axes.plot(*zip(*path, strict=True), color=_PATH, linewidth=1.8, marker=".", markersize=5)
        axes.plot(*zip(*exits, strict=True), color=_EXITS, linewidth=1, linestyle=(0, (4, 3)), marker="o", markersize=6)
        labels = [Label(f"all to {e.name}", *at, _EXITS) for e, at in zip(record.exits, exits, strict=True)]
        labels = [*_marked(axes, record), *labels]
        axes.margins(x=0.14, y=0.16)
        axes.set_xlim(left=0)
        beside_points(axes, labels, path)

    caption = (
        "Up and left is better. Solid: the path of thresholds, from no early exit (right) to all samples at the first "
        "exit. Dashed: every sample at that exit. The policy is off the path if it was chosen in another way."
    )
    metric = q.capitalized(record.metric_name)
    return Plot(f"{metric} on a budget", draw("budget", f"{metric} against mean milliseconds", 380, paint), caption)


def _marked(axes: Axes, record: Explanation) -> list[Label]:
    """Mark the policy and the oracle; returns their labels."""
    points = [("policy", record.policy.point, _POLICY)] if record.policy else []
    points += [("oracle", record.oracle, _ORACLE)] if record.oracle else []
    labels = []
    for name, point, colour in points:
        at = (point.mean_ms or 0.0, point.metric * 100)
        face = colour if name == "policy" else PAPER
        axes.plot(*at, color=colour, marker="D", markersize=8, markerfacecolor=face, zorder=4, linestyle="none")
        labels.append(Label(name, *at, colour))
    return labels


def _shares(record: Explanation) -> Plot | None:
    """Plot the shares of exits for all samples and for each stratum, and those of the oracle."""
    lines = [("policy", record.policy.point.shares)] if record.policy else []
    lines += [("oracle", record.oracle.shares)] if record.oracle else []
    if not lines:
        return None
    strata, word = by_depth(record.strata), record.stratum or "stratum"
    names, all_lines = [exit_.name for exit_ in record.exits], len(lines)
    lines += [(shortened(figures.name, _LONGEST_NAME), figures.shares) for figures in strata]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for line, (_, shares) in enumerate(lines):
            stacked(axes, line, shares)
        name_lines(axes, [name for name, _ in lines])
        cuts = [all_lines, all_lines + len(strata) // 2] if len(strata) < len(record.strata) else [all_lines]
        for cut in cuts if strata else ():
            axes.axhline(cut - 0.5, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        axes.set_xlabel("samples, %")
        key(figure, names)

    caption = f"Oracle: {oracle_rule(record)}."
    if strata:
        caption += f" Below the line each {word}, earliest exits first."
    if len(strata) < len(record.strata):
        half = len(strata) // 2
        caption += f" Of {len(record.strata)} {plural(word)} the {half} earliest and the {half} latest."
    height = 100 + 24 * len(lines)
    return Plot("Where samples exit", draw("shares", "Share of samples by exit", height, paint), caption)


def _risk(risk: Risk | None) -> Plot | None:
    if risk is None or len(risk.steps) < 2:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        steps = [step.step for step in risk.steps]
        curves = (
            ("bound", [step.bound * 100 for step in risk.steps], _EXITS, "-"),
            ("measured", [step.loss * 100 for step in risk.steps], _PATH, "-"),
            ("allowed", [risk.max_drop * 100] * len(steps), MUTED, (0, (4, 3))),
        )
        for _, values, colour, style in curves:
            axes.plot(steps, values, color=colour, linewidth=1.6, linestyle=style)
        axes.axvline(risk.chosen, color=_POLICY, linewidth=1.2)
        axes.set_title(f"chosen: step {risk.chosen}", color=_POLICY, fontsize=10.5, loc="right")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("step of the path, from no early exit to earlier exits")
        axes.set_ylabel(f"{risk.loss}, %")
        beside_line_ends(axes, [Label(name, 0.0, values[-1], colour) for name, values, colour, _ in curves])

    caption = (
        f"On the {q.count(risk.samples)} samples of the certificate. The bound is the largest mean loss that the "
        f"{risk.test} test does not reject at {risk.delta:.4g}. Steps were tested from the left, up to the first that "
        "failed."
    )
    return Plot("Risk along the certificate's path", draw("risk", "Loss and bound by step", 340, paint), caption)


def _reliability(record: Explanation) -> Plot | None:
    if not all(exit_.reliability for exit_ in record.exits):
        return None
    metric = record.metric_name
    rows = -(-len(record.exits) // _ACROSS)
    across = min(len(record.exits), _ACROSS)

    def paint(figure: Figure) -> None:
        panels = figure.subplots(rows, across, squeeze=False, sharex=True, sharey=True).ravel()
        for panel, exit_ in zip(panels, record.exits, strict=False):
            _reliability_of(panel, exit_)
        for panel in panels[len(record.exits) :]:
            panel.set_visible(False)
        figure.supxlabel("confidence", fontsize=11)
        figure.supylabel(metric, fontsize=11)

    caption = (
        f"Bars: {metric} of the samples in each bin of confidence; the fainter, the fewer. On the dashed line"
        f" confidence equals {metric}."
    )
    title = f"{q.capitalized(metric)} against confidence, each exit"
    return Plot("Reliability", draw("reliability", title, 70 + 180 * rows, paint), caption)


def _reliability_of(axes: Axes, exit_: ExitFigures) -> None:
    largest = max(bin_.samples for bin_ in exit_.reliability)
    for bin_ in exit_.reliability:
        width = bin_.high - bin_.low
        strength = 0.25 + 0.65 * (bin_.samples / largest) ** 0.5
        axes.bar(bin_.low, bin_.metric, width * 0.92, align="edge", color=_PATH, alpha=strength)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    ece = "" if exit_.ece is None else f"\nECE {exit_.ece * 100:.1f} %"
    auroc = "" if exit_.auroc is None else f", AUROC {exit_.auroc:.3f}"
    axes.set_title(f"{shortened(exit_.name, _LONGEST_NAME)}{ece}{auroc}", fontsize=9, color=INK)
