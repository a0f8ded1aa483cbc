"""Regression: decisions, losses and figures by hand and by scikit-learn, its signals, and policies that look back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics

from sdcompress import tasks
from sdcompress.errors import DataError, RecipeError, UsageError
from sdcompress.policies import check_task, default_policy
from sdcompress.policies.entropy import Entropy
from sdcompress.policies.patience import Patience
from sdcompress.policies.settled import Settled
from sdcompress.tasks import Signals
from sdcompress.tasks.regression import Regression

HEIGHT = Regression(("height",), mean=(170.0,), std=(10.0,), bound=20.0, step=0.5)
PAIR = Regression(("a", "b"), "gaussian", (0.0, 100.0), (1.0, 25.0), (2.0, 50.0), (0.1, 5.0))


def test_an_estimate_is_in_the_units_of_the_targets_and_its_error_is_clipped_at_the_bound() -> None:
    decisions = HEIGHT.decide(np.float32([[0], [1], [-3]]))
    np.testing.assert_array_equal(decisions, np.float32([[170], [180], [140]]))
    loss = HEIGHT.loss(decisions, np.float32([[175], [180], [170]]))
    np.testing.assert_allclose(loss, [5 / 20, 0, 1])
    # 1 of 2 and 10 of 50
    np.testing.assert_allclose(PAIR.loss(np.float32([[1, 90]]), np.float32([[0, 100]])), [(0.5 + 0.2) / 2], rtol=1e-6)
    np.testing.assert_array_equal(HEIGHT.loss(np.float32([[np.nan], [np.inf]]), np.float32([[170], [170]])), [1, 1])


def test_figures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    outputs, targets = rng.standard_normal((40, 4)).astype(np.float32), rng.normal(50, 30, (40, 2)).astype(np.float32)
    found, estimate = PAIR.summary(PAIR.measures(outputs, targets)), PAIR.decide(outputs)
    assert found["r2"] == pytest.approx(metrics.r2_score(targets, estimate), rel=1e-5)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(targets, estimate), rel=1e-5)
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(targets, estimate), rel=1e-5)
    normal = torch.distributions.Normal(
        torch.from_numpy(estimate), torch.from_numpy(outputs[:, 2:]).exp() * torch.tensor([1.0, 25.0])
    )
    nll = -normal.log_prob(torch.from_numpy(targets)).sum(1).mean().item()
    assert found["nll"] == pytest.approx(nll, rel=1e-5)


def test_losses_of_torch_are_those_of_its_functions_and_distributions() -> None:
    chance = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(6, 4, generator=chance), torch.randn(6, 4, generator=chance)
    ours, theirs = (torch.distributions.Normal(z[:, :2], z[:, 2:].exp()) for z in (student, teacher))
    kl = torch.distributions.kl_divergence(theirs, ours).mean().item()
    assert PAIR.divergence(student, teacher, 1.0).item() == pytest.approx(kl, rel=1e-5)
    encoded = PAIR.encode(torch.tensor([[1.0, 125.0]] * 6))
    assert encoded[0].tolist() == [1, 1]
    nll = -ours.log_prob(encoded).mean().item() - np.log(2 * np.pi) / 2
    assert PAIR.supervised_loss(student, encoded).item() == pytest.approx(nll, rel=1e-5)
    estimate, target = torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0], [0.0]])
    for criterion, expected in (("mse", (1 + 9) / 2), ("mae", (1 + 3) / 2), ("huber", (0.5 + 2.5) / 2)):
        task = Regression(("height",), criterion)
        assert task.supervised_loss(estimate, target).item() == pytest.approx(expected)
        assert task.divergence(estimate, target, 2.0).item() == pytest.approx(expected)


def test_training_targets_give_mean_and_deviation_and_a_recipe_may_set_others() -> None:
    targets = np.float32([[1], [3]])
    fitted = Regression(("a",)).fitted(targets)
    assert (fitted.mean, fitted.std, fitted.bound, fitted.step) == ((2.0,), (1.0,), (2.0,), (0.1,))
    assert Regression(("a",), bound=7.0, mean=(0.0,)).fitted(targets).parameters == {
        "criterion": "mse",
        "mean": [0.0],
        "std": [1.0],
        "bound": 7.0,
        "step": [0.1],
        "huber_delta": 1.0,
    }
    with pytest.raises(DataError, match="all the same number"):
        Regression(("a",)).fitted(np.float32([[7.7]] * 1000))  # whose deviation in float64 is not 0


@pytest.mark.parametrize(
    ("targets", "why"),
    [
        (np.float32([[1], [np.nan]]), "1 are NaN or infinite, the first of sample 1"),
        (np.zeros((2, 1)), "float64"),
        (np.zeros((2, 3), np.float32), r"shape \[2, 3\]"),
    ],
)
def test_targets_that_cannot_be_used_are_named(targets: np.ndarray, why: str) -> None:
    with pytest.raises(DataError, match=why):
        HEIGHT.check_targets(targets)


def test_parameters_for_another_number_of_outputs_are_refused() -> None:
    with pytest.raises(RecipeError, match="std has 1 values for 2 numbers"):
        tasks.build("regression", ("a", "b"), {"std": [1.0]})
    with pytest.raises(RecipeError):
        tasks.build("regression", ("a",), {"bound": -1.0})


def test_a_smaller_deviation_is_a_smaller_entropy() -> None:
    entropy = PAIR.signals(np.float32([[0, 0, 0, 0], [0, 0, -1, 0], [9, 9, -7, -7]]))["entropy"]
    normal = 0.5 * np.log(2 * np.pi * np.e)
    # a deviation of 1 in steps of 0.1, and of 25 in steps of 5
    assert entropy[0] == pytest.approx(2 * normal + np.log(10) + np.log(5), rel=1e-5)
    assert entropy[1] == pytest.approx(entropy[0] - 1, rel=1e-5)
    assert entropy[2] == 0


def test_a_network_that_states_no_deviation_gives_no_signal_to_judge_by() -> None:
    with pytest.raises(UsageError, match=r"(?s)'entropy' judges by entropy.*agreement of exits"):
        check_task("entropy", HEIGHT)
    assert isinstance(default_policy(HEIGHT), Settled)
    assert isinstance(default_policy(PAIR), Entropy)


def test_patience_and_settled_see_numbers_that_moved_less_than_a_step() -> None:
    exits = [HEIGHT.signals(np.float32(column)[:, None]) for column in ([0, 0, 0], [0.04, 0.2, np.nan])]
    np.testing.assert_array_equal(exits[1].agrees(exits[0]), [True, False, False])
    # 0.4 and 2 units of the target are 0.8 and 4 steps
    np.testing.assert_allclose(Settled().score(1, exits), [1 / 1.8, 1 / 5, np.nan], rtol=1e-5)
    np.testing.assert_array_equal(Settled().score(0, exits[:1]), [0, 0, 0])
    np.testing.assert_allclose(Patience().score(1, exits), [2 / 3, 1 / 2, np.nan])
    np.testing.assert_array_equal(HEIGHT.flips(exits[0].decision, exits[1].decision), [False, True, True])


def test_the_change_of_numbers_is_the_same_in_signals_that_are_kept() -> None:
    exits = [PAIR.signals(np.float32(each)) for each in ([[0, 0, 0, 0]], [[0.05, 0.4, 0, 0]], [[0.2, 0.4, 0, 0]])]
    kept = Signals.condensed(exits)
    # 0.05 of a step of 0.1, and 10 of a step of 5
    assert kept[1].change(kept[0]).tolist() == [2]
    np.testing.assert_array_equal(Settled().score(2, kept), Settled().score(2, exits))


def test_a_prediction_states_its_numbers_by_name() -> None:
    prediction = PAIR.prediction(np.float32([[1, 2, 0, 0]]), np.array([0]))
    assert prediction.stated() == ((("a", 1.0), ("b", 150.0)),)
