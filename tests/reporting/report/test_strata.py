"""What is said of the classes: a majority that hides the others, classes that nobody answers, classes that pay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdcompress.evaluation.strata import balanced_metric, confusion, stratum_scores
from sdcompress.reporting.report.strata import confusions, stratum_cautions, stratum_table, worst_stratum
from sdcompress.schema.report import Evaluation, ExitEvaluation, PolicyEvaluation

NAMES = ("cat", "dog", "eel")


def evaluation(matrix: Any, last: Any = None, names: Any = NAMES) -> Evaluation:
    """From the images of each label (rows) that get each answer (columns); of the last exit too, under a policy."""
    labels, answers = _images(matrix)
    last_answers = None if last is None else _images(last)[1]
    early = np.float32(labels != answers)
    exit_loss = [early] if last_answers is None else [early, np.float32(labels != last_answers)]
    left = None if last_answers is None else np.int64(answers == last_answers)
    scores = stratum_scores(names, labels, early, exit_loss, left)
    right = float((labels == answers).mean())
    policy = None if last is None else PolicyEvaluation(metric=right, shares=(0.5, 0.5), metric_by_exit=(None, None))
    final = right if last_answers is None else float((labels == last_answers).mean())
    names_of_exits = ("final",) if policy is None else ("exit1", "final")
    exits = tuple(ExitEvaluation(name=name, metric=final) for name in names_of_exits)
    return Evaluation(
        kind="artifact", name="net", source="net", data="pets", split="test", samples=len(labels),
        exits=exits, policy=policy, metric_name="accuracy", binary_loss=True, stratum="class", strata=scores,
        balanced_metric=balanced_metric(scores), confusion=confusion(labels, answers, len(names)),
    )  # fmt: skip


def _images(matrix: Any) -> tuple[np.ndarray, np.ndarray]:
    cells = [(row, column, int(n)) for (row, column), n in np.ndenumerate(np.array(matrix))]
    return tuple(np.repeat([cell[k] for cell in cells], [cell[2] for cell in cells]) for k in (0, 1))  # type: ignore


def test_a_network_that_answers_the_majority_on_every_image() -> None:
    # 946 of 1,000: 94.60 %, and a third of the classes right
    ((_, sentence),) = stratum_cautions(evaluation([[946, 0, 0], [30, 0, 0], [24, 0, 0]]))
    assert sentence == "net predicts 'cat', the commonest class, for every sample: balanced accuracy 33.33 %."


def test_a_network_that_is_no_better_than_the_majority() -> None:
    # 3 dogs won, 2 cats lost: 0.1 point of 1,000 images, which chance gives as well
    ((_, sentence),) = stratum_cautions(evaluation([[944, 2, 0], [27, 3, 0], [24, 0, 0]]))
    assert sentence == (
        "net is not shown to be better (94.70 %) than always predicting 'cat', the commonest class (94.60 %);"
        " balanced accuracy 36.60 %."
    )


def test_classes_that_are_never_answered_are_named() -> None:
    ((_, sentence),) = stratum_cautions(evaluation([[500, 0, 0], [10, 290, 0], [24, 0, 0]]))
    assert sentence == "net never predicts 'eel' (24 samples)."


def test_a_class_that_pays_for_the_early_exits_is_named() -> None:
    last = [[470, 0, 0], [0, 490, 0], [1, 0, 39]]
    ((_, sentence),) = stratum_cautions(evaluation([[465, 5, 0], [0, 490, 0], [11, 0, 29]], last))
    # 15 of 1,000 over all; 10 of the 40 eels, more than three times as many
    assert sentence.startswith("net: early exit costs class 'eel' 25.0 points (97.50 % to 72.50 % on 40 samples).")
    assert "--group-by stratum" in sentence
    assert stratum_cautions(evaluation([[465, 5, 0], [0, 490, 0], [2, 0, 38]], last)) == []


def test_what_early_exit_costs_each_class_stands_in_the_table() -> None:
    found = evaluation([[8, 2, 0], [0, 10, 0], [0, 0, 0]], [[9, 1, 0], [0, 10, 0], [0, 0, 0]])
    exits = tuple(exit_.model_copy(update={"macs": macs}) for exit_, macs in zip(found.exits, (25, 100), strict=True))
    table = stratum_table(found.model_copy(update={"exits": exits}))
    assert table is not None
    assert table.columns[-2:] == ("points lost", "of the MACs")
    # one cat of ten left at exit1, which costs a quarter: (1 x 25 + 9 x 100) / 10
    assert [row[-2:] for row in table.rows] == [("+10.0", "92.5 %"), ("+0.0", "100.0 %")]


def test_a_good_network_gets_no_word() -> None:
    assert stratum_cautions(evaluation([[99, 1, 0], [0, 100, 0], [2, 0, 98]])) == []


def test_an_evaluation_without_classes_has_nothing_to_say() -> None:
    bare = evaluation([[9, 0, 0], [0, 9, 0], [0, 0, 9]]).model_copy(update={"strata": (), "confusion": ()})
    assert (stratum_table(bare), confusions(bare), stratum_cautions(bare), worst_stratum(bare)) == (
        None,
        None,
        [],
        None,
    )


def test_the_tables_of_a_few_classes() -> None:
    result = evaluation([[90, 10, 0], [0, 50, 0], [5, 0, 15]])
    table, matrix = stratum_table(result), confusions(result)
    assert table is not None
    assert matrix is not None
    assert table.columns == ("class", "samples", "accuracy")
    assert [(row[0], row[1], row[2].partition(" [")[0]) for row in table.rows] == [
        ("cat", "100", "90.00 %"), ("dog", "50", "100.00 %"), ("eel", "20", "75.00 %"),
    ]  # fmt: skip
    assert "88.33 %" in table.note
    assert matrix.rows == (("cat", "90", "10", "0"), ("dog", "0", "50", "0"), ("eel", "5", "0", "15"))
    worst = worst_stratum(result)
    assert worst is not None
    assert worst.name == "eel"


def test_of_many_classes_the_worst_and_the_commonest_confusions_are_shown() -> None:
    names = tuple(f"class {k}" for k in range(100))
    matrix = np.diag(np.full(100, 50))
    for k in range(30):
        matrix[k, k], matrix[k, (k + 1) % 100] = 50 - k, k
    result = evaluation(matrix, names=names)
    table, largest = stratum_table(result), confusions(result)
    assert table is not None
    assert largest is not None
    assert [row[0] for row in table.rows[:2]] == ["class 29", "class 28"]
    assert len(table.rows) == 20
    assert largest.rows[0] == ("class 29", "class 30", "29", "58.0 %")
    assert len(largest.rows) == 12


@pytest.mark.parametrize("classes", [1, 2])
def test_one_class_alone_has_no_majority(classes: int) -> None:
    matrix = np.zeros((2, 2), np.int64)
    matrix[:classes, :classes] = np.diag([50] * classes)
    assert stratum_cautions(evaluation(matrix, names=("a", "b"))) == []


def test_strata_of_graded_losses_have_no_proportions_and_no_confusions() -> None:
    record = evaluation([[90, 10, 0], [0, 50, 0], [5, 0, 15]])
    graded = Evaluation.model_validate(record.model_dump() | {"binary_loss": False, "confusion": ()})
    table = stratum_table(graded)
    assert table is not None
    assert [row[2] for row in table.rows] == ["90.00 %", "100.00 %", "75.00 %"]
    assert confusions(graded) is None
    assert stratum_cautions(graded) == []
