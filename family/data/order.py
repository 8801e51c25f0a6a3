"""Which rows form which update: a pure function of (seed, epoch, k). Ranks slice it; nothing else orders rows."""

import numpy as np


def epoch_order(n_rows: int, seed: int, epoch: int) -> np.ndarray:
    """Return int64 [n_rows]: every row once, shuffled by (seed, epoch) alone."""
    # Philox is a counter-based generator: the same keys give the same order on every machine.
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n_rows)


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


def epoch_slices(n_rows: int, batch_size: int, seed: int, epoch: int, rank: int, size: int) -> list[tuple[np.ndarray, int, int]]:
    """Return, for each update of an epoch, (this rank's rows, its first row's place in the update, rows of the update)."""
    order = epoch_order(n_rows, seed, epoch)
    slices = []
    for k in range(n_updates(n_rows, batch_size)):
        rows = _cut(order, batch_size, k)
        start, stop = rank_slice(len(rows), rank, size)
        slices.append((rows[start:stop], start, len(rows)))
    return slices


def _cut(order: np.ndarray, batch_size: int, k: int) -> np.ndarray:
    """Return update k of an epoch's order: the one place that says which rows it holds."""
    return order[k * batch_size : (k + 1) * batch_size]
