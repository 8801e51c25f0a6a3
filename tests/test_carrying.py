"""A head carried to a changed tree: what each kind of change makes of the rows, what is refused, and a training that starts from it."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import LEAVES
from hypothesis import given
from hypothesis import strategies as st
from trainings import EXACT, family, weights_of

from benchmarks.studies.carrying import change_tree, epochs_to
from family.card import write_card
from family.data.ontology import from_leaves
from family.errors import UserError
from family.models.carrying import plan_from_run, plan_head, read_mapping

OLD = [("b", "X/B"), ("c", "X/C"), ("d", "Y/D"), ("e", "Z")]  # sorted by path, as a card's classes are
KERNEL = np.array([[1.0, 2.0, 4.0, 8.0], [-1.0, 3.0, 5.0, 0.5]], np.float32)
BIAS = np.array([0.25, -0.5, 1.0, 2.0], np.float32)
NEW_KERNEL, NEW_BIAS = np.full((3, 9), 7.0, np.float32), np.full(9, 9.0, np.float32)


def plan(new: list, mapping: list = (), leaves: list | None = None, old: list = OLD):
    return plan_head([i for i, _ in old], [path for _, path in old], from_leaves(new), list(mapping), leaves)


def rows(planned, kernel=KERNEL, bias=BIAS) -> tuple[np.ndarray, np.ndarray]:
    n = len(planned.kinds)
    return planned.rows(kernel, bias, NEW_KERNEL[: len(kernel), :n], NEW_BIAS[:n])


def counts(**changed: int) -> dict:
    return {**dict.fromkeys(("kept", "renamed", "merged", "split", "new", "dropped"), 0), **changed}


def probabilities(features: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    powers = np.exp(features.astype(np.float64) @ kernel + bias)
    return powers / powers.sum(axis=1, keepdims=True)


def test_an_unchanged_tree_keeps_every_bit():
    planned = plan(OLD)
    kernel, bias = rows(planned)
    assert planned.counts == counts(kept=4)
    np.testing.assert_array_equal(kernel, KERNEL)
    np.testing.assert_array_equal(bias, BIAS)


def test_a_category_is_known_by_its_id_wherever_it_moves_and_by_its_path_under_a_new_id():
    planned = plan([("c", "A/C moved"), ("e", "W"), ("b2", "X/B"), ("d", "Y/D")])  # the order of classes changes too
    assert planned.kinds == ("kept",) * 4 and planned.sources == ((1,), (3,), (0,), (2,))
    np.testing.assert_array_equal(rows(planned)[0], KERNEL[:, [1, 3, 0, 2]])


def test_a_renamed_category_takes_its_row_along():
    planned = plan([("b", "X/B"), ("c", "X/C"), ("d", "Y/D"), ("z2", "Zed")], [("e", "Zed")])
    assert planned.counts == counts(kept=3, renamed=1)
    np.testing.assert_array_equal(rows(planned)[0], KERNEL)
    np.testing.assert_array_equal(rows(planned)[1], BIAS)


def test_a_merged_category_gets_the_mean_row_and_the_logarithm_of_how_many():
    planned = plan([("b", "X/B"), ("cd", "Y"), ("e", "Z")], [("c", "cd"), ("Y/D", "cd")])
    kernel, bias = rows(planned)
    assert planned.counts == counts(kept=2, merged=1)
    np.testing.assert_array_equal(kernel, [[1, 3, 8], [-1, 4, 0.5]])
    np.testing.assert_allclose(bias, [0.25, (-0.5 + 1.0) / 2 + 0.6931472, 2.0], rtol=1e-6)


def test_a_category_may_be_merged_into_one_that_goes_on():
    planned = plan([("b", "X/B"), ("c", "X/C"), ("e", "Z")], [("c", "c"), ("d", "c")])
    assert planned.counts == counts(kept=2, merged=1) and planned.sources == ((0,), (1, 2), (3,))


def test_the_parts_of_a_split_get_copies_less_the_logarithm_of_how_many():
    planned = plan([("b", "X/B"), ("c", "X/C"), ("d1", "Y/D/1"), ("d2", "Y/D/2"), ("d3", "Y/D/3"), ("e", "Z")],
                   [("d", "d1"), ("d", "d2"), ("d", "d3")])  # fmt: skip
    kernel, bias = rows(planned)
    assert planned.counts == counts(kept=3, split=3)
    np.testing.assert_array_equal(kernel, KERNEL[:, [0, 1, 2, 2, 2, 3]])
    np.testing.assert_allclose(bias[2:5], [1 - 1.0986123] * 3, rtol=1e-6)


def test_a_new_category_keeps_its_initial_row_and_an_old_one_without_heir_is_dropped():
    planned = plan([("b", "X/B"), ("c", "X/C"), ("f", "Y/F"), ("e", "Z")])
    kernel, bias = rows(planned)
    assert planned.counts == counts(kept=3, new=1, dropped=1)
    np.testing.assert_array_equal(kernel[:, 2], [7, 7])
    assert bias[2] == 9


def test_many_to_many_is_the_same_arithmetic():
    """c gives a half to cd and a half to c2; d gives all to cd."""
    planned = plan([("b", "X/B"), ("c2", "X/C2"), ("cd", "X/CD"), ("e", "Z")], [("c", "cd"), ("c", "c2"), ("d", "cd")])
    kernel, bias = rows(planned)
    assert planned.kinds == ("kept", "split", "merged", "kept")
    np.testing.assert_array_equal(kernel[:, 1:3], [[2, 3], [3, 4]])
    np.testing.assert_allclose(bias[1:3], [-0.5 - 0.6931472, ((-0.5 - 0.6931472) + 1.0) / 2 + 0.6931472], rtol=1e-6)


def test_two_names_that_change_places_go_where_the_mapping_says():
    planned = plan(OLD, [("b", "c"), ("c", "b")])
    assert planned.sources == ((1,), (0,), (2,), (3,)) and planned.counts == counts(kept=2, renamed=2)


def test_an_id_that_another_category_has_now_starts_anew():
    planned = plan(OLD, [("b", ""), ("", "b")])
    assert planned.counts == counts(kept=3, new=1, dropped=1) and planned.sources[0] == ()


def test_a_part_of_the_tree_takes_its_rows_and_reads_the_mapping_of_all():
    tree = [("b", "X/B"), ("c", "X/C"), ("d1", "Y/D1"), ("d2", "Y/D2"), ("e", "Z")]
    planned = plan(tree, [("d", "d1"), ("d", "d2")], leaves=["d1", "d2"])
    assert planned.counts == counts(split=2, dropped=3) and planned.sources == ((2,), (2,))
    with pytest.raises(UserError, match="unknown new category 'd3'"):
        plan(tree, [("d", "d1"), ("d", "d3")], leaves=["d1"])


def test_the_changes_that_are_measured_are_a_share_of_the_tree_of_every_kind():
    tree = from_leaves([(f"{a}{b}", f"{a}/{b}") for a in "ABCDEFGHIJ" for b in "xyz"])
    change = change_tree(tree, 0.35, seed=3)
    planned = plan(list(zip(change.new.ids, change.new.paths, strict=True)), change.mapping,
                   old=[(leaf, change.old.path_of[leaf]) for leaf in change.old.leaves])  # fmt: skip
    assert planned.counts == counts(kept=18, renamed=2, merged=2, split=4, new=2)  # 10 of 28 are touched
    assert (change.old_labels == -1).sum() == 2 and set(change.new_labels) == set(range(28))
    for k, leaf in enumerate(tree.leaves):  # a category's old class is among those that its new class takes from
        sources = planned.sources[change.new_labels[k]]
        assert change.old_labels[k] in sources if sources else change.old_labels[k] == -1, leaf
    assert change_tree(tree, 0.35, seed=4).mapping != change.mapping == change_tree(tree, 0.35, seed=3).mapping
    with pytest.raises(UserError, match="siblings"):
        change_tree(tree, 1.0, seed=0)


def test_epochs_are_counted_to_the_first_that_reaches_the_level():
    curve = [{"val": value, "test": 0.0} for value in (0.1, 0.7, 0.9, 0.8, 0.95)]
    assert [epochs_to(curve, "val", level) for level in (0.05, 0.7, 0.85, 0.95, 0.96)] == [0, 1, 2, 4, None]


finite = st.floats(-4, 4, width=32)


@given(st.lists(finite, min_size=12, max_size=12), st.lists(finite, min_size=3, max_size=3))
def test_probabilities_stay_sensible(values, point):
    """Of three categories a, b, c: merge a with b, split c in two; then merge the two again."""
    old = [("a", "A"), ("b", "B"), ("c", "C")]
    kernel, bias = np.array(values[:9]).reshape(3, 3), np.array(values[9:])
    before = probabilities(np.array([point]), kernel, bias)[0]
    split = plan([("a", "A"), ("b", "B"), ("c1", "C1"), ("c2", "C2")], [("c", "c1"), ("c", "c2")], old=old)
    after = probabilities(np.array([point]), *rows(split, kernel, bias))[0]
    np.testing.assert_allclose(after, [before[0], before[1], before[2] / 2, before[2] / 2], atol=1e-5)
    again = plan([("a", "A"), ("b", "B"), ("c", "C")], [("c1", "c"), ("c2", "c")],
                 old=[("a", "A"), ("b", "B"), ("c1", "C1"), ("c2", "C2")])  # fmt: skip
    np.testing.assert_allclose(probabilities(np.array([point]), *rows(again, *rows(split, kernel, bias)))[0], before, atol=1e-5)
    merged = plan([("ab", "A"), ("c", "C")], [("a", "ab"), ("b", "ab")], old=old)
    found = probabilities(np.array([point]), *rows(merged, kernel, bias))[0]
    # The geometric mean of the two old ones, doubled, beside the third: worked out in probabilities, not in rows.
    share = 2 * np.sqrt(before[0] * before[1])
    np.testing.assert_allclose(found[0], share / (share + before[2]), atol=1e-5)
    assert found[0] <= before[0] + before[1] + 1e-5


def test_a_merged_category_of_two_that_agree_is_as_likely_as_both_together():
    features = np.random.default_rng(0).normal(size=(50, 2))
    kernel = np.array([[1, 1, -1], [2, 2, 0.5]])
    merged = plan([("ab", "A"), ("c", "C")], [("a", "ab"), ("b", "ab")], old=[("a", "A"), ("b", "B"), ("c", "C")])
    before, after = probabilities(features, kernel, np.zeros(3)), probabilities(features, *rows(merged, kernel, np.zeros(3)))
    np.testing.assert_allclose(after[:, 0], before[:, 0] + before[:, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("new", "mapping", "said"),
    [
        (OLD, [("bb", "b")], "unknown old category 'bb'. Did you mean 'b'"),
        (OLD, [("b", "X/Bee")], "unknown new category 'X/Bee'. Did you mean 'X/B'"),
        (OLD, [("b", "X")], "'X' is no leaf of the new tree; below it are X/B, X/C"),
        (OLD, [("X", "b")], "'X' is no leaf of the old tree"),
        (OLD, [("b", "b"), ("c", "c"), ("b", "b")], "the row b,b stands twice"),
        (OLD, [("b", "b"), ("X/B", "b")], "stands twice, also as b,b"),
        (OLD, [("b", ""), ("b", "b")], "'b' ends, and another row says otherwise"),
        (OLD, [("", "b"), ("b", "b")], "'b' begins from nothing, and another row says otherwise"),
        (OLD, [("b", "c"), ("c", "c")], "add the row b,b if it goes on there too, or ,b if"),
        (OLD, [("b", "b"), ("b", "c")], "add the row c,c if it goes on there, or c, if it ends"),
        ([("b", "X/B2"), ("new", "X/B"), *OLD[1:]], [], "'b' was 'X/B' and is now 'X/B2', while 'X/B' is now 'new'"),
        ([("c", "X/B"), *OLD[2:]], [], "'c' was 'X/C' and is now 'X/B', while 'X/B' was 'b'"),
    ],
)
def test_what_is_wrong_or_half_told_is_refused(new, mapping, said):
    with pytest.raises(UserError) as error:
        plan(new, mapping)
    assert said in str(error.value)


def test_a_row_settles_what_ids_and_paths_disagree_on():
    assert plan([("b", "X/B2"), ("new", "X/B"), *OLD[1:]], [("b", "b"), ("", "new")]).counts == counts(kept=4, new=1)
    assert plan([("b", "X/B2"), ("new", "X/B"), *OLD[1:]], [("b", "new"), ("", "b")]).counts == counts(kept=4, new=1)


def test_a_name_that_is_one_categorys_id_and_anothers_path_is_refused():
    old = [("Z", "X/B"), ("e", "Z")]
    with pytest.raises(UserError, match="id of one old category and the path of another"):
        plan(old, [("Z", "e"), ("X/B", "X/B")], old=old)


def test_a_mapping_file_is_read_as_spreadsheets_write_it(tmp_path):
    path = tmp_path / "mapping.csv"
    path.write_bytes('\ufeffold,new,note\r\n a , b ,x\r\n"X/Cups, saucers",c,\r\nd,,\r\n'.encode())
    assert read_mapping(path) == [("a", "b"), ("X/Cups, saucers", "c"), ("d", "")]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"from,to\na,b\n", "no column new, old; wanted: old,new"),
        (b"", "no column"),
        (b"old,new\na,b,c\n", "line 2: wanted old,new"),
        (b"old,new\n,\n", "line 2: wanted old,new"),
        (b"old,new\n\xff\xfe,b\n", "utf-8"),
        (b'old,new\n"a,b\n', "unexpected end of data"),
    ],
)
def test_a_mapping_file_that_is_none_is_refused(tmp_path, data, said):
    (tmp_path / "mapping.csv").write_bytes(data)
    with pytest.raises(UserError) as error:
        read_mapping(tmp_path / "mapping.csv")
    assert said in str(error.value) and "mapping.csv" in str(error.value)
    with pytest.raises(UserError, match="No such file"):
        read_mapping(tmp_path / "other.csv")


def test_mappings_that_say_the_same_are_the_same():
    new = [("b", "X/B"), ("cd", "Y"), ("e", "Z")]
    one, other = plan(new, [("c", "cd"), ("d", "cd")]), plan(new, [("Y/D", "Y"), ("c", "Y")])
    assert one.digest == other.digest != plan(new).digest


@pytest.fixture
def write_run(tmp_path):
    def write(**changes) -> Path:
        (tmp_path / "old").mkdir(exist_ok=True)
        card = {"schema": 1, "name": "lite0-32-general", "variant": "lite0", "resolution_px": 32, "scope": "general",
                "classes": [i for i, _ in LEAVES], "paths": [path for _, path in LEAVES],
                "preprocessing": {"resolution_px": 32, "aspect": "stretch", "filter": "bilinear"}}  # fmt: skip
        write_card(tmp_path / "old", {**card, **changes})
        return tmp_path / "old"

    return write


def test_runs_whose_head_means_nothing_here_are_refused(write_run, tmp_path):
    tree = from_leaves(LEAVES)
    with pytest.raises(UserError, match="needs --weights RUN; got --weights imagenet"):
        plan_from_run("imagenet", "lite0", tree, tree.leaves, None)
    with pytest.raises(UserError, match="a run of lite0; its head means nothing on the features of b0"):
        plan_from_run(write_run(), "b0", tree, tree.leaves, None)
    with pytest.raises(UserError, match="knows none of the 6 categories"):
        plan_from_run(write_run(classes=["1"], paths=["Toys"]), "lite0", tree, tree.leaves, None)
    (tmp_path / "mapping.csv").write_text("old,new\nlaptops,laptop\n")
    with pytest.raises(UserError, match="mapping.csv: unknown old category 'laptops'. Did you mean 'laptop'"):
        plan_from_run(write_run(), "lite0", tree, tree.leaves, tmp_path / "mapping.csv")


def test_with_the_same_tree_the_model_answers_as_the_old_one(write_run):
    tf_keras = pytest.importorskip("tf_keras")
    from family.models import build_variant
    from family.models.weights import load_head, load_trunk

    tree = from_leaves(LEAVES)
    run = write_run(classes=list(tree.leaves), paths=[tree.path_of[leaf] for leaf in tree.leaves])
    tf_keras.utils.set_random_seed(1)
    old = build_variant("lite0", 6, resolution_px=32)
    old.get_layer("logits").bias.assign(np.arange(6.0))
    old.save_weights(run / "weights.h5")
    new = build_variant("lite0", 6, resolution_px=32)
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    load_trunk(new, str(run))
    assert np.abs(new(image).numpy() - old(image).numpy()).max() > 1e-3, "the trunk alone must not make it"
    load_head(new, str(run), plan_from_run(run, "lite0", tree, tree.leaves, None))
    np.testing.assert_array_equal(new(image).numpy(), old(image).numpy())
    other = plan_from_run(write_run(classes=["laptop"], paths=["Electronics/Computers/Laptops"]), "lite0", tree, tree.leaves, None)
    with pytest.raises(UserError, match="the head's arrays have the shapes"):
        load_head(new, str(run), other)


def test_a_training_carries_the_head_on_all_ranks_and_tells_what_it_carried(tmp_path):
    before, after, old, run = (tmp_path / name for name in ("before", "after", "old", "run"))
    family("data", "synth", before, "--listings", 60, "--categories", 12)
    family("data", "synth", after, "--listings", 60, "--categories", 14)
    family("train", before, "--out", old, *EXACT, "--set", "finetune_epochs=1")
    known = json.loads((old / "card.json").read_text())["classes"]
    wanted = {row.split(",")[0] for row in (after / "ontology.csv").read_text().splitlines()}
    assert set(known) <= wanted, "the larger made-up tree holds the smaller one"
    # A rate so small that the rows stay what they were carried to.
    words = ["train", after, "--out", run, *EXACT, "--set", "finetune_epochs=1", "--set", "finetune_rate=0.00000001"]
    words[words.index("--weights") + 1] = old
    (tmp_path / "mapping.csv").write_text(f"old,new\n{known[3]},{known[3]}\n{known[3]},{known[4]}\n{known[4]},{known[4]}\n")
    mapped = [*words, "--carry-head", tmp_path / "mapping.csv"]
    said = family(*mapped, "--ranks", 2).stdout
    assert "head: of 14 categories 10 kept, 0 renamed, 1 merged, 1 split, 2 new; of the run's 0 dropped" in said
    card = json.loads((run / "card.json").read_text())
    assert card["training"]["weights"]["head"] == {"kept": 10, "renamed": 0, "merged": 1, "split": 1, "new": 2, "dropped": 0}
    then, now = ({name.rpartition("/")[2]: array for name, array in weights_of(path).items() if "logits" in name} for path in (old, run))
    place = [card["classes"].index(leaf) for leaf in known]
    expected, bias = then["kernel:0"].copy(), then["bias:0"].copy()
    expected[:, 4] = (expected[:, 3] + expected[:, 4]) / 2
    bias[4] = ((bias[3] - np.log(2)) + bias[4]) / 2 + np.log(2)
    bias[3] -= np.log(2)
    np.testing.assert_allclose(now["kernel:0"][:, place], expected, atol=1e-5)
    np.testing.assert_allclose(now["bias:0"][place], bias, atol=1e-5)
    assert "already done" in family(*mapped).stdout
    for other in (words, [*words, "--carry-head"]):  # the trunk alone, and without the mapping
        assert "head was" in family(*other, code=2).stderr
    assert "needs --weights RUN" in family(*words[:-2], "--weights", old / "weights.h5", "--carry-head", code=2).stderr
