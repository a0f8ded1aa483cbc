"""A temperature must earn its place: by what it saves, not by a lower NLL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from signals import TASK, signals_of

from sdcompress.calibration import policy_fitting
from sdcompress.calibration.calibrate import check_policy
from sdcompress.calibration.policy_fitting import fit_policy, fit_temperature
from sdcompress.data.samples import ArraySamples, Subset
from sdcompress.errors import UnknownNameError, UsageError
from sdcompress.evaluation.exit_outcomes import exit_outcomes, exit_outputs
from sdcompress.modalities import Inputs
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image
from sdcompress.runtime.open import open_engine
from sdcompress.schema.recipe import Calibrate
from sdcompress.tasks.classification import Classification
from sdcompress.tasks.segmentation import Segmentation

STAGE_MS = (1.0, 9.0)


class Told:
    """An engine of two exits whose logits were written down; images are row numbers."""

    exit_names = ("early", "final")
    task = Classification(("a", "b", "c"))
    modality = Image(Preprocess(channels=1, mean=(0.0,), std=(1.0,)), (1, 1, 1))

    def __init__(self, logits: np.ndarray) -> None:
        self._logits = logits

    def exits(self, inputs: Inputs) -> np.ndarray:
        return self._logits[:, np.rint(np.asarray(inputs).reshape(-1) * 255).astype(int)]

    def signals(self, inputs: Inputs, temperatures: Any) -> Any:
        return tuple(map(signals_of, self.exits(inputs), temperatures))


def told(early: list[list[float]], labels: list[int]) -> tuple[Told, ArraySamples]:
    """The last exit is always right and sure."""
    final = np.eye(3)[labels] * 20
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    return Told(np.float32([early, final])), ArraySamples(images, np.array(labels))


# at T = 1 the two-way doubts (p = .731) look surer than the three-way ones (.691), which are the right answers; at a
# low temperature it is the other way round
TWO_WAY, THREE_WAY = [0.0, -1.0, -20.0], [0.0, -1.5, -1.5]


@pytest.mark.parametrize("stage_ms", [STAGE_MS, (9.0, 1.0)])  # the last exit always costs both stages
def test_a_temperature_that_orders_the_samples_better_is_kept(stage_ms: tuple[float, float]) -> None:
    engine, samples = told([TWO_WAY] * 4 + [THREE_WAY] * 96, [1] * 4 + [0] * 96)
    fitted, signals, loss = fit_policy(engine, samples, Calibrate(max_drop=0.0), stage_ms)  # type: ignore[arg-type]
    early, final = fitted.temperatures
    assert early == fit_temperature(
        engine.task, engine.exits(samples.examples(np.arange(100)) / np.float32(255))[0], samples.targets
    )
    assert early < 0.6
    assert final == 1
    assert signals[0]["max_prob"][:4].max() < signals[0]["max_prob"][4:].min()
    assert loss[0].tolist() == [1] * 4 + [0] * 96


def test_one_that_only_lowers_the_nll_is_not() -> None:
    # all rows are scaled copies of one: a temperature moves confidences, never their order
    engine, samples = told([[0.0, -1.0 - 0.01 * row, -20.0] for row in range(100)], [0] * 97 + [1] * 3)
    assert (
        fit_temperature(
            engine.task, engine.exits(samples.examples(np.arange(100)) / np.float32(255))[0], samples.targets
        )
        != 1
    )
    fitted, _, _ = fit_policy(engine, samples, Calibrate(max_drop=0.0), STAGE_MS)  # type: ignore[arg-type]
    assert fitted.temperatures == (1.0, 1.0)


def test_temperatures_of_large_outputs_are_fitted_on_fewer_samples_which_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, samples = told([TWO_WAY] * 4 + [THREE_WAY] * 96, [1] * 4 + [0] * 96)
    monkeypatch.setattr(policy_fitting, "_TEMPERATURE_VALUES", 30)  # of 3 logits each
    with pytest.warns(UserWarning, match="compared on 10 of 100 samples, because the outputs of each have 3 values"):
        fitted, _, loss = fit_policy(engine, samples, Calibrate(max_drop=0.0), STAGE_MS)  # type: ignore[arg-type]
    tenth = Subset(samples, np.arange(0, 100, 11))
    outputs = exit_outputs(engine, tenth)  # type: ignore[arg-type]
    assert fitted.temperatures[0] == fit_temperature(engine.task, outputs[0], tenth.targets) != 1
    assert loss.shape == (2, 100)


@pytest.mark.parametrize("settings", [{"fit_temperature": False}, {"unlabelled": True, "confidence": 0.95}])
def test_none_is_tried_where_it_is_not_asked_for_or_there_are_no_labels(settings: dict[str, Any]) -> None:
    engine, samples = told([TWO_WAY] * 4 + [THREE_WAY] * 96, [1] * 4 + [0] * 96)
    fitted, _, _ = fit_policy(engine, samples, Calibrate(**settings), STAGE_MS)  # type: ignore[arg-type]
    assert fitted.temperatures == (1.0, 1.0)


def test_without_labels_the_loss_is_against_the_last_exit() -> None:
    engine, samples = told([TWO_WAY, THREE_WAY, [0.0, 1.0, 0.0]], [0, 1, 1])
    unlabelled = ArraySamples(samples.examples(np.arange(3)), np.full(3, -1))
    _, loss, _ = exit_outcomes(engine, unlabelled, (1.0, 1.0), unlabelled=True)  # type: ignore[arg-type]
    assert loss.tolist() == [[0, 1, 0], [0, 0, 0]]


def test_disagreement_is_with_the_last_exit_whatever_losses_are_counted_from() -> None:
    engine, samples = told([TWO_WAY, THREE_WAY, [0.0, 1.0, 0.0]], [0, 1, 1])  # the early exit says 0, 0 and 1
    others = ArraySamples(samples.examples(np.arange(3)), np.array([2, 2, 1]))
    asked: dict[str, Any]
    for asked in ({}, {"unlabelled": True}, {"unlabelled": True, "reference": np.array([2, 0, 2])}):
        found = exit_outcomes(engine, others, (1.0, 1.0), **asked)  # type: ignore[arg-type]
        assert found.disagreement.tolist() == [[0, 1, 0]]
    assert found.loss.tolist() == [[1, 0, 1], [1, 1, 1]]  # from that reference


def test_the_signals_are_those_that_the_engine_judges_by(tiny_artifact: Callable[..., Path], tiny_network: Any) -> None:
    engine, samples = open_engine(tiny_artifact(), threads=1), tiny_network.samples(300)
    signals, _, _ = exit_outcomes(engine, samples, (2.0, 1.0, 1.0), unlabelled=False)
    inputs = engine.preprocess(samples.examples(np.arange(300)))
    for found, expected in zip(signals, engine.signals(inputs, (2.0, 1.0, 1.0)), strict=True):
        np.testing.assert_allclose(found.stacked(), expected.stacked(), rtol=1e-5)
        np.testing.assert_array_equal(found.decision, expected.decision)


def test_batches_of_like_lengths_keep_the_order_of_the_samples() -> None:
    class Lengths(Image):
        varies = True

        def lengths(self, examples: Any) -> Any:
            return 100 - np.asarray(examples).reshape(-1).astype(np.int64)

    class Ordered(Told):
        modality = Lengths(Preprocess(channels=1, mean=(0.0,), std=(1.0,)), (1, 1, 1))
        seen: tuple[int, ...] = ()

        def exits(self, inputs: Inputs) -> np.ndarray:
            self.seen += tuple(np.rint(np.asarray(inputs).reshape(-1) * 255).astype(int).tolist())
            return super().exits(inputs)

    labels = np.arange(30) % 3
    final, early = np.eye(3)[labels] * 20, np.eye(3)[labels[::-1]] * np.arange(1, 31)[:, None]
    logits = np.float32([early, final])
    samples = ArraySamples(np.arange(30, dtype=np.uint8).reshape(-1, 1, 1, 1), labels)
    engine = Ordered(logits)
    for unlabelled, reference in ((False, None), (True, None), (True, labels[::-1])):
        asked = {"unlabelled": unlabelled, "reference": reference}
        found, loss, _ = exit_outcomes(engine, samples, (1.0, 1.0), **asked)  # type: ignore[arg-type]
        expected, losses, _ = exit_outcomes(Told(logits), samples, (1.0, 1.0), **asked)  # type: ignore[arg-type]
        assert loss.tolist() == losses.tolist()
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one.stacked(), other.stacked())
            np.testing.assert_array_equal(one.decision, other.decision)
    assert engine.seen[:30] == tuple(range(29, -1, -1))


def test_a_policy_that_does_not_exist_or_does_not_fit_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="max_prob"):
        check_policy(Calibrate(policy="max_probe"), 4, TASK)
    with pytest.raises(UsageError, match="does not work with 2 exits") as caught:
        check_policy(Calibrate(policy="patience"), 2, TASK)
    assert "at least 3 exits" in str(caught.value.allowed)
    check_policy(Calibrate(policy="patience"), 3, TASK)
    with pytest.raises(UsageError, match="one threshold for all exits"):
        check_policy(Calibrate(policy="pcee", confidence=0.95, group_by="exit"), 4, TASK)

    with pytest.raises(UsageError, match="'patience' judges by agreement of exits, which this task does not give"):
        check_policy(Calibrate(policy="patience"), 8, Segmentation(("a", "b")))

    class Plain(Classification):
        signal_names = ("entropy",)

    check_policy(Calibrate(policy="entropy"), 4, Plain(("a", "b")))
    with pytest.raises(
        UsageError, match="'margin' judges by max_prob, second_prob, which this task does not give"
    ) as caught:
        check_policy(Calibrate(policy="margin"), 4, Plain(("a", "b")))
    assert "entropy, fixed, patience, settled" in caught.value.next_step
