"""What an evaluation says of the classes, as tables and sentences, for the report and for the terminal."""

from __future__ import annotations

import math

from sdcompress.evaluation.early_exit import paired_interval
from sdcompress.reporting import quantities as q
from sdcompress.reporting.rows import accuracy_of
from sdcompress.reporting.table import Table
from sdcompress.schema.report import ClassScore, Evaluation

__all__ = ["accuracies", "class_cautions", "confusions", "worst_class"]

_MOST_CLASSES = 20  # more are shown by those that do worst
_MOST_IN_MATRIX = 12  # of more classes the commonest confusions are listed
_MOST_CONFUSIONS = 12
_MOST_NAMED = 3
_LOST_TIMES = 3  # a class that loses so many times what all images lose is named
_LEAST_LOST = 0.01  # and at least so many times one point


def worst_class(found: Evaluation) -> ClassScore | None:
    """The class with the lowest accuracy, of those that have images."""
    known = _present(found)
    return min(known, key=lambda one: (one.accuracy or 0.0, one.name)) if known else None


def accuracies(found: Evaluation) -> Table | None:
    """The accuracy on each class, in their order; of many classes those that do worst. None where it is not known."""
    known = _present(found)
    if not known:
        return None
    few = len(known) > _MOST_CLASSES
    shown = sorted(known, key=lambda one: one.accuracy or 0.0)[:_MOST_CLASSES] if few else known
    rows = tuple(
        (
            one.name,
            q.count(one.samples),
            q.accuracy(one.accuracy, one.samples),
            q.accuracy(one.last_accuracy, one.samples),
        )
        for one in shown
    )
    note = f"Balanced accuracy, the mean over the classes: {q.accuracy(found.balanced_accuracy)}."
    if few:
        note += f" Those of {len(known)} classes that do worst; the JSON has all."
    columns = ("class", "images", "accuracy", "at the last exit")
    return Table(f"Classes of {_of(found)}", columns, rows, note).without_empty_columns()


def confusions(found: Evaluation) -> Table | None:
    """The confusion matrix, or of many classes its largest cells off the diagonal; None where it is not known."""
    if not found.confusion:
        return None
    names = [one.name for one in found.classes]
    if len(names) <= _MOST_IN_MATRIX:
        cells = {(label, answer): images for label, answer, images in found.confusion}
        rows = tuple(
            (name, *(q.count(cells.get((label, answer), 0)) for answer in range(len(names))))
            for label, name in enumerate(names)
        )
        return Table(f"Confusion matrix of {_of(found)}", ("label", *names), rows, "Columns: what was answered.")
    largest = sorted((cell for cell in found.confusion if cell[0] != cell[1]), key=lambda cell: -cell[2])
    rows = tuple(
        (names[label], names[answer], q.count(images), q.share(images / found.classes[label].samples))
        for label, answer, images in largest[:_MOST_CONFUSIONS]
    )
    note = f"The {len(rows)} largest of {len(largest)} cells off the diagonal; the JSON has all."
    columns = ("label", "answered", "images", "of the label's images")
    return Table(f"Commonest confusions of {_of(found)}", columns, rows, note) if rows else None


def class_cautions(found: Evaluation) -> list[tuple[str, str]]:
    """What an accuracy over all images hides: pairs of a kind and a sentence.

    Args:
        found: an evaluation; one without classes has none.
    """
    if len(_present(found)) < 2:
        return []
    return [*(_majority(found) or _never_answered(found)), *_lost_early(found)]


def _majority(found: Evaluation) -> list[tuple[str, str]]:
    """A network that is not shown to be better than the answer which needs no image."""
    largest = max(range(len(found.classes)), key=lambda k: found.classes[k].samples)
    name, samples = found.classes[largest].name, found.samples
    share = found.classes[largest].samples / samples
    gained = sum(n for label, answer, n in found.confusion if label == answer != largest)
    lost = sum(n for label, answer, n in found.confusion if label == largest != answer)
    if paired_interval(gained, lost, samples)[1] > 0:
        return []
    balanced = f"balanced accuracy {q.accuracy(found.balanced_accuracy)}"
    if {answer for _, answer, _ in found.confusion} == {largest}:
        return [("majority", f"{found.name} answers '{name}', the commonest class, on every image: {balanced}.")]
    always = f"always answering '{name}', the commonest class ({q.accuracy(share)})"
    right = q.accuracy(accuracy_of(found))
    return [("majority", f"{found.name} is not shown to be better ({right}) than {always}; {balanced}.")]


def _never_answered(found: Evaluation) -> list[tuple[str, str]]:
    answered = {answer for _, answer, _ in found.confusion}
    never = [one for k, one in enumerate(found.classes) if one.samples and k not in answered]
    if not never:
        return []
    named = ", ".join(f"'{one.name}' ({q.count(one.samples)} images)" for one in never[:_MOST_NAMED])
    more = f" and {len(never) - _MOST_NAMED} further classes" if len(never) > _MOST_NAMED else ""
    return [("never answered", f"{found.name} never answers {named}{more}.")]


def _lost_early(found: Evaluation) -> list[tuple[str, str]]:
    """A class that pays for the early exits more than the others do."""
    if found.policy is None:
        return []
    last = sum((one.last_accuracy or 0.0) * one.samples for one in found.classes)
    overall = max((last - found.policy.accuracy * found.samples) / found.samples, _LEAST_LOST)
    hit = [one for one in _present(found) if _lost(one) > _LOST_TIMES * overall and _images_lost(one) > 1]
    if not hit:
        return []
    one = max(hit, key=_lost)
    others = f", the most of {len(hit)} such classes" if len(hit) > 1 else ""
    figures = f"{q.accuracy(one.last_accuracy)} to {q.accuracy(one.accuracy)} of {q.count(one.samples)} images"
    costs = f"leaving early costs class '{one.name}' {_lost(one) * 100:.1f} points ({figures}){others}"
    advice = "To keep the drop in every class: calibrate with --confidence and --per-class."
    return [("lost early", f"{found.name}: {costs}. {advice}")]


def _lost(one: ClassScore) -> float:
    return (one.last_accuracy or 0.0) - (one.accuracy or 0.0)


def _images_lost(one: ClassScore) -> int:
    return math.floor(_lost(one) * one.samples + 0.5)


def _present(found: Evaluation) -> list[ClassScore]:
    return [one for one in found.classes if one.accuracy is not None]


def _of(found: Evaluation) -> str:
    return f"{found.name} ({found.kind}), {found.split} split"
