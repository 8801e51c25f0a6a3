"""The numbers of `family evaluate`, computed again from predictions.parquet by scikit-learn and by walking paths."""

import io
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

from family.cli import main
from family.data.dataset import Rows, open_dataset
from family.data.images import Preprocessing
from family.data.importing import import_dataset
from family.data.ontology import from_leaves, read_ontology
from family.evaluation.metrics import measure, micro_macro
from family.evaluation.predictions import predict_rows, write_predictions

PX = 32


def cut(path: str, level: int) -> str:
    return "/".join(path.split("/")[:level])


def best_node(path_of: dict, probabilities: np.ndarray, leaves, level: int) -> str:
    sums: dict[str, float] = {}
    for leaf, p in zip(leaves, probabilities, strict=True):
        node = cut(path_of[leaf], level)
        sums[node] = sums.get(node, 0.0) + float(p)
    return max(sums, key=sums.get)


def balanced(true, found) -> float:
    """Return scikit-learn's mean over the true categories; what was answered beside them gives no category."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of answers that are no true category
        return balanced_accuracy_score(true, found)


def both(true, found) -> dict:
    return {"micro": accuracy_score(true, found), "macro": balanced(true, found)}


def top_k(true, tops, k) -> dict:
    """Score a hit as the truth itself, a miss as the best answer."""
    return both(true, [t if t in top[:k] else top[0] for t, top in zip(true, tops, strict=True)])


def recompute(path_of: dict, true: list, tops: list, nodes: list | None = None) -> dict:
    """Compute metrics of ids alone; `nodes` are the best paths of each level by summed probability."""
    depth = max(path.count("/") + 1 for path in path_of.values())
    leaves = [i for i, path in path_of.items() if not any(other.startswith(f"{path}/") for other in path_of.values())]
    found = {"n": len(true)} | {f"top{k}": top_k(true, tops, k) for k in (1, 3, 5)}
    found["levels"] = {}
    for level in range(1, depth + 1):
        truth = [cut(path_of[t], level) for t in true]
        collapsed = both(truth, [cut(path_of[top[0]], level) for top in tops])
        nodes_there = len({cut(path_of[leaf], level) for leaf in leaves})
        summed = both(truth, [node[level - 1] for node in nodes])
        found["levels"][str(level)] = {"nodes": nodes_there, **collapsed, "summed": summed}
    return found


def assert_close(found, wanted, where=""):
    assert set(found) >= set(wanted), where
    for key, value in wanted.items():
        if isinstance(value, dict):
            assert_close(found[key], value, f"{where}.{key}")
        else:
            assert found[key] == pytest.approx(value, abs=1e-9), f"{where}.{key}"


@st.composite
def answered(draw):
    """Draw a tree, listings with their true leaves, and probabilities of every image."""
    departments = draw(st.integers(1, 4))
    places = [(d, k) for d in range(departments) for k in range(draw(st.integers(1, 4)))]
    paths = [f"D{d}/" * (k % 3 > 0) + f"G{k % 2}/" * (k % 3 > 1) + f"leaf {d} {k}" for d, k in places]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    tree = from_leaves([(f"id{rng.integers(10**9)}-{k}", path) for k, path in enumerate(paths)])
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=12))
    labels = np.repeat(rng.integers(0, len(tree.leaves), len(sizes)), sizes).astype(np.int32)
    listing_ids = np.repeat([f"l{k:02}" for k in range(len(sizes))], sizes)
    return tree, listing_ids, labels, rng.dirichlet(np.full(len(tree.leaves), 0.7), len(labels)).astype(np.float32)


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(max_examples=40)
@given(answered())
def test_measured_equals_recomputed_on_any_tree(drawn):
    tree, listing_ids, labels, probabilities = drawn
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for k in range(len(labels)):  # the pixel says which row it is
            Image.new("RGB", (PX, PX), (k, 0, 0)).save(folder / f"{k}.png")
        rows = Rows(folder, tree, listing_ids, np.array([f"{k}.png" for k in range(len(labels))]), labels)
        by_image, by_listing = predict_rows(lambda images: probabilities[images[:, 0, 0, 0]], rows, Preprocessing(PX), batch_size=5)
        write_predictions(folder / "p.parquet", rows, by_image)
        tree.write(folder / "ontology.csv")
        written = pyarrow.parquet.read_table(folder / "p.parquet").to_pylist()
        path_of = read_ontology(folder / "ontology.csv").path_of
    found = measure(tree, by_image, by_listing)

    leaves = tree.leaves
    assert [row["true_id"] for row in written] == [leaves[k] for k in labels]
    assert [row["listing_id"] for row in written] == listing_ids.tolist()
    for row, p in zip(written, probabilities, strict=True):
        assert row["top_ids"] == [leaves[k] for k in np.argsort(-p, kind="stable")[:5]]
        assert row["top_probabilities"] == sorted(p.tolist(), reverse=True)[:5]
        assert [path_of[i] for i in row["level_ids"]] == [best_node(path_of, p, leaves, level) for level in range(1, tree.depth + 1)]
        assert row["level_probabilities"] == pytest.approx(
            [max(sum(q for leaf, q in zip(leaves, p, strict=True) if cut(path_of[leaf], level) == cut(path_of[i], level)) for i in leaves)
             for level in range(1, tree.depth + 1)], abs=1e-6)  # fmt: skip
    nodes = [[path_of[i] for i in row["level_ids"]] for row in written]
    assert_close(found, recompute(path_of, [row["true_id"] for row in written], [row["top_ids"] for row in written], nodes))

    names = sorted(set(listing_ids))
    means = [probabilities[listing_ids == name].mean(axis=0) for name in names]
    true = [leaves[labels[listing_ids.tolist().index(name)]] for name in names]
    tops = [[leaves[k] for k in np.argsort(-mean, kind="stable")[:5]] for mean in means]
    nodes = [[best_node(path_of, mean, leaves, level) for level in range(1, tree.depth + 1)] for mean in means]
    assert_close(found["listings"], recompute(path_of, true, tops, nodes), "listings")

    departments = [path_of[i] for i in tree.level(1)[0]]
    matrix = confusion_matrix(
        [cut(path_of[row["true_id"]], 1) for row in written], [cut(path_of[row["top_ids"][0]], 1) for row in written], labels=departments
    )
    assert found["confusion"] == {"level": 1, "ids": departments, "matrix": matrix.tolist()}
    if len(leaves) > 5:
        for k in (1, 3, 5):
            scored = top_k_accuracy_score(labels, probabilities.astype(float), k=k, labels=range(len(leaves)))
            assert found[f"top{k}"]["micro"] == pytest.approx(scored)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1))
def test_macro_is_over_the_categories_that_are_present(rows):
    hits, groups = np.array([h for h, _ in rows]), np.array([g for _, g in rows])
    found = micro_macro(hits, groups)
    assert found["micro"] == pytest.approx(hits.mean())
    assert found["macro"] == pytest.approx(np.mean([hits[groups == g].mean() for g in set(groups.tolist())]))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, write_source, write_bundle):
    """A dataset whose photos are flat colours, a bundle that answers by colour, and what `family evaluate` wrote of them."""
    folder = tmp_path_factory.mktemp("evaluated")
    rng = np.random.default_rng(0)
    leaves = ("laptop", "tower", "phone", "cat", "dog", "art")
    rows, images = [], {}
    for k in range(90):
        buffer = io.BytesIO()
        Image.new("RGB", (48, 40), tuple(int(v) for v in rng.integers(0, 256, 3))).save(buffer, "PNG")
        split = "test" if k >= 12 else "train"
        rows.append({"listing_id": f"{k // 2:02}", "image": f"{k}.png", "category": leaves[k // 2 % 6], "split": split})
        images[f"{k}.png"] = buffer.getvalue()
    import_dataset(write_source(folder / "src", rows, images=images), folder / "data")
    write_bundle(folder / "bundle", open_dataset(folder / "data").ontology, PX)
    assert main(["evaluate", str(folder / "bundle"), str(folder / "data"), "--out", str(folder / "out")]) == 0
    return folder


def test_what_evaluate_writes_is_what_its_predictions_say(evaluated):
    path_of = read_ontology(evaluated / "data/ontology.csv").path_of
    written = pyarrow.parquet.read_table(evaluated / "out/predictions.parquet").to_pylist()
    nodes = [[path_of[i] for i in row["level_ids"]] for row in written]
    metrics = json.loads((evaluated / "out/metrics.json").read_text())
    assert metrics["n"] == 78 and 0 < metrics["top1"]["micro"] < 1
    assert_close(metrics, recompute(path_of, [row["true_id"] for row in written], [row["top_ids"] for row in written], nodes))
    assert metrics["listings"]["n"] == 39


def test_what_evaluate_answers_is_the_model_on_the_decoded_photos(evaluated, tiny_answers):
    dataset = open_dataset(evaluated / "data")
    category = dict(zip(dataset.table["image"].to_pylist(), dataset.table["category"].to_pylist(), strict=True))
    written = pyarrow.parquet.read_table(evaluated / "out/predictions.parquet").to_pylist()
    for row in written:
        colour = Image.open(evaluated / "data" / row["image"]).convert("RGB").resize((PX, PX))
        p = tiny_answers(np.asarray(colour)[None], len(dataset.ontology.leaves))[0]
        order = np.argsort(-p)
        assert row["true_id"] == category[row["image"]]
        assert row["top_ids"] == [dataset.ontology.leaves[k] for k in order[:5]]
        assert row["top_probabilities"] == pytest.approx(p[order[:5]].tolist(), abs=1e-5)


def test_json_is_the_file_and_the_second_run_has_nothing_to_do(evaluated, capsys):
    words = ["evaluate", str(evaluated / "bundle"), str(evaluated / "data"), "--out", str(evaluated / "out")]
    before = (evaluated / "out/metrics.json").stat().st_mtime_ns
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((evaluated / "out/metrics.json").read_text())
    assert (evaluated / "out/metrics.json").stat().st_mtime_ns == before
    assert main([*words, "--split", "train"]) == 2
    assert "split was 'test', now 'train'" in capsys.readouterr().err


def test_fresh_with_json_prints_one_object(evaluated, capsys):
    words = ["evaluate", str(evaluated / "bundle"), str(evaluated / "data"), "--out", str(evaluated / "again"), "--json", "--fresh"]
    for _ in range(2):
        assert main(words) == 0
        assert json.loads(capsys.readouterr().out)["n"] == 78


def test_another_tree_and_an_empty_split_are_refused(evaluated, write_bundle, tmp_path, capsys):
    write_bundle(tmp_path / "other", from_leaves([("laptop", "Electronics/Computers/Laptops"), ("x", "X")]), PX)
    assert main(["evaluate", str(tmp_path / "other"), str(evaluated / "data"), "--out", str(tmp_path / "o")]) == 2
    assert "knows 2 classes" in capsys.readouterr().err
    assert main(["evaluate", str(evaluated / "bundle"), str(evaluated / "data"), "--out", str(tmp_path / "o"), "--split", "val"]) == 2
    assert "has no val rows" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_vertical_is_evaluated_on_its_own_rows(evaluated, write_bundle, tmp_path, capsys):
    tree = open_dataset(evaluated / "data").ontology.subset(["Animals"])
    write_bundle(tmp_path / "animals", tree, PX, scope="animals", subtrees=["Animals"])
    assert main(["evaluate", str(tmp_path / "animals"), str(evaluated / "data"), "--out", str(tmp_path / "o"), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    written = pyarrow.parquet.read_table(tmp_path / "o/predictions.parquet").to_pylist()
    assert metrics["n"] == len(written) == 24 and {row["true_id"] for row in written} == {"cat", "dog"}
    assert {i for row in written for i in row["level_ids"]} <= set(tree.path_of)
