"""Label sets: by hand, by enumeration of all 2^K sets, as ONNX nodes, and as losses of torch."""

from __future__ import annotations

from itertools import product
from math import log

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper
from sklearn.metrics import average_precision_score, f1_score

from sdcompress import tasks
from sdcompress.errors import ArtifactError, DataError, RecipeError
from sdcompress.policies._base import SIGNALS_ATOL
from sdcompress.tasks.multilabel import MultiLabel

NAMES = ("sky", "road", "tree", "car")
TASK = MultiLabel(NAMES)
SETS = np.array(list(product((0, 1), repeat=4)), np.uint8)
logits_of = arrays.arrays(np.float32, (3, 4), elements=st.floats(-1e4, 1e4, width=32))
sets_of = arrays.arrays(np.uint8, (9, 4), elements=st.integers(0, 1))


def test_decisions_and_losses_by_hand() -> None:
    decided = TASK.decide(np.float32([[3, -1, 0, 1e-9], [-1, -1, -1, -1]]))
    assert (decided.dtype, decided.tolist()) == (np.uint8, [[1, 0, 0, 1], [0, 0, 0, 0]])
    # {sky, car} and {sky, tree}: 1 of 3 in common; nothing and nothing; nothing and {sky}; the same
    targets = np.uint8([[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]])
    decisions = np.uint8([[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]])
    np.testing.assert_allclose(TASK.loss(decisions, targets), [2 / 3, 0, 1, 0], rtol=1e-7)
    assert TASK.loss(decisions, targets).dtype == np.float32
    assert TASK.strata(targets) is None


def test_thresholds_by_hand_with_any_temperature() -> None:
    task = MultiLabel(NAMES, (0.5, 0.9, 0.1, 0.5))
    # logits of 0.9 and 0.1 are +-2.1972
    outputs = np.float32([[0.1, 2.19, -2.19, -0.1], [0, 2.2, -2.2, 0]])
    assert task.decide(outputs).tolist() == [[1, 0, 1, 0], [0, 1, 0, 0]]
    assert task.signals(outputs, 3.0).decision.tolist() == task.decide(outputs).tolist()


@given(sets_of, sets_of, sets_of)
def test_the_loss_is_a_metric(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    loss = TASK.loss(a, b)
    assert ((loss >= 0) & (loss <= 1)).all()
    np.testing.assert_array_equal(loss, TASK.loss(b, a))
    np.testing.assert_array_equal(loss == 0, (a == b).all(axis=1))
    assert (TASK.loss(a, c) <= loss + TASK.loss(b, c) + 1e-6).all()


def distribution(logits: np.ndarray, temperature: float) -> np.ndarray:
    """The logarithms of the probabilities of all 16 label sets, float64 [B, 16]."""
    scaled = logits.astype(np.float64)[:, None, :] / temperature
    return -np.logaddexp(0, np.where(SETS[None] == 1, -scaled, scaled)).sum(axis=2)


@settings(max_examples=200, deadline=None)
@given(logits_of, st.floats(0.05, 20.0))
def test_signals_against_all_label_sets(logits: np.ndarray, temperature: float) -> None:
    signals, logs = TASK.signals(logits, temperature), distribution(logits, temperature)
    ordered = np.sort(np.exp(logs), axis=1)
    np.testing.assert_allclose(signals["max_prob"], ordered[:, -1], rtol=1e-4)
    np.testing.assert_allclose(signals["second_prob"], ordered[:, -2], rtol=1e-2, atol=1e-6)
    np.testing.assert_allclose(signals["entropy"], -(np.exp(logs) * logs).sum(axis=1), rtol=1e-4, atol=1e-6)
    assert (signals["max_prob"] <= 1).all()
    assert (signals["second_prob"] <= signals["max_prob"]).all()
    assert (signals.stacked().dtype, signals.decision.shape) == (np.float32, (3, 4))


@settings(max_examples=50, deadline=None)
@given(logits_of, st.integers(0, 15))
def test_the_likelihood_is_that_of_the_set(logits: np.ndarray, chosen: int) -> None:
    expected = -distribution(logits, 2.0)[:, chosen].mean()
    assert TASK.nll(logits, np.repeat(SETS[chosen][None], 3, axis=0), 2.0) == pytest.approx(expected)


def test_what_is_not_finite_is_no_signal_and_the_outputs_are_left_alone() -> None:
    outputs = np.float32([[np.nan, 1, 2, 3], [np.inf, 1, 2, 3], [-np.inf, 1, 2, 3], [0, 1, 2, 3]])
    kept = outputs.copy()
    with np.errstate(invalid="ignore"):
        signals = TASK.signals(outputs)
    for column in signals.columns.values():
        assert np.isnan(column).tolist() == [True, True, True, False]
    np.testing.assert_array_equal(outputs, kept)
    assert TASK.signals(outputs[:0]).stacked().shape == (0, 3)


def session(task: MultiLabel) -> onnxruntime.InferenceSession:
    nodes, constants = task.signal_nodes("z", "values", "decision")
    size = len(task.outputs)
    graph = helper.make_graph(
        nodes,
        "signals",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", size])],
        [
            helper.make_tensor_value_info("values", TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("decision", TensorProto.UINT8, ["batch", size]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    assert all(name == "z" or name.startswith("z/") for node in nodes for name in node.input)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


UNEVEN = MultiLabel(tuple("abcdefghijk"), tuple(np.linspace(0.1, 0.9, 11).tolist()))
SESSION = session(UNEVEN)


@settings(max_examples=200, deadline=None)
@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 9), st.just(11)), elements=st.floats(-1e4, 1e4, width=32)))
def test_the_nodes_compute_the_signals(outputs: np.ndarray) -> None:
    values, decision = SESSION.run(None, {"z": outputs})
    expected = UNEVEN.signals(outputs)
    np.testing.assert_allclose(values, expected.stacked(), atol=SIGNALS_ATOL)
    np.testing.assert_array_equal(decision, expected.decision)


def test_the_nodes_give_no_signal_of_what_is_not_finite() -> None:
    outputs = np.zeros((3, 11), np.float32)
    outputs[0, 2], outputs[1, 2] = np.nan, np.inf
    values, _ = SESSION.run(None, {"z": outputs})
    assert np.isnan(values[:, 0]).tolist() == [True, True, False]


def test_losses_of_torch_by_hand() -> None:
    half = torch.zeros(2, 4)
    encoded = TASK.encode(torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.uint8))
    assert encoded.dtype == torch.float32
    assert TASK.supervised_loss(half, encoded).item() == pytest.approx(4 * log(2))
    assert TASK.smoothed(encoded, 0.2)[0].tolist() == pytest.approx([0.9, 0.1, 0.1, 0.9])
    # p = 0.8 against 0.5 for one label of four: .8 ln 1.6 + .2 ln .4, for one of two samples
    teacher = torch.zeros(2, 4)
    teacher[0, 0] = log(4)
    assert TASK.divergence(half, teacher, 1.0).item() == pytest.approx((0.8 * log(1.6) + 0.2 * log(0.4)) / 2)
    assert TASK.divergence(half, 2 * teacher, 2.0).item() == pytest.approx(2 * (0.8 * log(1.6) + 0.2 * log(0.4)))
    assert TASK.soft_targets(teacher)[0].tolist() == pytest.approx([0.8, 0.5, 0.5, 0.5])
    outputs, targets = np.float32([[2, -1, 0, 4]]), np.uint8([[1, 0, 1, 0]])
    loss = TASK.supervised_loss(torch.from_numpy(outputs), TASK.encode(torch.from_numpy(targets)))
    assert loss.item() == pytest.approx(TASK.nll(outputs, targets))


@settings(max_examples=50, deadline=None)
@given(logits_of, logits_of, st.floats(0.5, 20.0))
def test_gradients_are_finite_and_end_where_student_and_teacher_agree(
    student: np.ndarray, teacher: np.ndarray, temperature: float
) -> None:
    outputs, taught = torch.from_numpy(student).requires_grad_(), torch.from_numpy(teacher)
    divergence = TASK.divergence(outputs, taught, temperature)
    (gradient,) = torch.autograd.grad(divergence + TASK.supervised_loss(outputs, TASK.soft_targets(taught)), outputs)
    assert divergence.item() >= -1e-5
    assert gradient.isfinite().all()
    assert TASK.divergence(taught, taught, temperature).item() == pytest.approx(0, abs=1e-5)


def test_scores_by_hand() -> None:
    outputs = np.float32([[1, -1, -1, 1], [1, -1, -1, -1]])
    targets = np.uint8([[1, 0, 0, 1], [0, 1, 0, 0]])
    scores = TASK.summary(TASK.measures(outputs, targets))
    # F1 of sky 2/3, of road 0, of car 1; no sample has or gets tree; 2 hits, 3 decided, 3 there
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert scores["micro_f1"] == pytest.approx(2 * 2 / 6)
    assert scores["subset_accuracy"] == 0.5
    # both samples are equal for sky and for road, of which one has each
    assert scores["map"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    assert scores["nll"] == pytest.approx(TASK.nll(outputs, targets))
    assert TASK.summary(TASK.measures(-np.ones((1, 4), np.float32), np.zeros((1, 4), np.uint8)))["macro_f1"] == 1


def test_the_mean_average_precision_is_that_of_scikit_learn_with_equal_logits() -> None:
    rng = np.random.default_rng(0)
    outputs = np.round(rng.standard_normal((50, 4)), 1).astype(np.float32)
    targets = (rng.random((50, 4)) < 0.3).astype(np.uint8)
    found = TASK.summary(TASK.measures(outputs, targets))
    assert found["map"] == pytest.approx(average_precision_score(targets, outputs, average="macro"))
    assert found["micro_f1"] == pytest.approx(f1_score(targets, outputs > 0, average="micro"))


def test_the_best_thresholds_are_where_the_f1_of_a_label_is_largest() -> None:
    task = MultiLabel(("a", "b", "c"))
    outputs = np.float32([[3, -1, 0], [1, -1, 0], [-1, -2, 0], [-2, -3, 0]])
    targets = np.uint8([[1, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]])
    found = task.best_thresholds(outputs, targets)
    # a: between -1 and -2; b: equal logits are on one side, between -1 and -2; c: no sample has it
    np.testing.assert_allclose(found, [1 / (1 + np.exp(1.5)), 1 / (1 + np.exp(1.5)), 0.5], rtol=1e-6)
    assert MultiLabel(task.outputs, found).decide(outputs)[:, 0].tolist() == [1, 1, 1, 0]


def test_the_ensemble_has_the_mean_probability_of_each_label() -> None:
    # 0.8 and 0.5 of the first label: 0.65; of the last one 1e-30 and 0.5
    ensemble = TASK.ensemble(np.float32([[[log(4), 0, 0, -69]], [[0, 0, 0, 0]]]))
    np.testing.assert_allclose(1 / (1 + np.exp(-ensemble)), [[0.65, 0.5, 0.5, 0.25]], rtol=1e-6)


@given(arrays.arrays(np.float32, 11, elements=st.floats(-80, 80, width=32)), st.floats(0.5, 5))
def test_the_program_of_the_card_computes_the_same(outputs: np.ndarray, temperature: float) -> None:
    program: dict = {"np": np}
    exec(UNEVEN.card_code(), program)
    expected = UNEVEN.signals(outputs[None], temperature)
    assert program["decide"](outputs) == np.flatnonzero(expected.decision[0]).tolist()
    columns = program["signals"](outputs, temperature)
    assert tuple(columns) == UNEVEN.signal_names
    np.testing.assert_allclose(list(columns.values()), expected.stacked()[0], atol=SIGNALS_ATOL)


def test_a_prediction_names_the_labels() -> None:
    prediction = TASK.prediction(np.float32([[log(4), -1, 0, 5], [-1, -1, -1, -1]]), np.array([0, 1]), (), (2.0, 1.0))
    assert prediction.labels == (("sky", "car"), ())
    # T = 2 takes the odds of 4 to 2
    assert prediction.probabilities[0, 0] == pytest.approx(2 / 3)
    assert [name for name, _ in prediction.top(2)[0]] == ["car", "sky"]
    # sigmoids of 18 and 30 both round to 1
    sure = TASK.prediction(np.float32([[18, 30, -1, -1]]), np.array([0]))
    assert [name for name, _ in sure.top(2)[0]] == list(TASK.outputs[1::-1])
    # the whole set, whatever the count, and the second sample has none
    assert [[name for name, _ in row] for row in prediction.stated(1)] == [["car", "sky"], []]


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        (np.zeros(3, np.uint8), r"uint8 of shape \[3\]"),
        (np.zeros((3, 5), np.uint8), r"shape \[3, 5\]"),
        (np.zeros((3, 4), np.int64), "int64"),
        (np.uint8([[0, 1, 0, 0], [0, 0, 2, 0]]), "sample 1 has values above 1"),
    ],
)
def test_other_targets_are_refused(targets: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=says):
        TASK.check_targets(targets)


def test_parameters_go_into_a_manifest_and_back() -> None:
    assert MultiLabel(NAMES, (0.5, 0.9, 0.1, 0.5)).parameters == {"threshold": [0.5, 0.9, 0.1, 0.5]}
    for threshold in (0.3, (0.5, 0.9, 0.1, 0.5)):
        task = MultiLabel(NAMES, threshold)
        assert task.decide(np.zeros((2, 4), np.float32)).shape == (2, 4)
        assert tasks.restore(task.record.name, NAMES, task.record.parameters) == task


@pytest.mark.parametrize("threshold", [0, 1, [0.5, 0.5], "high"])
def test_other_thresholds_are_refused(threshold: object) -> None:
    with pytest.raises(RecipeError, match="threshold"):
        tasks.build("multilabel", NAMES, {"threshold": threshold})
    with pytest.raises(ArtifactError):
        tasks.restore("multilabel", NAMES, {"threshold": threshold})
