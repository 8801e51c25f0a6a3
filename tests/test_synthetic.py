"""Made-up listings: the tree, the counts, the files, and that near categories look alike."""

import hashlib
import io
import re
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from family.data.drawing import look_of
from family.data.synthetic import WORTH_PROCESSES, _draw_one, draw_listings, listing_counts, make_ontology
from family.errors import UserError

VERTICALS = {"Electronics", "Animals", "Transport"}
DIGEST_SCRIPT = """
import hashlib
from family.data.synthetic import draw_listings, make_ontology
digest = hashlib.sha256()
for listing in draw_listings(make_ontology(20, 3), 12, 3, image_px=96):
    digest.update(repr(listing).encode())
print(digest.hexdigest())
"""


def images_of(path, n_listings, image_px):
    listings = draw_listings([(path, path)], n_listings, 0, image_px)
    return [jpeg for listing in listings for jpeg in listing["images"]]


def departments(leaves):
    return [path.split("/")[0] for _, path in leaves]


def gradient_features(jpeg):
    """Return the strength of the edges of a colourless 12 x 12 thumbnail, as a unit vector [288]."""
    grey = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L").resize((48, 48)), dtype=np.float32)
    edges = np.abs(np.stack(np.gradient(grey)))
    cells = np.sqrt(edges.reshape(2, 12, 4, 12, 4).mean((2, 4))).ravel()
    return cells / np.linalg.norm(cells)


@pytest.mark.parametrize("n", [12, 13, 20, 40, 77, 126, 127, 400])
def test_ontology_has_the_verticals_and_leaves_at_many_depths(n):
    leaves = make_ontology(n, seed=1)
    ids, paths = zip(*leaves, strict=True)
    assert len(leaves) == n == len(set(ids)) == len(set(paths))
    assert all(departments(leaves).count(name) >= 3 for name in VERTICALS)
    assert len(set(departments(leaves))) > len(VERTICALS)
    depths = {len(path.split("/")) for path in paths}
    assert min(depths) == 2 and max(depths) <= 6 and len(depths) >= 3


@pytest.mark.parametrize("n", [40, 3000, 5000])
def test_ontology_holds_leaves_only_and_ids_are_slugs(n):
    leaves = make_ontology(n, seed=0)
    ids, paths = zip(*leaves, strict=True)
    assert len(leaves) == n == len(set(ids))
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) and not name.isdigit() for name in ids)
    inner = {path.rsplit("/", k)[0] for path in paths for k in range(1, path.count("/") + 1)}
    assert not inner & set(paths)


def test_large_ontology_is_lopsided():
    leaves = make_ontology(3000, seed=0)
    branches = ["/".join(path.split("/")[:2]) for _, path in leaves]
    sizes = sorted(branches.count(name) for name in set(branches))
    assert sizes[0] == 1 and sizes[-1] > 10 * sizes[len(sizes) // 4]
    assert {len(path.split("/")) for _, path in leaves} == {2, 3, 4, 5, 6}


def test_ontology_depends_on_the_seed_and_refuses_impossible_sizes():
    assert make_ontology(40, seed=0) == make_ontology(40, seed=0) != make_ontology(40, seed=1)
    with pytest.raises(UserError, match="12"):
        make_ontology(11, seed=0)


def test_listings_are_the_same_in_another_process():
    here = hashlib.sha256()
    for listing in draw_listings(make_ontology(20, 3), 12, 3, image_px=96):
        here.update(repr(listing).encode())
    command = [sys.executable, "-c", DIGEST_SCRIPT]
    there = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"})
    assert there.stdout.strip() == here.hexdigest()


def test_listing_counts_have_a_head_and_a_floor():
    counts = listing_counts(40, 2000, seed=0)
    assert counts.sum() == 2000 and counts.min() >= 6
    assert counts.max() > 10 * np.median(counts) / 3 and np.sort(counts)[-8:].sum() > 0.4 * 2000
    assert np.argmax(listing_counts(40, 2000, seed=1)) != np.argmax(counts)
    assert listing_counts(40, 100, seed=0).min() >= 1
    assert listing_counts(40, 7, seed=0).sum() == 7


def test_drawn_listings_follow_the_counts():
    leaves = make_ontology(12, 0)
    drawn = [listing["category"] for listing in draw_listings(leaves, 90, 0, image_px=32)]
    counts = listing_counts(12, 90, 0)
    assert [drawn.count(name) for name, _ in leaves] == counts.tolist()
    assert len(set(drawn[:30])) > 4, "the order mixes categories"


def test_listings_are_complete_and_images_decode():
    leaves = make_ontology(12, 0)
    listings = list(draw_listings(leaves, 150, 5, image_px=96))
    assert len({listing["listing_id"] for listing in listings}) == 150
    assert 1.4 < np.mean([len(listing["images"]) for listing in listings]) < 2.0
    assert {len(listing["images"]) for listing in listings} == {1, 2, 3, 4}
    sizes = set()
    for listing in listings:
        assert listing["title"] and len(listing["country"]) == 2 and listing["price"] > 0
        assert listing["seller_type"] in {"private", "business"}
        for jpeg in listing["images"]:
            image = Image.open(io.BytesIO(jpeg))
            image.load()
            assert image.format == "JPEG" and image.mode == "RGB" and max(image.size) == 96
            assert np.asarray(image).std() > 5
            sizes.add(image.size)
    assert sizes == {(96, 96), (96, 72), (72, 96), (96, 64)}


def test_many_are_drawn_on_all_cores_and_each_is_the_same():
    leaves, n = make_ontology(12, 0), WORTH_PROCESSES + 7
    drawn = list(draw_listings(leaves, n, 3, image_px=32))
    assert [listing["listing_id"] for listing in drawn] == [f"made-up-{k:07d}" for k in range(n)]
    ends = np.cumsum(listing_counts(12, n, 3))
    assert all(drawn[k] == _draw_one(leaves, ends, n, 3, 32, k) for k in (0, 600, n - 1))


def test_drawing_is_lazy():
    listings = draw_listings(make_ontology(12, 0), 10**7, 0, image_px=32)
    assert next(listings)["images"] and next(listings)["images"]


def test_any_path_has_a_look():
    assert look_of("Unheard of/Things/Odd things").parts
    assert look_of("Electronics").parts


def test_near_categories_look_alike():
    centroids = {}
    for _, path in make_ontology(40, 0):
        centroids[path] = np.mean([gradient_features(jpeg) for jpeg in images_of(path, 10, 48)], axis=0)
    distances = {"department": [], "branch": [], "none": []}
    for a, b in combinations(centroids, 2):
        shared = [x == y for x, y in zip(a.split("/")[:2], b.split("/")[:2], strict=True)]
        kind = "branch" if all(shared) else "department" if shared[0] else "none"
        distances[kind].append(np.linalg.norm(centroids[a] - centroids[b]))
    means = {kind: np.mean(values) for kind, values in distances.items()}
    assert means["branch"] < means["department"] < means["none"], means


def test_colour_does_not_give_the_category_away():
    means = {}
    for _, path in make_ontology(12, 0):
        photos = [np.asarray(Image.open(io.BytesIO(jpeg)), dtype=float) for jpeg in images_of(path, 12, 32)]
        means[path] = [photo.mean((0, 1)) for photo in photos]
    within = np.mean([np.std(colours, axis=0) for colours in means.values()])
    between = np.std([np.mean(colours, axis=0) for colours in means.values()], axis=0).mean()
    assert between < within / 2
