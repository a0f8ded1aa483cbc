"""Tables and cautions about the strata of an evaluation, for report and terminal."""

from __future__ import annotations

import math

from sdcompress.evaluation.paired import paired_interval
from sdcompress.printable import plural
from sdcompress.reporting import quantities as q
from sdcompress.reporting.page import Table
from sdcompress.reporting.report.rows import score_of
from sdcompress.schema.report import Evaluation, StratumEvaluation

__all__ = ["confusions", "stratum_cautions", "stratum_table", "worst_stratum"]

_MAX_STRATA = 20  # of more strata the worst are shown
_MAX_IN_MATRIX = 12  # of more strata the commonest confusions are shown
_MAX_CONFUSIONS = 12
_MAX_NAMED = 3
_LOSS_FACTOR = 3  # a stratum is named if it loses this many times the mean loss
_MIN_LOSS = 0.01  # the mean loss counts as at least this


def worst_stratum(evaluation: Evaluation) -> StratumEvaluation | None:
    """Return the stratum with the lowest score, among those that have samples."""
    scored = _scored(evaluation)
    return min(scored, key=lambda score: (score.metric or 0.0, score.name)) if scored else None


def stratum_table(evaluation: Evaluation) -> Table | None:
    """Return the score of each stratum, of many strata the worst. None if the evaluation has no strata."""
    scored = _scored(evaluation)
    if not scored:
        return None
    shortened = len(scored) > _MAX_STRATA
    shown = sorted(scored, key=lambda score: score.metric or 0.0)[:_MAX_STRATA] if shortened else scored
    rows = tuple(
        (
            score.name,
            q.count(score.samples),
            q.score(score.metric, score.samples if evaluation.binary_loss else None),
            q.score(score.last_exit_metric, score.samples if evaluation.binary_loss else None),
            q.NOTHING if score.last_exit_metric is None else f"{_lost(score) * 100:+.1f}",
            _depth(evaluation, score),
        )
        for score in shown
    )
    word, metric = _words(evaluation)
    words = plural(word)
    note = f"Balanced {metric}, the mean over the {words}: {q.score(evaluation.balanced_metric)}."
    if shortened:
        note += f" The worst of {len(scored)} {words}; the JSON has all."
    columns = (word, "samples", metric, "at the last exit", "points lost", "of the MACs")
    return Table(f"{q.capitalized(words)} of {_title(evaluation)}", columns, rows, note).without_empty_columns()


def confusions(evaluation: Evaluation) -> Table | None:
    """Return the confusion matrix, of many strata its largest off-diagonal cells. None if it is missing."""
    if not evaluation.confusion:
        return None
    names, word = [score.name for score in evaluation.strata], _words(evaluation)[0]
    if len(names) <= _MAX_IN_MATRIX:
        cells = {(target, decided): samples for target, decided, samples in evaluation.confusion}
        rows = tuple(
            (name, *(q.count(cells.get((target, decided), 0)) for decided in range(len(names))))
            for target, name in enumerate(names)
        )
        note = f"Rows: {plural(word)} of the targets; columns: predicted {plural(word)}."
        return Table(f"Confusion matrix of {_title(evaluation)}", (word, *names), rows, note)
    largest = sorted((cell for cell in evaluation.confusion if cell[0] != cell[1]), key=lambda cell: -cell[2])
    rows = tuple(
        (names[target], names[decided], q.count(samples), q.share(samples / evaluation.strata[target].samples))
        for target, decided, samples in largest[:_MAX_CONFUSIONS]
    )
    note = f"The {len(rows)} largest of {len(largest)} cells off the diagonal; the JSON has all."
    columns = (word, "predicted", "samples", f"of the samples of the {word}")
    return Table(f"Commonest confusions of {_title(evaluation)}", columns, rows, note) if rows else None


def stratum_cautions(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Return warnings about strata that the overall metric hides, as pairs of a kind and a sentence.

    Args:
        evaluation: an evaluation; one without strata has none.
    """
    if len(_scored(evaluation)) < 2:
        return []
    confused = (_majority(evaluation) or _never_predicted(evaluation)) if evaluation.confusion else []
    return [*confused, *_lost_early(evaluation)]


def _majority(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Warn of a network that is not shown to be better than the majority stratum."""
    largest = max(range(len(evaluation.strata)), key=lambda k: evaluation.strata[k].samples)
    name, samples = evaluation.strata[largest].name, evaluation.samples
    share = evaluation.strata[largest].samples / samples
    gained = sum(n for target, decided, n in evaluation.confusion if target == decided != largest)
    lost = sum(n for target, decided, n in evaluation.confusion if target == largest != decided)
    if paired_interval(gained, lost, samples)[1] > 0:
        return []
    word, metric = _words(evaluation)
    balanced = f"balanced {metric} {q.score(evaluation.balanced_metric)}"
    if {decided for _, decided, _ in evaluation.confusion} == {largest}:
        return [
            ("majority", f"{evaluation.name} predicts '{name}', the commonest {word}, for every sample: {balanced}.")
        ]
    always = f"always predicting '{name}', the commonest {word} ({q.score(share)})"
    reached = q.score(score_of(evaluation))
    return [("majority", f"{evaluation.name} is not shown to be better ({reached}) than {always}; {balanced}.")]


def _never_predicted(evaluation: Evaluation) -> list[tuple[str, str]]:
    predicted = {decided for _, decided, _ in evaluation.confusion}
    never = [score for k, score in enumerate(evaluation.strata) if score.samples and k not in predicted]
    if not never:
        return []
    named = ", ".join(f"'{score.name}' ({q.count(score.samples)} samples)" for score in never[:_MAX_NAMED])
    words = plural(_words(evaluation)[0])
    more = f" and {len(never) - _MAX_NAMED} further {words}" if len(never) > _MAX_NAMED else ""
    return [("never predicted", f"{evaluation.name} never predicts {named}{more}.")]


def _lost_early(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Warn of a stratum that loses more by early exit than the others."""
    if evaluation.policy is None:
        return []
    last = sum((score.last_exit_metric or 0.0) * score.samples for score in evaluation.strata)
    overall = max((last - evaluation.policy.metric * evaluation.samples) / evaluation.samples, _MIN_LOSS)
    affected = [
        score for score in _scored(evaluation) if _lost(score) > _LOSS_FACTOR * overall and _samples_lost(score) > 1
    ]
    if not affected:
        return []
    score = max(affected, key=_lost)
    word, _ = _words(evaluation)
    comparison = f", the largest loss of {len(affected)} such {plural(word)}" if len(affected) > 1 else ""
    figures = f"{q.score(score.last_exit_metric)} to {q.score(score.metric)} on {q.count(score.samples)} samples"
    points = f"{_lost(score) * 100:.1f} points ({figures}){comparison}"
    costs = f"early exit costs {word} '{score.name}' {points}"
    advice = f"To keep the drop in every {word}: calibrate with --confidence and --group-by stratum."
    return [("lost early", f"{evaluation.name}: {costs}. {advice}")]


def _depth(evaluation: Evaluation, score: StratumEvaluation) -> str:
    """Return the mean MACs of a stratum's samples, as a share of the whole network's."""
    macs = [exit_.macs or 0 for exit_ in evaluation.exits[: len(score.shares)]]
    if not macs or not all(macs):
        return q.NOTHING
    return q.share(sum(share * one for share, one in zip(score.shares, macs, strict=True)) / macs[-1])


def _lost(score: StratumEvaluation) -> float:
    return (score.last_exit_metric or 0.0) - (score.metric or 0.0)


def _samples_lost(score: StratumEvaluation) -> int:
    return math.floor(_lost(score) * score.samples + 0.5)


def _scored(evaluation: Evaluation) -> list[StratumEvaluation]:
    return [score for score in evaluation.strata if score.metric is not None]


def _words(evaluation: Evaluation) -> tuple[str, str]:
    """Return what the task calls a stratum, and its metric."""
    return evaluation.stratum or "stratum", evaluation.metric_name


def _title(evaluation: Evaluation) -> str:
    return f"{evaluation.name} ({evaluation.kind}), {evaluation.split} split"
