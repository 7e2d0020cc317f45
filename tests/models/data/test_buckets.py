from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emi_models.data.batches import BucketedBatches

LENGTHS = st.lists(st.floats(0, 12), min_size=1, max_size=200)


@given(lengths=LENGTHS, size=st.integers(1, 9), epoch=st.integers(0, 9), drop_last=st.booleans())
def test_an_epoch_has_each_sample_once(lengths: list[float], size: int, epoch: int, drop_last: bool) -> None:
    batches = BucketedBatches(lengths, size, seed=1, drop_last=drop_last)
    batches.set_epoch(epoch)
    found = list(batches)
    assert len(found) == len(batches)
    samples = [sample for batch in found for sample in batch]
    assert len(set(samples)) == len(samples)
    if drop_last and len(lengths) > size:
        assert {len(batch) for batch in found} == {size}
        assert len(samples) == len(lengths) // size * size
    else:
        assert sorted(samples) == list(range(len(lengths)))
        assert sorted(len(batch) for batch in found)[1:] == [size] * (len(found) - 1)


@given(lengths=LENGTHS, size=st.integers(1, 9), seed=st.integers(0, 99), data=st.data())
def test_an_epoch_goes_on_exactly_where_it_stopped(
    lengths: list[float], size: int, seed: int, data: st.DataObject
) -> None:
    whole = BucketedBatches(lengths, size, seed=seed)
    whole.set_epoch(3)
    order = list(whole)
    done = data.draw(st.integers(0, len(order)))
    resumed = BucketedBatches(lengths, size, seed=seed)
    resumed.set_epoch(3, done)
    assert list(resumed) == order[done:]
    resumed.set_epoch(3)
    assert list(resumed) == order


def test_epochs_and_seeds_differ() -> None:
    batches = BucketedBatches(np.arange(100) / 10, 8, seed=0)
    first = list(batches)
    assert list(batches) == first
    batches.set_epoch(1)
    assert list(batches) != first
    assert list(BucketedBatches(np.arange(100) / 10, 8, seed=1)) != first


def test_a_batch_has_samples_of_like_length() -> None:
    lengths = np.random.default_rng(0).lognormal(1.846, 0.361, 4000)
    batches = list(BucketedBatches(lengths, 32, seed=0))
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    shuffled = np.random.default_rng(0).permutation(4000).reshape(-1, 32)
    unsorted = sum(32 * lengths[batch].max() for batch in shuffled)
    assert padded / lengths.sum() < 1.1
    assert unsorted / lengths.sum() > 1.6
    starts = [lengths[batch].mean() for batch in batches]
    assert abs(np.corrcoef(starts, np.arange(len(starts)))[0, 1]) < 0.3  # and not from short to long


@pytest.mark.parametrize("drop_last", [False, True])
def test_fewer_samples_than_a_batch_are_a_batch(drop_last: bool) -> None:
    assert [sorted(batch) for batch in BucketedBatches([1, 2, 3], 8, seed=0, drop_last=drop_last)] == [
        [0, 1, 2]
    ]
