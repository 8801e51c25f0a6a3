"""Answers on rows: streamed, in the order of the rows, the same for any batch, and by listing."""

from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from family.data import images
from family.data.dataset import Rows
from family.data.images import ImageError, Preprocessing
from family.data.ontology import from_leaves
from family.data.reading import map_ahead, read_batches, read_sizes
from family.evaluation.predictions import predict_rows, write_predictions

HOW = Preprocessing(32)
TREE = from_leaves([("b", "A/B"), ("c", "A/C"), ("d", "D")])


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Eleven rows of four listings; the red of a row's image is its number."""
    folder = tmp_path_factory.mktemp("rows")
    for k in range(11):
        Image.new("RGB", (20, 30), (k, 0, 0)).save(folder / f"{k}.png")
    listing_ids = np.array(["k"] * 4 + ["l"] + ["m"] * 3 + ["n"] * 3)
    labels = np.repeat([0, 1, 2, 0], [4, 1, 3, 3]).astype(np.int32)
    return Rows(folder, TREE, listing_ids, np.array([f"{k}.png" for k in range(11)]), labels)


PROBABILITIES = np.random.default_rng(0).dirichlet(np.ones(3), 11).astype(np.float32)


def answer(images: np.ndarray) -> np.ndarray:
    assert images.dtype == np.uint8 and images.shape[1:] == (32, 32, 3)
    return PROBABILITIES[images[:, 0, 0, 0]]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 11, 32])
def test_answers_do_not_depend_on_the_batch(rows, batch_size):
    sizes = []
    by_image, by_listing = predict_rows(lambda images: (sizes.append(len(images)), answer(images))[1], rows, HOW, batch_size)
    assert sizes == [batch_size] * (11 // batch_size) + [11 % batch_size] * (11 % batch_size > 0)
    assert by_image.labels.tolist() == rows.labels.tolist()
    assert np.array_equal(by_image.top, np.argsort(-PROBABILITIES, axis=1))
    assert np.array_equal(by_image.top_probabilities, -np.sort(-PROBABILITIES, axis=1))
    means = np.stack([PROBABILITIES[rows.listing_ids == name].mean(axis=0) for name in "klmn"])
    assert by_listing.labels.tolist() == [0, 1, 2, 0]
    assert np.array_equal(by_listing.top, np.argsort(-means, axis=1))
    assert by_listing.top_probabilities == pytest.approx(-np.sort(-means, axis=1))


def test_the_best_node_is_of_the_summed_probability(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "x.png")
    row = Rows(tmp_path, TREE, np.array(["k"]), np.array(["x.png"]), np.int32([2]))
    found, _ = predict_rows(lambda _: np.float32([[0.3, 0.3, 0.4]]), row, HOW)
    assert found.top[0].tolist() == [2, 0, 1], "the first of equals comes first"
    assert found.nodes[0].tolist() == [0, 2] and found.node_probabilities[0] == pytest.approx([0.6, 0.4])


def test_the_file_has_ids_and_the_types_of_the_contract(rows, tmp_path):
    by_image, _ = predict_rows(answer, rows, HOW)
    write_predictions(tmp_path / "p.parquet", rows, by_image)
    table = pa.parquet.read_table(tmp_path / "p.parquet")
    text, texts, numbers = pa.string(), pa.list_(pa.field("element", pa.string())), pa.list_(pa.field("element", pa.float32()))
    assert table.schema.equals(pa.schema([
        ("listing_id", text), ("image", text), ("true_id", text), ("top_ids", texts), ("top_probabilities", numbers),
        ("level_ids", texts), ("level_probabilities", numbers), ("true_probability", pa.float32()),
    ]))  # fmt: skip
    first = table.to_pylist()[0]
    assert (first["listing_id"], first["image"], first["true_id"]) == ("k", "0.png", "b")
    assert set(first["top_ids"]) == {"b", "c", "d"} and first["level_ids"][0] in ("A", "D")


def test_a_row_that_can_not_be_read_is_an_error(rows):
    broken = Rows(rows.folder, TREE, rows.listing_ids[:2], np.array(["0.png", "none.png"]), rows.labels[:2])
    with pytest.raises(OSError, match="none.png"):
        predict_rows(answer, broken, HOW)
    (rows.folder / "bad.png").write_bytes(b"junk")
    broken = Rows(rows.folder, TREE, rows.listing_ids[:2], np.array(["0.png", "bad.png"]), rows.labels[:2])
    with pytest.raises(ImageError, match="bad.png"):
        predict_rows(answer, broken, HOW)


def test_batches_are_the_rows_in_order(rows):
    batches = list(read_batches(rows, HOW, 4))
    assert [len(batch) for batch in batches] == [4, 4, 3]
    assert np.concatenate(batches)[:, 0, 0, 0].tolist() == list(range(11))


def test_an_image_is_decoded_once_for_all_sizes(rows):
    hows = (HOW, Preprocessing(48, "pad"), Preprocessing(32), Preprocessing(32, "crop"))
    decoded, decode = [], images.decode_rgb  # a mock's count is not safe among threads; a list is
    with mock.patch.object(images, "decode_rgb", lambda *words: decoded.append(1) or decode(*words)):
        batches = list(read_sizes(rows, hows, 4))
    assert len(decoded) == 11 and [set(batch) for batch in batches] == [set(hows)] * 3
    for how in set(hows):
        assert np.array_equal(np.concatenate([batch[how] for batch in batches]), np.concatenate(list(read_batches(rows, how, 5))))


def test_reading_ahead_is_in_order_and_bounded():
    begun = []

    def work(k):
        begun.append(k)
        return k

    taken = []
    for value in map_ahead(work, iter(range(200)), ahead=8):
        taken.append(value)
        assert len(begun) <= len(taken) + 8
    assert taken == list(range(200))
    assert list(map_ahead(work, [], ahead=8)) == []
    with pytest.raises(ZeroDivisionError):
        list(map_ahead(lambda k: 1 // (k - 20), range(100), ahead=8))
