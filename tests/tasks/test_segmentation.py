"""Masks: losses and scores by hand, against torch and numpy, and the triangle inequality with void pixels."""

from __future__ import annotations

import io
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from sdcompress import tasks
from sdcompress.errors import DataError, RecipeError
from sdcompress.objectives.batch import Batch, Minibatch
from sdcompress.objectives.supervised import encoded_targets
from sdcompress.schema.graphs import Tensor
from sdcompress.tasks import Signals
from sdcompress.tasks.segmentation import Segmentation

VOID = 255
TASK = Segmentation(("sky", "road", "car"), (2, 2))
WIDE = Segmentation(("sky", "road", "car"), (6, 8), signal_stride=2)
masks_of = arrays.arrays(np.uint8, (6, 2, 2), elements=st.integers(0, 2))
targets_of = arrays.arrays(np.uint8, (6, 2, 2), elements=st.sampled_from([0, 1, 2, VOID]))


def outputs(count: int = 4, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (3 * rng.standard_normal((count, 3, 6, 8))).astype(np.float32)


def targets(count: int = 4, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.choice(np.uint8([0, 1, 2, VOID]), (count, 6, 8))


def test_losses_by_hand() -> None:
    decided = np.uint8([[[0, 0], [1, 1]]] * 4)
    against = np.uint8([[[0, 0], [1, 1]], [[0, 1], [1, 1]], [[2, 2], [2, 2]], [[0, VOID], [2, VOID]]])
    # the same; sky 1 of 2, road 2 of 3, no car; nothing in common; void counts as decided: sky 2 of 2, road 1 of 2
    # (the void one below), car 0 of 1
    expected = [0, 1 - (1 / 2 + 2 / 3) / 2, 1, 1 - (1 + 1 / 2 + 0) / 3]
    np.testing.assert_allclose(TASK.loss(decided, against), expected, rtol=1e-6)
    assert TASK.loss(decided, against).dtype == np.float32


@given(masks_of, masks_of, targets_of)
def test_early_exit_loses_no_more_than_it_disagrees(a: np.ndarray, b: np.ndarray, target: np.ndarray) -> None:
    assert (TASK.loss(a, target) <= TASK.loss(a, b) + TASK.loss(b, target) + 1e-6).all()
    np.testing.assert_array_equal(TASK.loss(a, b), TASK.loss(b, a))
    np.testing.assert_array_equal(TASK.loss(a, b) == 0, (a == b).all(axis=(1, 2)))


@given(masks_of, targets_of)
def test_the_loss_is_the_distance_to_the_nearest_mask_that_the_target_allows(a: np.ndarray, target: np.ndarray) -> None:
    for first in range(3):
        filled = np.where(target == VOID, first, target).astype(np.uint8)
        assert (TASK.loss(a, target) <= TASK.loss(a, filled) + 1e-6).all()


def test_every_triple_of_small_masks_keeps_the_triangle_inequality() -> None:
    every = np.array(list(product(range(3), repeat=4)), np.uint8).reshape(-1, 2, 2)
    distances = np.stack([TASK.loss(np.broadcast_to(mask, every.shape), every) for mask in every])
    detours = (distances[:, :, None] + distances[None]).min(axis=1)
    assert (distances <= detours + 1e-6).all()


def test_decisions_are_those_of_argmax_and_no_temperature_changes_them() -> None:
    logits = outputs()
    logits[0, :, 0, 0] = 1  # equal ones: the first
    decided = WIDE.decide(logits)
    np.testing.assert_array_equal(decided, logits.argmax(axis=1))
    assert (decided.dtype, decided.shape) == (np.uint8, (4, 6, 8))
    np.testing.assert_array_equal(WIDE.signals(logits, 3.0).decision, decided)


def test_signals_are_means_over_every_second_pixel() -> None:
    logits, temperature = outputs(), 1.7
    seen = torch.from_numpy(logits[:, :, ::2, ::2]).double() / temperature
    p = seen.softmax(1)
    ranked = p.sort(dim=1, descending=True).values.mean((2, 3))
    entropy = -(p * p.log()).sum(1).mean((1, 2))
    signals = WIDE.signals(logits, temperature)
    np.testing.assert_allclose(signals["max_prob"], ranked[:, 0], rtol=1e-5)
    np.testing.assert_allclose(signals["second_prob"], ranked[:, 1], rtol=1e-5)
    np.testing.assert_allclose(signals["entropy"], entropy, rtol=1e-5)


def test_scores_are_of_summed_counts_without_void() -> None:
    logits, masks = outputs(), targets()
    decided, known = logits.argmax(axis=1), masks != VOID
    found, true = decided[known], masks[known]
    iou = [((found == k) & (true == k)).sum() / ((found == k) | (true == k)).sum() for k in range(3)]
    expected = F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(masks).long(), ignore_index=VOID)
    parts = [WIDE.measures(logits[rows], masks[rows]) for rows in (slice(0, 1), slice(1, 4))]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    scores = WIDE.summary(joined)
    assert scores["miou"] == pytest.approx(np.mean(iou))
    assert scores["pixel_accuracy"] == pytest.approx((found == true).mean())
    assert scores["nll"] == pytest.approx(float(expected), rel=1e-5)
    assert WIDE.nll(logits, masks) == pytest.approx(float(expected), rel=1e-5)
    assert WIDE.nll(logits, masks, 2.0) == pytest.approx(
        float(F.cross_entropy(torch.from_numpy(logits) / 2, torch.from_numpy(masks).long(), ignore_index=VOID)),
        rel=1e-5,
    )
    # a class that occurs nowhere is not part of the mean
    one = np.zeros((1, 6, 8), np.uint8)
    sure = np.stack([np.full((1, 6, 8), 5.0), np.zeros((1, 6, 8)), np.zeros((1, 6, 8))], axis=1).astype(np.float32)
    assert WIDE.summary(WIDE.measures(sure, one))["miou"] == 1.0


def test_the_training_loss_is_that_of_torch() -> None:
    logits, masks = torch.from_numpy(outputs()), torch.from_numpy(targets())
    encoded = WIDE.encode(masks)
    assert encoded.shape == logits.shape
    np.testing.assert_array_equal(encoded.sum(1), (masks != VOID).float())
    plain = F.cross_entropy(logits, masks.long(), ignore_index=VOID)
    assert WIDE.supervised_loss(logits, encoded).item() == pytest.approx(plain.item(), rel=1e-5)
    weights = torch.tensor([0.5, 2.0, 7.0])
    weighted = F.cross_entropy(logits, masks.long(), weight=weights, ignore_index=VOID)
    given_weights = encoded * weights.view(-1, 1, 1)
    assert WIDE.supervised_loss(logits, given_weights).item() == pytest.approx(weighted.item(), rel=1e-5)
    smooth = F.cross_entropy(logits, masks.long(), ignore_index=VOID, label_smoothing=0.2)
    assert WIDE.supervised_loss(logits, WIDE.smoothed(encoded, 0.2)).item() == pytest.approx(smooth.item(), rel=1e-5)
    nothing = WIDE.encode(torch.full((2, 6, 8), VOID, dtype=torch.uint8))
    assert WIDE.supervised_loss(logits[:2], nothing).item() == 0


def test_the_divergence_is_the_mean_over_pixels() -> None:
    student, teacher = (torch.from_numpy(outputs(seed=seed)) for seed in (0, 1))
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    expected = 4 * (p * (p / q).log()).sum(1).mean()
    assert WIDE.divergence(student, teacher, 2.0).item() == pytest.approx(expected.item(), rel=1e-4)
    np.testing.assert_allclose(WIDE.soft_targets(student).sum(1), np.ones((4, 6, 8)), rtol=1e-5)


def test_the_ensemble_is_of_mean_probabilities() -> None:
    logits = np.stack([outputs(seed=seed) for seed in range(3)])
    p = torch.from_numpy(logits).softmax(2).mean(0)
    np.testing.assert_allclose(np.exp(WIDE.ensemble(logits)), p, rtol=1e-5)


def test_the_ensemble_keeps_probabilities_that_underflow() -> None:
    logits = np.stack([200 * outputs(seed=seed) for seed in range(3)])
    expected = torch.from_numpy(logits).double().log_softmax(2).logsumexp(0) - np.log(3)
    assert expected.min() < -120  # exp of it is no float32
    np.testing.assert_allclose(WIDE.ensemble(logits), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda masks: masks.astype(np.int64), "int64"),
        (lambda masks: masks[:, :1], r"shape \[4, 1, 8\]"),
        (lambda masks: np.where(masks == 1, 3, masks).astype(np.uint8), "sample 0 holds the value 3"),
        (lambda masks: np.concatenate([masks[:2], np.full_like(masks[:1], VOID)]), "sample 2 is void everywhere"),
    ],
)
def test_targets_that_cannot_be_used_are_named(damage: object, says: str) -> None:
    WIDE.check_targets(targets())
    with pytest.raises(DataError, match=says):
        WIDE.check_targets(damage(targets()))


def test_parameters_are_checked_and_the_size_is_that_of_the_input() -> None:
    inputs = (Tensor(name="input", dtype="float32", shape=("batch", 3, 6, 8)),)
    assert Segmentation.parameters_for(inputs) == {"size": [6, 8]}
    made = tasks.build("segmentation", ("a", "b"), {"size": [6, 8], "ignore_index": 11})
    assert made.output_shape == (2, 6, 8)
    assert tasks.restore("segmentation", made.outputs, made.parameters) == made
    for parameters in ({"ignore_index": 1}, {"size": [0, 8]}, {"size": [6, 8], "signal_stride": 0}):
        with pytest.raises(RecipeError):
            tasks.build("segmentation", ("a", "b"), parameters)


def test_a_prediction_names_the_largest_classes_and_draws_the_mask() -> None:
    logits = np.full((1, 3, 6, 8), -1, np.float32)
    logits[0, 1] = 0
    logits[0, 2, :, :2] = 5  # a quarter
    prediction = WIDE.prediction(logits, np.zeros(1, np.int64))
    assert prediction.top(5) == ((("road", 0.75), ("car", 0.25)),)
    assert prediction.stated() == ((("road", 0.75),),)
    image = Image.open(io.BytesIO(prediction.picture(0)))
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), prediction.decision[0])
    # PASCAL VOC: aeroplane is 128 0 0, bicycle 0 128 0
    assert image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    drawn = WIDE.drawn(prediction.decision)
    assert (drawn.shape, drawn.dtype) == ((1, 6, 8, 3), np.uint8)
    assert list(WIDE.legend()) == ["sky", "road", "car", "void"]


def test_the_card_s_program_says_the_same() -> None:
    scope: dict[str, object] = {"np": np}
    exec(WIDE.card_code(), scope)
    logits = outputs(1)
    signals = scope["signals"](logits[0], 1.5)
    for name, value in signals.items():
        assert value == pytest.approx(float(WIDE.signals(logits, 1.5)[name][0]), rel=1e-4)
    shares = scope["decide"](logits[0])
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)


def test_condensed_signals_know_which_exits_agree() -> None:
    exits = [WIDE.signals(outputs(seed=seed)) for seed in (0, 1, 0, 2)]
    exits[3].decision[1] = exits[1].decision[1]
    condensed = Signals.condensed(exits)
    assert [each.decision.tolist() for each in condensed] == [[0] * 4, [1] * 4, [0] * 4, [3, 1, 3, 3]]
    for a, b in ((0, 1), (0, 2), (1, 3)):
        np.testing.assert_array_equal(condensed[a].agrees(condensed[b]), exits[a].agrees(exits[b]))


def test_as_many_samples_at_a_time_as_have_small_outputs() -> None:
    large = Segmentation(tuple("abcdefghijk"), (180, 240))
    assert large.batch_size(256, exits=3) == 2**26 // (4 * 3 * 11 * 180 * 240)
    assert Segmentation(tuple("ab"), (8192, 8192)).batch_size(256) == 1
    assert WIDE.batch_size(256, exits=3) == 256


def test_class_weights_count_pixels_and_multiply_every_pixel() -> None:
    masks = np.uint8([[[0, 0], [1, VOID]], [[0, 2], [2, VOID]]])
    assert TASK.class_counts(masks).tolist() == [3, 1, 2]
    weights = torch.tensor([1.0, 2.0, 3.0])
    step = Batch(Minibatch((), torch.from_numpy(masks), torch.arange(2)), TASK, class_weights=weights)
    encoded = encoded_targets(step)
    assert encoded.sum(1).tolist() == [[[1, 1], [2, 0]], [[1, 3], [3, 0]]]
