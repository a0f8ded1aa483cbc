"""Say what a search found, in sentences and tables."""

from __future__ import annotations

import math

from sdcompress.reporting import quantities as q
from sdcompress.reporting.page import Table
from sdcompress.schema.search import MEAN, SearchRange, Value
from sdcompress.schema.tuning import Trial, Tuning

__all__ = ["best_trials", "cautions", "facts", "findings", "headline", "shown", "trial_table"]

_SHOWN = 10  # trials in the summary
_NEAR = 0.05  # of a range, within which a value lies at its edge


def headline(record: Tuning) -> str:
    """Return the best validation metric beside that of the recipe's values, in a sentence."""
    best, first = record.winner, record.first
    where = "mean of all exits" if record.settings.exit == MEAN else record.settings.exit
    if best.number == first.number:
        return (
            f"No trial beat the recipe's own values: {q.score(first.metric)} validation {record.metric_name} ({where})."
        )
    return (
        f"Trial {best.number} has {q.score(best.metric)} validation {record.metric_name} ({where}), "
        f"{q.difference(best.metric - first.metric)} against the recipe's values."
    )


def findings(record: Tuning) -> list[str]:
    """Return what the values of the best trial are, and how many trials ended early."""
    best, first = record.winner, record.first
    found = [
        f"{key}: {shown(best.values[key])}, where the recipe has {shown(first.values[key])}." for key in best.values
    ]
    for state in ("pruned", "diverged", "refused"):
        count = sum(trial.state == state for trial in record.trials)
        found += [f"{_trials(count)} {state}."] if count else []
    return found


def cautions(record: Tuning) -> list[str]:
    """Return what to know before the figures are believed."""
    best = record.winner
    optimistic = "The metric of the best trial is optimistic, because it was chosen as the highest."
    found = [f"{optimistic} Train best.yaml with other seeds, and measure it on the test split once."]
    error = math.sqrt(max(best.metric * (1 - best.metric), 0.0) / record.samples)
    if record.binary_loss and 0 < best.metric - record.first.metric < 2 * math.sqrt(2) * error:
        found.append(
            f"The gain is below two standard errors of a difference on {q.count(record.samples)} validation samples "
            f"({2 * math.sqrt(2) * error * 100:.2f} points): it may be chance."
        )
    for key, text in record.settings.search.items():
        if edge := _edge(SearchRange.parse(text), best.values[key]):
            found.append(f"The best {key} lies at the {edge} end of {text}: a wider range may hold a better one.")
    if record.settings.epochs is not None and record.settings.epochs != record.recipe["train"]["epochs"]:
        found.append(
            f"Trials trained {record.settings.epochs} epochs, and best.yaml trains {record.recipe['train']['epochs']}: "
            "what is best for a short training need not be for a long one."
        )
    return found


def trial_table(record: Tuning, trials: list[Trial], title: str) -> Table:
    """Return a table with a row for each trial."""
    names = list(record.winner.exits) if len(record.winner.exits) > 1 else []  # the metric is that of a single exit
    rows = [
        (
            f"{trial.number}" + (" (recipe)" if trial.number == 0 else ""),
            q.score(trial.metric),
            *(q.score(trial.exits.get(name)) for name in names),
            *(shown(trial.values[key]) for key in record.settings.search),
            str(trial.epochs),
            f"{trial.seconds:.0f}",
            trial.state,
        )
        for trial in trials
    ]
    columns = ("trial", record.metric_name, *names, *record.settings.search, "epochs", "s", "state")
    note = f"Validation {record.metric_name}, {q.count(record.samples)} samples. Trial 0 has the values of the recipe."
    return Table(title, columns, tuple(rows), note)


def best_trials(record: Tuning) -> Table:
    """Return the table of the best trials, the best first."""
    ranked = sorted(record.trials, key=lambda trial: (trial.state != "complete", -trial.metric, trial.number))
    return trial_table(record, ranked[:_SHOWN], "The best trials")


def facts(record: Tuning) -> list[str]:
    """Return what was spent, and how trials were chosen."""
    tried = sum(trial.seconds for trial in record.trials) / 60
    limit = "" if record.settings.minutes is None else f" and {record.settings.minutes:g} minutes"
    spent = f"{_trials(len(record.trials))} in {tried:.1f} minutes of training"
    return [
        f"{spent}; the budget was {_trials(record.settings.trials)}{limit}.",
        f"Sampler {record.settings.sampler}, seed {record.seed}, pruner {record.settings.pruner}.",
        "The test split was taken away before the first trial.",
    ]


def _edge(range_: SearchRange, value: Value) -> str:
    """Return which end of its range a number lies at; '' where it lies inside, or is a choice."""
    if range_.kind == "choice":
        return ""
    low, high, at = range_.low, range_.high, float(value)
    if range_.kind == "log":
        low, high, at = math.log(low), math.log(high), math.log(at)
    place = (at - low) / (high - low)
    return "lower" if place < _NEAR else "upper" if place > 1 - _NEAR else ""


def shown(value: Value) -> str:
    """Return a value of a searched key as text, a number with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"
