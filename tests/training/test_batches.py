"""Which images make which step, alone and shared, with and without companions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch

from sdcompress.data.samples import ArraySamples
from sdcompress.errors import RecipeError
from sdcompress.training.batches import Batches, MicroBatch, host, resident

COUNT = 160
LABELS = np.arange(COUNT) % 5
SAMPLES = ArraySamples(np.arange(COUNT * 12, dtype=np.uint8).reshape(COUNT, 2, 2, 3), LABELS)


def batches(size: int = 32, *, labels: np.ndarray = LABELS, seed: int = 0, **settings: Any) -> Batches:
    samples = ArraySamples(SAMPLES.examples(np.arange(COUNT)), labels)
    return Batches(host(samples), COUNT, size, seed=seed, strata=labels, **settings)


def indices(steps: Sequence[tuple[MicroBatch, ...]]) -> list[list[int]]:
    return [raw.primary.positions.tolist() for step in steps for raw in step]


def companions(steps: Sequence[tuple[MicroBatch, ...]]) -> list[list[int]]:
    return [raw.companions.positions.tolist() for step in steps for raw in step if raw.companions is not None]


def flat(lists: list[list[int]]) -> list[int]:
    return [*chain.from_iterable(lists)]


def test_an_epoch_visits_every_image_at_most_once_and_processes_share_it() -> None:
    whole = indices(list(batches(seed=3).epoch(1)))
    shares = [indices(list(batches(seed=3, rank=rank, world=2).epoch(1))) for rank in range(2)]
    assert sorted(flat(whole)) == list(range(COUNT))
    for step, index in enumerate(whole):
        assert sorted(shares[0][step] + shares[1][step]) == sorted(index)
    assert whole[0] != indices(list(batches(seed=3).epoch(2)))[0]


def test_the_parts_of_a_step_are_the_step() -> None:
    whole, steps = indices(list(batches().epoch(0))), list(batches(parts=4).epoch(0))
    assert [len(step) for step in steps] == [4] * len(whole)
    assert [flat(indices([step])) for step in steps] == whole


def test_images_and_labels_belong_to_the_index() -> None:
    for step in batches(companions="same_stratum").epoch(0):
        for raw in (step[0].primary, step[0].companions):
            assert raw is not None
            index = raw.positions.numpy()
            assert np.array_equal(raw.inputs[0].numpy(), SAMPLES.examples(index))
            assert np.array_equal(raw.targets.numpy(), LABELS[index])


def test_another_of_the_same_stratum_is_never_the_sample_itself_and_any_other_may_be_drawn() -> None:
    partners: dict[int, set[int]] = {}
    for epoch in range(60):
        steps = list(batches(companions="same_stratum").epoch(epoch))
        for own, other in zip(flat(indices(steps)), flat(companions(steps)), strict=True):
            partners.setdefault(own, set()).add(other)
    for own, others in partners.items():
        assert own not in others
        assert {int(LABELS[other]) for other in others} == {int(LABELS[own])}
    # 31 others, 60 draws: about 26.7 different ones; hardly anything of it is left to a biased draw
    assert 25 < np.mean([len(others) for others in partners.values()]) < 28.5


def test_the_only_sample_of_a_class_is_its_own_companion() -> None:
    labels = np.where(np.arange(COUNT) == 7, 5, LABELS)
    steps = list(batches(labels=labels, companions="same_stratum").epoch(0))
    found = dict(zip(flat(indices(steps)), flat(companions(steps)), strict=True))
    assert found[7] == 7


@pytest.mark.parametrize("parts", [1, 2])
def test_the_batch_before_follows_the_epochs_and_the_first_one_has_itself(parts: int) -> None:
    order, before = [], []
    for epoch in range(2):
        steps = list(batches(parts=parts, companions="previous").epoch(epoch))
        order += indices(steps)
        before += companions(steps)
    assert before == [order[0], *order[:-1]]


@pytest.mark.parametrize("kind", ["same_stratum", "previous"])
def test_going_on_in_the_middle_and_sharing_change_no_companion(kind: Any) -> None:
    whole = list(batches(companions=kind).epoch(1))
    assert companions(list(batches(companions=kind).epoch(1, 2))) == companions(whole)[2:]
    shares = [companions(list(batches(companions=kind, rank=rank, world=2).epoch(1))) for rank in range(2)]
    for step, index in enumerate(companions(whole)):
        assert [shares[0][step], shares[1][step]] == [index[0::2], index[1::2]]


def test_fetching_ahead_and_from_the_device_change_nothing() -> None:
    plain = list(batches(companions="previous").epoch(0, 2))
    ahead = list(batches(companions="previous", workers=3).epoch(0, 2))
    there = Batches(resident(SAMPLES, torch.device("cpu")), COUNT, 32, seed=0, companions="previous")
    for other in (ahead, list(there.epoch(0, 2))):
        assert indices(other) == indices(plain)
        assert companions(other) == companions(plain)
        for one, two in zip(other, plain, strict=True):
            assert torch.equal(one[0].primary.inputs[0], two[0].primary.inputs[0])
            assert torch.equal(one[0].primary.targets, two[0].primary.targets)


@pytest.mark.parametrize(("size", "settings", "better"), [(33, {"world": 2}, 34), (30, {"world": 2, "parts": 4}, 32)])
def test_a_batch_that_does_not_divide_names_one_that_does(size: int, settings: dict[str, int], better: int) -> None:
    with pytest.raises(RecipeError, match="does not divide") as caught:
        batches(size, **settings)
    assert caught.value.next_step.endswith(f"train.batch_size={better}")


def test_fewer_images_than_processes_are_refused() -> None:
    with pytest.raises(RecipeError, match="There are 3 training samples for 4 processes"):
        Batches(host(SAMPLES), 3, 32, seed=0, world=4)


@pytest.mark.parametrize("settings", [{"sampling": "balanced"}, {"companions": "same_stratum"}])
def test_what_needs_strata_is_refused_without_them(settings: Any) -> None:
    with pytest.raises(RecipeError, match="no strata"):
        Batches(host(SAMPLES), COUNT, 32, seed=0, **settings)


def test_a_set_smaller_than_the_batch_is_one_step() -> None:
    (step,) = batches(1000).epoch(0)
    assert len(step[0].primary.positions) == COUNT


UNEVEN = np.array([0] * 120 + [1] * 30 + [2] * 10)


def test_balanced_sampling_shows_every_class_as_often() -> None:
    seen = np.zeros(COUNT, int)
    for epoch in range(12):
        index = flat(indices(list(batches(labels=UNEVEN, sampling="balanced").epoch(epoch))))
        assert len(index) == COUNT
        counts = np.bincount(UNEVEN[index])
        assert counts.max() - counts.min() <= 1  # 160 images of 3 classes: 53 or 54 each
        times = np.bincount(index, minlength=COUNT)
        for label in range(3):  # no image comes again before all of its class were there
            assert np.ptp(times[label == UNEVEN]) <= 1
        seen += times
    assert seen.min() > 0
    settings = {"labels": UNEVEN, "sampling": "balanced", "seed": 5}
    whole = indices(list(batches(**settings).epoch(3)))
    assert indices(list(batches(**settings).epoch(3, 2))) == whole[2:]
    shares = [indices(list(batches(**settings, rank=rank, world=2).epoch(3))) for rank in range(2)]
    assert sorted(flat(shares[0]) + flat(shares[1])) == sorted(flat(whole))


def test_batches_of_like_lengths_are_shared_and_begin_anywhere() -> None:
    lengths = np.arange(COUNT) * 7 % 50
    whole = indices(list(batches(lengths=lengths, seed=3).epoch(1)))
    assert sorted(flat(whole)) == list(range(COUNT))
    assert max(np.ptp(lengths[step]) for step in whole) <= 11  # 32 of 160: a fifth of the lengths
    assert indices(list(batches(lengths=lengths, seed=3).epoch(1, start=2))) == whole[2:]
    shares = [indices(list(batches(lengths=lengths, seed=3, rank=rank, world=2).epoch(1))) for rank in range(2)]
    for step, index in enumerate(whole):
        assert sorted(shares[0][step] + shares[1][step]) == sorted(index)


def test_what_fills_no_batch_is_not_the_longest() -> None:
    lengths = np.arange(COUNT)
    left_out = [
        set(range(COUNT)) - set(flat(indices(list(batches(50, lengths=lengths).epoch(epoch))))) for epoch in (0, 1)
    ]
    assert all(len(positions) == 10 and min(positions) < 75 for positions in left_out)
