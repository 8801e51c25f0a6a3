"""Which rows form which update: a pure function of (seed, epoch, k). Ranks slice it; nothing else orders rows."""

from collections.abc import Iterable

import numpy as np


def epoch_order(n_rows: int, seed: int, epoch: int, draws: np.ndarray | None = None) -> np.ndarray:
    """Return int64 [n_rows]: every row once, or as often as `draws` says, shuffled by (seed, epoch) alone.

    Where rows are drawn, they are picks: `row + n_rows * k` is a row's k-th picture of the epoch, from 0 on, so that no two are alike.

    Args:
        draws: of `expected_draws`. A row that is expected 2.3 times stands in an epoch twice or three times: systematic sampling,
            whose counts vary least.
    """
    # Philox is a counter-based generator: the same keys give the same order on every machine.
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    order = generator.permutation(n_rows)
    if draws is None:
        return order
    ends = np.cumsum(draws[order])
    ends = np.minimum(ends * (n_rows / ends[-1]), n_rows)
    times = np.diff(np.floor(np.append(0.0, ends) + generator.random()))
    times = times.astype(np.int64)
    kth = np.arange(n_rows) - np.repeat(np.cumsum(times) - times, times)
    return generator.permutation(np.repeat(order, times) + n_rows * kth)


def expected_draws(labels: np.ndarray, power: float) -> np.ndarray | None:
    """Return float64 [n_rows]: how often each row is to stand in an epoch, so that a class of n rows has a share like n^power.

    None for a power of 1, which takes each row once. The rows of an epoch stay as many.
    """
    if power == 1:
        return None
    of_row = np.bincount(labels)[labels].astype(np.float64) ** (power - 1)
    return of_row * (len(labels) / of_row.sum())


def n_updates(n_rows: int, batch_size: int) -> int:
    """Return the updates of one epoch; the last one may hold fewer rows."""
    return -(-n_rows // batch_size)


def update_rows(n_rows: int, batch_size: int, seed: int, epoch: int, k: int) -> np.ndarray:
    """Return the rows of update k of an epoch, int64 [<= batch_size]."""
    return _cut(epoch_order(n_rows, seed, epoch), batch_size, k)


def rank_slice(n: int, rank: int, size: int) -> tuple[int, int]:
    """Return the (start, stop) that a rank takes of n rows: an even split, the remainder to the first ranks."""
    share, more = divmod(n, size)
    start = rank * share + min(rank, more)
    return start, start + share + (rank < more)


def epoch_slices(
    n_rows: int, batch_size: int, seed: int, epoch: int, rank: int, size: int, draws: np.ndarray | None = None
) -> list[tuple[np.ndarray, int, int]]:
    """Return, for each update of an epoch, (this rank's rows, its first row's place in the update, rows of the update)."""
    order = epoch_order(n_rows, seed, epoch, draws)
    slices = []
    for k in range(n_updates(n_rows, batch_size)):
        rows = _cut(order, batch_size, k)
        start, stop = rank_slice(len(rows), rank, size)
        slices.append((rows[start:stop], start, len(rows)))
    return slices


def _cut(order: np.ndarray, batch_size: int, k: int) -> np.ndarray:
    """Return update k of an epoch's order: the one place that says which rows it holds."""
    return order[k * batch_size : (k + 1) * batch_size]


def choose_balanced(labels: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """Return up to n row numbers, the classes as even as they go: what a part of the rows has to stand for all with."""
    order = np.random.default_rng(seed).permutation(len(labels))
    turn = _turns(labels[order])
    return np.sort(order[np.argsort(turn, kind="stable")][:n])


def _turns(labels: Iterable[int]) -> np.ndarray:
    """Return for each row how many rows of its class came before it."""
    seen: dict[int, int] = {}
    turns = []
    for label in labels:
        turns.append(seen.get(int(label), 0))
        seen[int(label)] = turns[-1] + 1
    return np.array(turns)
