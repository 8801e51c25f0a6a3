"""Images that look alike: copies of a photo are found, other photos are not, and groups are the closure of what was found."""

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from family.data.images import decode_rgb
from family.data.lookalikes import MAX_DISTANCE_BITS, N_BYTES, difference_hash, group_rows, lookalike_pairs


def distance(a: bytes, b: bytes) -> int:
    return (int.from_bytes(a) ^ int.from_bytes(b)).bit_count()


def hash_of(data: bytes) -> bytes:
    return difference_hash(decode_rgb(data))


def copies(data: bytes) -> list[bytes]:
    """Return what sellers do to a photo: save it again, shrink it, cut a little of its rim, brighten it."""
    image = decode_rgb(data)
    width, height = image.size
    changed = [
        image,
        image.resize((width // 2, height // 2)),
        image.crop((1, 1, width - 1, height - 1)),
        image.point(lambda v: min(255, v + 12)),
    ]
    found = []
    for one in changed:
        buffer = io.BytesIO()
        one.save(buffer, "JPEG", quality=70)
        found.append(buffer.getvalue())
    return found


def test_copies_are_near_and_other_photos_are_far(photo):
    photos = [photo(seed, (320, 240), quality=95) for seed in range(30)]
    hashes = [hash_of(data) for data in photos]
    for data, own in zip(photos, hashes, strict=True):
        assert max(distance(own, hash_of(copy)) for copy in copies(data)) <= MAX_DISTANCE_BITS
    others = [distance(a, b) for k, a in enumerate(hashes) for b in hashes[:k]]
    assert min(others) > 5 * MAX_DISTANCE_BITS


def test_flat_images_take_no_part():
    flat = [difference_hash(Image.new("RGB", (50, 50), colour)) for colour in ("white", "red", "black")]
    assert flat == [bytes(N_BYTES)] * 3
    assert len(lookalike_pairs(np.frombuffer(b"".join(flat), np.uint8).reshape(-1, N_BYTES))) == 0


def test_pairs_are_found_among_thousands_of_others():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (3000, N_BYTES), np.uint8)
    for k in range(200):  # row 2800 + k is row k with up to five bits of one place changed
        hashes[2800 + k] = hashes[k]
        hashes[2800 + k, rng.integers(N_BYTES)] ^= rng.integers(1, 32, dtype=np.uint8)
    assert lookalike_pairs(hashes).tolist() == [[k, 2800 + k] for k in range(200)]


@given(st.integers(0, 2**32), st.integers(0, 30))
def test_every_pair_that_is_told_is_near(seed, n):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2, (n, N_BYTES), np.uint8) * rng.integers(0, 2, (1, N_BYTES), np.uint8)
    for a, b in lookalike_pairs(hashes).tolist():
        assert a < b and distance(hashes[a].tobytes(), hashes[b].tobytes()) <= MAX_DISTANCE_BITS


def test_a_crowd_of_equal_images_is_one_group():
    hashes = np.repeat(np.random.default_rng(0).integers(0, 256, (1, N_BYTES), np.uint8), 100, axis=0)
    assert set(group_rows(100, [], lookalike_pairs(hashes)).tolist()) == {0}


@given(st.data())
def test_groups_are_the_transitive_closure(data):
    n = data.draw(st.integers(1, 20))
    names, row = st.lists(st.sampled_from("abcdefghij"), min_size=n, max_size=n).map(np.array), st.integers(0, n - 1)
    keys = data.draw(st.lists(names, max_size=2))
    pairs = np.array(data.draw(st.lists(st.tuples(row, row), max_size=8)), np.int64).reshape(-1, 2)
    linked = np.eye(n, dtype=bool)
    for key in keys:
        linked |= key[:, None] == key[None]
    for a, b in pairs:
        linked[a, b] = linked[b, a] = True
    for _ in range(n):
        linked = linked @ linked
    assert group_rows(n, keys, pairs).tolist() == linked.argmax(axis=1).tolist()
