"""Figures of an evaluation by class, as tables and sentences for report and terminal."""

from __future__ import annotations

import math

from sdcompress.evaluation.early_exit import paired_interval
from sdcompress.reporting import quantities as q
from sdcompress.reporting.rows import accuracy_of
from sdcompress.reporting.table import Table
from sdcompress.schema.report import ClassScore, Evaluation

__all__ = ["accuracies", "class_cautions", "confusions", "worst_class"]

_MAX_CLASSES = 20  # of more classes the worst are shown
_MAX_MATRIX_CLASSES = 12  # of more classes the commonest confusions are shown
_MAX_CONFUSIONS = 12
_MAX_NAMED = 3
_LOSS_FACTOR = 3  # a class is named if it loses this many times the mean loss
_MIN_LOSS = 0.01  # the mean loss counts as at least this


def worst_class(evaluation: Evaluation) -> ClassScore | None:
    """Return the class with the lowest accuracy, among those that have images."""
    scored = _scored(evaluation)
    return min(scored, key=lambda score: (score.accuracy or 0.0, score.name)) if scored else None


def accuracies(evaluation: Evaluation) -> Table | None:
    """Return the accuracy of each class, of many classes the worst. None if the evaluation has no classes."""
    scored = _scored(evaluation)
    if not scored:
        return None
    shortened = len(scored) > _MAX_CLASSES
    shown = sorted(scored, key=lambda score: score.accuracy or 0.0)[:_MAX_CLASSES] if shortened else scored
    rows = tuple(
        (
            score.name,
            q.count(score.samples),
            q.accuracy(score.accuracy, score.samples),
            q.accuracy(score.last_accuracy, score.samples),
        )
        for score in shown
    )
    note = f"Balanced accuracy, the mean over the classes: {q.accuracy(evaluation.balanced_accuracy)}."
    if shortened:
        note += f" The worst of {len(scored)} classes; the JSON has all."
    columns = ("class", "images", "accuracy", "at the last exit")
    return Table(f"Classes of {_title(evaluation)}", columns, rows, note).without_empty_columns()


def confusions(evaluation: Evaluation) -> Table | None:
    """Return the confusion matrix, of many classes its largest off-diagonal cells. None if it is missing."""
    if not evaluation.confusion:
        return None
    names = [score.name for score in evaluation.classes]
    if len(names) <= _MAX_MATRIX_CLASSES:
        cells = {(label, answer): images for label, answer, images in evaluation.confusion}
        rows = tuple(
            (name, *(q.count(cells.get((label, answer), 0)) for answer in range(len(names))))
            for label, name in enumerate(names)
        )
        return Table(
            f"Confusion matrix of {_title(evaluation)}", ("label", *names), rows, "Columns: predicted classes."
        )
    largest = sorted((cell for cell in evaluation.confusion if cell[0] != cell[1]), key=lambda cell: -cell[2])
    rows = tuple(
        (names[label], names[answer], q.count(images), q.share(images / evaluation.classes[label].samples))
        for label, answer, images in largest[:_MAX_CONFUSIONS]
    )
    note = f"The {len(rows)} largest of {len(largest)} cells off the diagonal; the JSON has all."
    columns = ("label", "predicted", "images", "of the label's images")
    return Table(f"Commonest confusions of {_title(evaluation)}", columns, rows, note) if rows else None


def class_cautions(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Return warnings about classes that an overall accuracy hides, as pairs of a kind and a sentence.

    Args:
        evaluation: an evaluation; one without classes has none.
    """
    if len(_scored(evaluation)) < 2:
        return []
    return [*(_majority(evaluation) or _never_answered(evaluation)), *_lost_early(evaluation)]


def _majority(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Warn of a network that is not shown to be better than the majority class."""
    largest = max(range(len(evaluation.classes)), key=lambda k: evaluation.classes[k].samples)
    name, samples = evaluation.classes[largest].name, evaluation.samples
    share = evaluation.classes[largest].samples / samples
    gained = sum(n for label, answer, n in evaluation.confusion if label == answer != largest)
    lost = sum(n for label, answer, n in evaluation.confusion if label == largest != answer)
    if paired_interval(gained, lost, samples)[1] > 0:
        return []
    balanced = f"balanced accuracy {q.accuracy(evaluation.balanced_accuracy)}"
    if {answer for _, answer, _ in evaluation.confusion} == {largest}:
        return [("majority", f"{evaluation.name} predicts '{name}', the commonest class, for every image: {balanced}.")]
    always = f"always predicting '{name}', the commonest class ({q.accuracy(share)})"
    right = q.accuracy(accuracy_of(evaluation))
    return [("majority", f"{evaluation.name} is not shown to be better ({right}) than {always}; {balanced}.")]


def _never_answered(evaluation: Evaluation) -> list[tuple[str, str]]:
    answered = {answer for _, answer, _ in evaluation.confusion}
    never = [score for k, score in enumerate(evaluation.classes) if score.samples and k not in answered]
    if not never:
        return []
    named = ", ".join(f"'{score.name}' ({q.count(score.samples)} images)" for score in never[:_MAX_NAMED])
    more = f" and {len(never) - _MAX_NAMED} further classes" if len(never) > _MAX_NAMED else ""
    return [("never answered", f"{evaluation.name} never predicts {named}{more}.")]


def _lost_early(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Warn of a class that loses more by early exit than the others."""
    if evaluation.policy is None:
        return []
    last = sum((score.last_accuracy or 0.0) * score.samples for score in evaluation.classes)
    overall = max((last - evaluation.policy.accuracy * evaluation.samples) / evaluation.samples, _MIN_LOSS)
    affected = [
        score
        for score in _scored(evaluation)
        if _accuracy_loss(score) > _LOSS_FACTOR * overall and _images_lost(score) > 1
    ]
    if not affected:
        return []
    score = max(affected, key=_accuracy_loss)
    comparison = f", the largest loss of {len(affected)} such classes" if len(affected) > 1 else ""
    figures = f"{q.accuracy(score.last_accuracy)} to {q.accuracy(score.accuracy)} of {q.count(score.samples)} images"
    costs = f"leaving early costs class '{score.name}' {_accuracy_loss(score) * 100:.1f} points ({figures}){comparison}"
    advice = "To keep the drop in every class: calibrate with --confidence and --per-class."
    return [("lost early", f"{evaluation.name}: {costs}. {advice}")]


def _accuracy_loss(score: ClassScore) -> float:
    return (score.last_accuracy or 0.0) - (score.accuracy or 0.0)


def _images_lost(score: ClassScore) -> int:
    return math.floor(_accuracy_loss(score) * score.samples + 0.5)


def _scored(evaluation: Evaluation) -> list[ClassScore]:
    return [score for score in evaluation.classes if score.accuracy is not None]


def _title(evaluation: Evaluation) -> str:
    return f"{evaluation.name} ({evaluation.kind}), {evaluation.split} split"
