"""Batches of like lengths hold every sample once, in an order that the seed and the epoch decide."""

import numpy as np
import pytest

from sdcompress.training.batches import permutation
from sdcompress.training.lengths import like_lengths

COUNT, BATCH = 6400 + 7, 64
LENGTHS = np.random.default_rng(0).integers(1, 60, COUNT)


def order_of(epoch, seed=0):
    return like_lengths(permutation(COUNT, seed=seed, epoch=epoch), LENGTHS, BATCH, seed=seed, epoch=epoch)


def padding(order):
    """The share of a padded batch that is padding, over whole batches."""
    batches = LENGTHS[order[: COUNT // BATCH * BATCH]].reshape(-1, BATCH)
    return 1 - batches.sum() / (batches.max(axis=1) * BATCH).sum()


def test_every_sample_comes_once_and_the_rest_stays():
    order, plain = order_of(3), permutation(COUNT, seed=0, epoch=3)
    assert sorted(order) == list(range(COUNT))
    assert order[-7:].tolist() == plain[-7:].tolist()
    assert sorted(order[: 50 * BATCH]) == sorted(plain[: 50 * BATCH])  # a pool keeps its samples


def test_little_is_padding():
    assert padding(permutation(COUNT, seed=0, epoch=0)) > 0.4
    assert padding(order_of(0)) < 0.03


def test_long_batches_come_anywhere():
    longest = LENGTHS[order_of(0)[: COUNT // BATCH * BATCH]].reshape(-1, BATCH).max(axis=1)
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.2


def test_the_order_depends_on_seed_and_epoch_alone():
    np.testing.assert_array_equal(order_of(1), order_of(1))
    assert (order_of(1) != order_of(2)).any()
    assert (order_of(1, seed=1) != order_of(1)).any()


@pytest.mark.parametrize("count", [1, 63, 64, 65])
def test_few_samples(count):
    order = like_lengths(np.arange(count)[::-1], LENGTHS, BATCH, seed=0, epoch=0)
    assert sorted(order) == list(range(count))
