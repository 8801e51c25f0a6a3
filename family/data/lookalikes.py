"""Images that look alike: a 256-bit difference hash, and the groups of rows that must stay on one side of a split."""

import numpy as np
from PIL import Image

N_BYTES = 32
MAX_DISTANCE_BITS = 10  # of 256: re-encoded, rescaled and slightly cropped copies; other photos differ by about 100
_WINDOW = 8


def difference_hash(image: Image.Image) -> bytes:
    """Return 32 bytes: whether each of 16 x 16 grey cells is darker than its right neighbour; zeros for a flat image."""
    grey = np.asarray(image.convert("L").resize((17, 16), Image.Resampling.BOX), np.int16)
    if grey.std() < 4:
        return bytes(N_BYTES)
    # A margin of one grey level keeps the noise of flat backgrounds out.
    return np.packbits(grey[:, :-1] + 1 < grey[:, 1:]).tobytes()


def lookalike_pairs(hashes: np.ndarray) -> np.ndarray:
    """Find rows whose hashes differ in at most MAX_DISTANCE_BITS.

    Rows are sorted by each eighth of the hash and compared with their next neighbours, so time is n log n; a pair
    that shares no eighth, or sits deep inside a crowd of equal eighths, is missed.

    Args:
        hashes: uint8 [n, 32]; all-zero rows take no part.

    Returns:
        int64 [n_pairs, 2], row numbers, the smaller first.
    """
    rows = np.flatnonzero(hashes.any(axis=1))
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, N_BYTES, 4):
        rolled = np.roll(hashes[rows], -start, axis=1)
        order = rows[np.lexsort(rolled.T[::-1])]
        for step in range(1, min(_WINDOW, len(order) - 1) + 1):
            left, right = order[:-step], order[step:]
            distance = np.unpackbits(hashes[left] ^ hashes[right], axis=1).sum(axis=1)
            near = distance <= MAX_DISTANCE_BITS
            found.append(np.sort(np.stack([left[near], right[near]], axis=1), axis=1))
    return np.unique(np.concatenate(found), axis=0)


def group_rows(n: int, keys: list[np.ndarray], pairs: np.ndarray) -> np.ndarray:
    """Join rows that share a key (a listing, the same bytes) or stand in a pair.

    Args:
        keys: arrays [n] of any sortable type.
        pairs: int64 [n_pairs, 2].

    Returns:
        int64 [n]: the smallest row number of each row's group.
    """
    parent = np.arange(n)

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    def join(a: int, b: int) -> None:
        a, b = root(a), root(b)
        parent[max(a, b)] = min(a, b)

    for key in keys:
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        for row in np.flatnonzero(first[inverse] != np.arange(n)):
            join(int(first[inverse[row]]), int(row))
    for a, b in pairs:
        join(int(a), int(b))
    return np.array([root(row) for row in range(n)])
