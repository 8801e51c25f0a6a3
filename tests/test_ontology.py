"""The tree: leaves at different depths, levels, ids, and what is refused."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from family.data.ontology import clean_path, from_leaves, read_ontology
from family.data.scopes import read_vertical, scope_ontology, verticals
from family.errors import UserError

CALTECH = Path(__file__).parent.parent.parent / "shared" / "data" / "caltech101"
NAMES = st.text(st.characters(exclude_characters="/", exclude_categories=("C", "Z")), min_size=1, max_size=6)


@st.composite
def trees(draw):
    """Draw (id, path) rows where no path lies below another."""
    paths = draw(st.lists(st.lists(NAMES, min_size=1, max_size=4).map("/".join), min_size=1, max_size=12, unique=True))
    leaves = [path for path in paths if not any(other.startswith(f"{path}/") for other in paths)]
    return [(f"id {k}", path) for k, path in enumerate(leaves)]


@pytest.fixture
def tree():
    return from_leaves([("l", "E/C/Laptops"), ("p", "E/Phones"), ("a", "Art"), ("d", "Animals/Pets/Dogs")])


def test_a_leaf_above_a_level_stays_itself(tree):
    ids, node_of = tree.level(2)
    named = [tree.path_of[ids[node]] for node in node_of]
    assert dict(zip([tree.path_of[i] for i in tree.leaves], named, strict=True)) == {
        "Animals/Pets/Dogs": "Animals/Pets", "Art": "Art", "E/C/Laptops": "E/C", "E/Phones": "E/Phones",
    }  # fmt: skip


def test_inner_nodes_have_ids(tree):
    assert tree.id_of["E/C"] == "E/C" and tree.id_of["E"] == "E"
    assert set(tree.path_of) == {"l", "p", "a", "d", "E", "E/C", "Animals", "Animals/Pets"}
    named = from_leaves([("7", "E"), ("8", "E/Phones")])
    assert named.id_of["E"] == "7" and named.leaves == ("8",)


@given(trees())
def test_levels_are_the_cut_paths(rows):
    tree = from_leaves(rows)
    assert {tree.path_of[leaf] for leaf in tree.leaves} == {path for _, path in rows}
    assert tree.depth == max(path.count("/") + 1 for _, path in rows)
    for level in range(1, tree.depth + 1):
        ids, node_of = tree.level(level)
        cut = ["/".join(tree.path_of[leaf].split("/")[:level]) for leaf in tree.leaves]
        assert [tree.path_of[ids[node]] for node in node_of] == cut
        assert len(ids) == len(set(cut)) and node_of.dtype == np.int32
    assert tuple(tree.level(tree.depth)[0]) == tree.leaves


@given(trees(), st.randoms())
def test_the_digest_is_of_the_tree_and_not_of_the_order_of_rows(rows, random):
    shuffled = random.sample(rows, len(rows))
    assert from_leaves(shuffled).digest == from_leaves(rows).digest
    renamed = [(f"{rows[0][0]}'", rows[0][1]), *rows[1:]]
    assert from_leaves(renamed).digest != from_leaves(rows).digest


def test_the_digest_is_the_same_as_ever():
    assert from_leaves([("1", "A/B"), ("2", "C")]).digest == "8d416eade8224bfe1feb44e95c16ddf104d2c94aa4f999d4082069328ae54bad"


@given(trees())
def test_what_is_written_is_read(rows):
    tree = from_leaves(rows)
    with tempfile.TemporaryDirectory() as folder:
        tree.write(Path(folder) / "ontology.csv")
        assert read_ontology(Path(folder) / "ontology.csv") == tree


def test_commas_quotes_and_unicode_survive(tmp_path):
    tree = from_leaves([('4",5', 'Größe, "XL"/Überzieher'), ("007", "服/Ñandú's")])
    tree.write(tmp_path / "ontology.csv")
    assert read_ontology(tmp_path / "ontology.csv") == tree


def test_a_table_from_a_spreadsheet_is_read(tmp_path):
    (tmp_path / "o.csv").write_bytes("\ufeffcategory_id,path,note\r\n007, A / B ,x\r\n\r\n8,C,\r\n".encode())
    tree = read_ontology(tmp_path / "o.csv")
    assert tree.path_of["007"] == "A/B" and tree.leaves == ("007", "8")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("1", "A"), ("2", "A")], "'A' stands twice"),
        ([("1", "A"), ("1", "B")], "'1' stands twice"),
        ([("1", "A//B")], "no category path"),
        ([("1", "/A")], "no category path"),
        ([("1", "A/ ")], "no category path"),
        ([("1", "")], "no category path"),
        ([("1", "A\nB")], "no category path"),
        ([("1", "A\x00B")], "no category path"),
        ([("", "A")], "no id for"),
        ([("1\n2", "A")], "no id for"),
        ([("A", "B"), ("1", "A/C")], "'A' names 'B' and is wanted for the node 'A'"),
        ([], "no category"),
    ],
)
def test_refused(rows, told):
    with pytest.raises(UserError, match=told):
        from_leaves(rows)


def test_unreadable_tables_are_the_users_error(tmp_path):
    latin = "category_id,path\n1,Größe\n".encode("latin-1")
    cases = {"none.csv": None, "latin.csv": latin, "columns.csv": b"id,path\n1,A\n", "empty.csv": b""}
    for name, data in cases.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=name):
            read_ontology(tmp_path / name)


def test_subset_keeps_whole_names_and_known_ids():
    tree = from_leaves([("1", "Car/Audi"), ("2", "Car Parts/Door"), ("3", "Art"), ("9", "Car")])
    part = tree.subset(["Car"])
    assert part.leaves == ("1",) and part.id_of == {"Car": "9", "Car/Audi": "1"}
    assert tree.subset(["Art/", "Car Parts/Door"]).leaves == ("3", "2")
    with pytest.raises(UserError, match="departments: Art, Car, Car Parts"):
        tree.subset(["Boats"])


def test_clean_path_strips_spaces_around_names():
    assert clean_path(" A / B c ") == "A/B c"


def test_scopes_cover_parts_of_the_tree(tmp_path, tree):
    assert scope_ontology(tree, "general") is tree
    assert scope_ontology(tree, "animals").leaves == ("d",)
    (tmp_path / "phones.toml").write_text('subtrees = ["E/Phones"]')
    assert scope_ontology(tree, str(tmp_path / "phones.toml")).leaves == ("p",)
    with pytest.raises(UserError, match="Did you mean 'animals'"):
        scope_ontology(tree, "animal")
    (tmp_path / "bad.toml").write_text("subtrees = []")
    with pytest.raises(UserError, match="list of category paths"):
        read_vertical(tmp_path / "bad.toml")
    assert {"electronics", "animals", "transport"} <= set(verticals())


@pytest.mark.skipif(not CALTECH.is_dir(), reason="shared/data/caltech101 is not beside the repository")
def test_levels_of_real_listings():
    tree = read_ontology(CALTECH / "ontology.csv")
    assert [len(tree.level(level)[0]) for level in range(1, tree.depth + 1)] == [7, 36, 64, 88, 98, 101]
    assert len(tree.leaves) == 101
