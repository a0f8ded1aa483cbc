"""The table and the picture of ``compare.py``: means over seeds, and each row against the row that it must beat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

RULE = (
    "Bold: the difference is more than two standard errors (2 SE) from 0. p is of the paired t-test, whose 5 % are a "
    "stricter rule with few seeds: 4.30 standard errors with 3."
)
Found = dict[str, list[dict[str, Any]]]


def write_table(folder: Path, plan: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Write ``table.md`` and ``<setting>.svg``; a row without results is shown as missing.

    Args:
        folder: of the plan.
        plan: its settings, rows and seeds.
        results: what is done.
    """
    text = ""
    for setting in plan["settings"]:
        found: Found = {row: [r for r in results if (r["setting"], r["row"]) == (setting, row)] for row in plan["rows"]}
        if any(found.values()):
            text += _table(setting, plan["rows"], found)
            _picture(folder / f"{setting}.svg", plan["rows"], found)
        else:
            text += f"## {setting}\n\nNot measured.\n\n"
    (folder / "table.md").write_text(text + RULE + "\n", encoding="utf-8")


def _table(setting: str, rows: dict[str, Any], found: Found) -> str:
    titles = (
        *("row", "seeds", "final %", "ensemble %", "exits before it %", "ECE of final"),
        *("against", "difference ± 2 SE", "p", "80 % power from"),
    )
    lines = [f"## {setting}", "", f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row, spec in rows.items():
        if not found[row]:
            lines.append(f"| {row} | 0 | not measured" + " |" * (len(titles) - 2))
            continue
        names = [exit_["name"] for exit_ in found[row][0]["exits"]]
        before = [name for name in names if name not in ("final", "ensemble")]
        other = spec.get("against")
        cells = (
            row,
            str(len(found[row])),
            _spread(_accuracies(found[row], "final")),
            _spread(_accuracies(found[row], "ensemble")) if before else "",
            " / ".join(f"{np.mean(_accuracies(found[row], name)):.2f}" for name in before),
            f"{np.mean([_score(r, 'final', 'ece') for r in found[row]]):.3f}",
            other or "",
            *(_difference(found[row], found[other]) if other and found[other] else ("", "", "")),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n"


def _score(result: dict[str, Any], exit_name: str, key: str) -> float:
    return float(next(exit_[key] for exit_ in result["exits"] if exit_["name"] == exit_name))


def _accuracies(results: list[dict[str, Any]], exit_name: str) -> list[float]:
    return [100 * _score(result, exit_name, "accuracy") for result in results]


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def _difference(row: list[dict[str, Any]], other: list[dict[str, Any]]) -> tuple[str, str, str]:
    """Compare two rows at the final exit over the seeds that both have, paired by seed.

    Returns:
        The mean difference beside two standard errors, the p-value of the paired t-test, and the true difference that
        this many seeds would find with 80 % power (two-sided, 5 %; the noncentral t as a shifted one).
    """
    mine, theirs = ({r["seed"]: 100 * _score(r, "final", "accuracy") for r in part} for part in (row, other))
    gaps = np.array([mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())])
    freedom = len(gaps) - 1
    if freedom < 1:
        return f"{gaps[0]:+.2f}, one seed" if len(gaps) else "no seed of both", "", ""
    error = float(np.std(gaps, ddof=1)) / np.sqrt(len(gaps))
    p = 2 * student.sf(abs(gaps.mean()) / error, freedom) if error else float(gaps.mean() == 0)
    found = error * (student.ppf(0.975, freedom) + student.ppf(0.8, freedom))
    mark = "**" if abs(gaps.mean()) > 2 * error else ""
    return f"{mark}{gaps.mean():+.2f}{mark} ± {2 * error:.2f}", f"{p:.3f}", f"{found:.2f}"


def _picture(path: Path, rows: dict[str, Any], found: Found) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "sdcompress"  # the same figures give the same file
    import matplotlib.pyplot as plt

    shown = [row for row in rows if found[row]]
    figure, axes = plt.subplots(figsize=(7, 0.32 * len(shown) + 1.1))
    for y, row in enumerate(reversed(shown)):
        finals = _accuracies(found[row], "final")
        axes.plot(finals, [y] * len(finals), "o", color="tab:blue", alpha=0.5, markersize=5)
        axes.plot(np.mean(finals), y, "|", color="tab:blue", markersize=14, markeredgewidth=2)
        if any(exit_["name"] == "ensemble" for exit_ in found[row][0]["exits"]):
            ensembles = _accuracies(found[row], "ensemble")
            axes.plot(np.mean(ensembles), y, "d", color="tab:orange", markersize=6)
    if found.get("baseline"):
        axes.axvline(np.mean(_accuracies(found["baseline"], "final")), color="grey", linewidth=0.8)
    axes.set_yticks(range(len(shown)), list(reversed(shown)))
    axes.set_xlabel("test accuracy, %\nfinal exit of each seed, their mean; ◆ mean of the ensemble; line: baseline")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")  # the label is wider than the axes
    plt.close(figure)
