"""Which rows form which update: a pure function of (seed, epoch, k); ranks slice it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from family.data.order import epoch_order, epoch_slices, expected_draws, n_updates, rank_slice, update_rows

ROWS, BATCHES, SEEDS, EPOCHS, RANKS = st.integers(1, 200), st.integers(1, 70), st.integers(0, 2**32), st.integers(0, 500), st.integers(1, 4)


@given(ROWS, BATCHES, SEEDS, EPOCHS)
def test_every_row_once_an_epoch(n, batch, seed, epoch):
    updates = [update_rows(n, batch, seed, epoch, k) for k in range(n_updates(n, batch))]
    assert all(len(update) == batch for update in updates[:-1]) and 1 <= len(updates[-1]) <= batch
    assert sorted(np.concatenate(updates).tolist()) == list(range(n))


@given(ROWS, BATCHES, SEEDS, EPOCHS, RANKS)
def test_the_slices_of_any_number_of_ranks_are_the_same_update(n, batch, seed, epoch, size):
    by_rank = [epoch_slices(n, batch, seed, epoch, rank, size) for rank in range(size)]
    for k, slices in enumerate(zip(*by_rank, strict=True)):
        update = update_rows(n, batch, seed, epoch, k)
        assert np.concatenate([own for own, _, _ in slices]).tolist() == update.tolist()
        assert [start for _, start, _ in slices] == np.cumsum([0, *(len(own) for own, _, _ in slices[:-1])]).tolist()
        assert {total for _, _, total in slices} == {len(update)}


@given(st.integers(0, 500), st.integers(1, 64))
def test_the_split_is_even_and_the_remainder_goes_to_the_first_ranks(n, size):
    bounds = [rank_slice(n, rank, size) for rank in range(size)]
    shares = [stop - start for start, stop in bounds]
    assert shares == sorted(shares, reverse=True) and sum(shares) == n
    assert shares == [n // size + (rank < n % size) for rank in range(size)]


def test_order_is_a_pure_function():
    np.random.seed(1)
    first = epoch_order(1000, 7, 3)
    np.random.seed(2)
    assert first.tolist() == epoch_order(1000, 7, 3).tolist()
    assert epoch_order(8, 7, 3).tolist() == [4, 3, 5, 6, 0, 7, 1, 2]


def test_seeds_and_epochs_give_other_orders():
    orders = [tuple(epoch_order(100, seed, epoch)) for seed in range(5) for epoch in range(5)]
    assert len(set(orders)) == 25


@given(st.lists(st.integers(0, 9), min_size=1, max_size=200), st.floats(0, 1), SEEDS)
def test_sampling_keeps_the_rows_of_an_epoch_and_takes_each_as_often_as_expected(labels, power, seed):
    labels = np.array(labels)
    draws = expected_draws(labels, power)
    order = epoch_order(len(labels), seed, 3, draws)
    assert len(order) == len(labels) and order.tolist() == epoch_order(len(labels), seed, 3, draws).tolist()
    assert len(set(order.tolist())) == len(order), "no two pictures of a row are alike"
    assert all(pick - len(labels) in set(order.tolist()) for pick in order.tolist() if pick >= len(labels)), "they are counted from 0 on"
    times = np.bincount(order % len(labels), minlength=len(labels))
    if draws is None:
        assert power == 1 and (times == 1).all()
    else:
        assert (np.abs(times - draws) < 1 + 1e-9).all()


def test_the_share_of_a_class_is_a_power_of_its_rows():
    labels = np.repeat([0, 1, 2], [64, 16, 4])
    for power, shares in ((0.0, [1, 1, 1]), (0.5, [8, 4, 2])):
        epochs = [labels[epoch_order(84, 0, epoch, expected_draws(labels, power)) % 84] for epoch in range(200)]
        found = np.bincount(np.concatenate(epochs)) / (200 * 84)
        np.testing.assert_allclose(found, np.array(shares) / sum(shares), atol=0.01)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 200
