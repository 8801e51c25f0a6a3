"""Make up classified listings: a lopsided category tree, and drawn items photographed badly."""

import math
import multiprocessing
from collections.abc import Iterator
from functools import partial

import numpy as np

from family.data.catalogue import category_ids, grow_leaves
from family.data.drawing import make_item
from family.data.photographing import draw_light, draw_scene, photograph
from family.machine import n_cores

IMAGE_PX = 160
WORTH_PROCESSES = 2000  # listings; fewer are drawn before a pool of processes has started
_AT_ONCE = 512  # listings in memory
TAIL_EXPONENT = 0.8
MIN_LISTINGS_PER_CATEGORY = 6
# How many images a listing has, and how often; 1.7 in the mean.
N_IMAGES = ((1, 0.55), (2, 0.27), (3, 0.11), (4, 0.07))
COUNTRIES = (("DE", 0.3), ("FR", 0.2), ("PL", 0.15), ("IT", 0.12), ("NL", 0.1), ("ES", 0.08), ("CZ", 0.05))
P_BUSINESS_SELLER = 0.25
CONDITIONS = (
    "like new",
    "barely used",
    "good condition",
    "some scratches",
    "needs work",
    "must go",
    "top offer",
    "pick-up only",
    "as pictured",
    "no returns",
)
# The median price by department, in euros; other departments cost as much as a hobby.
MEDIAN_PRICE = {
    "Electronics": 120.0,
    "Animals": 200.0,
    "Transport": 3000.0,
    "Home and garden": 60.0,
    "Fashion": 20.0,
    "Hobby": 30.0,
    "Property": 150_000.0,
}


def make_ontology(n_categories: int, seed: int) -> list[tuple[str, str]]:
    """Return (category_id, path) of every leaf, e.g. ("tablets", "Electronics/Computers/Tablets")."""
    paths = grow_leaves(n_categories, seed)
    return list(zip(category_ids(paths), ("/".join(path) for path in paths), strict=True))


def draw_listings(leaves: list[tuple[str, str]], n_listings: int, seed: int, image_px: int = IMAGE_PX) -> Iterator[dict]:
    """Yield listings in a mixed order, each a function of (leaves, n_listings, seed, its index) alone.

    Each is {"listing_id": str, "category": category_id, "images": [JPEG bytes, ...], "title": str,
    "country": str, "seller_type": "private" or "business", "price": float in euros}. The longer side of an
    image is `image_px`. Many are drawn on all cores.
    """
    draw = partial(_draw_one, leaves, np.cumsum(listing_counts(len(leaves), n_listings, seed)), n_listings, seed, image_px)
    n_workers = n_cores()
    if n_listings < WORTH_PROCESSES or n_workers == 1:
        yield from map(draw, range(n_listings))
        return
    # Fresh interpreters: the caller may have threads, which a fork would tear.
    with multiprocessing.get_context("spawn").Pool(n_workers) as pool:
        for first in range(0, n_listings, _AT_ONCE):  # `imap` would draw on without end while nobody takes what is drawn
            yield from pool.map(draw, range(first, min(first + _AT_ONCE, n_listings)), chunksize=16)


def _draw_one(leaves: list[tuple[str, str]], ends: np.ndarray, n_listings: int, seed: int, image_px: int, index: int) -> dict:
    # Striding through the categories mixes them without a permutation held in memory.
    category_id, path = leaves[int(np.searchsorted(ends, index * _coprime_step(n_listings) % n_listings, side="right"))]
    drawn = _draw_listing(path, np.random.default_rng((seed, index)), image_px)
    return {"listing_id": f"made-up-{index:07d}", "category": category_id, **drawn}


def listing_counts(n_categories: int, n_listings: int, seed: int) -> np.ndarray:
    """Return the listings of each category [n_categories]: a floor for all, the rest by a power law."""
    rank = np.random.default_rng((seed, n_categories, 1)).permutation(n_categories)
    floor = min(MIN_LISTINGS_PER_CATEGORY, n_listings // n_categories)
    n_rest = n_listings - floor * n_categories
    weights = (rank + 1.0) ** -TAIL_EXPONENT
    exact = n_rest * weights / weights.sum()
    counts = np.floor(exact).astype(np.int64)
    largest_remainders = np.argsort(counts - exact, kind="stable")[: n_rest - counts.sum()]
    counts[largest_remainders] += 1
    return counts + floor


def _draw_listing(path: str, rng: np.random.Generator, image_px: int) -> dict:
    names = path.split("/")
    item = make_item(path, rng)
    scene, light = draw_scene(names[0], rng, image_px), draw_light(rng)
    n_images = _draw(rng, N_IMAGES)
    name = names[-1] if len(names) < 4 else f"{names[-2]}, {names[-1]}"
    median = MEDIAN_PRICE.get(names[0], MEDIAN_PRICE["Hobby"])
    return {
        "images": [photograph(item, scene, light, rng, image_px) for _ in range(n_images)],
        "title": f"{name} - {CONDITIONS[int(rng.integers(len(CONDITIONS)))]}",
        "country": _draw(rng, COUNTRIES),
        "seller_type": "business" if rng.random() < P_BUSINESS_SELLER else "private",
        "price": round(float(median * np.exp(rng.normal(0, 0.7))), 2),
    }


def _draw(rng: np.random.Generator, rows: tuple):
    """Return a value of (value, probability) rows."""
    return rows[int(np.searchsorted(np.cumsum([p for _, p in rows])[:-1], rng.random(), side="right"))][0]


def _coprime_step(n: int) -> int:
    """Return a step near the golden section of n that visits every residue once."""
    step = max(1, round(n * 0.618))
    while math.gcd(step, n) != 1:
        step += 1
    return step
