"""Chains: what a chain file may say, what hard and soft routing answer, and the commands that take a chain."""

import json

import numpy as np
import pyarrow.parquet
import pytest
from family_of_three import SIZES, SUBTREES, TREE
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from export import chain as chain_module
from export.chain import Chain, Resized, join_members, open_any, open_chain
from export.opening import Model
from family.chains import read_chain, write_chain
from family.cli import main
from family.data.dataset import open_dataset
from family.data.images import Preprocessing, decode_rgb, decode_sizes, resize
from family.data.importing import import_dataset
from family.data.ontology import from_leaves
from family.errors import Failure, UserError
from family.evaluation.routing import NONE, answer_hard, answer_soft, place, restrict, route
from family.outputs import read_json, write_json


def test_an_image_is_resized_for_the_members_that_answer_it_alone(family_of_three, monkeypatch):
    chain = open_chain(family_of_three / "hard.toml", "fp32", "cpu", 1)
    sizes = []
    monkeypatch.setattr(chain_module, "resize", lambda image, how: (sizes.append(how.resolution_px), resize(image, how))[1])
    seen = set()
    for path in sorted((family_of_three / "data" / "images").rglob("*.png"))[:40]:
        data, asked = path.read_bytes(), []
        sizes.clear()
        images = Resized([decode_rgb(data)])
        answer = chain.hand_over(chain.predict_general(images), images, lambda name, n, asked=asked: asked.append(name))[0]
        assert sizes == [SIZES["general"], *(SIZES[name] for name in asked)] and len(asked) <= 1
        assert (chain.answer(data) == answer).all()
        all_sizes = {how: image[None] for how, image in decode_sizes(data, chain.hows).items()}
        assert (chain.predict(all_sizes)[0] == answer).all()
        seen |= set(asked)
    assert seen == {"electronics", "animals"}


@st.composite
def answers(draw):
    """Draw a general model's probabilities, disjoint parts of its classes, and a submodel's probabilities for each."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_classes, n_parts = draw(st.integers(2, 12)), draw(st.integers(1, 3))
    owner = rng.integers(-1, n_parts, n_classes)
    parts = [rng.permutation(np.flatnonzero(owner == k)) for k in range(n_parts)]
    parts = [part for part in parts if len(part)] or [np.array([0])]
    n = draw(st.integers(1, 8))
    peak = draw(st.sampled_from([0.05, 0.7, 5.0]))
    general = rng.dirichlet(np.full(n_classes, peak), n).astype(np.float32)
    return general, parts, [rng.dirichlet(np.full(len(part), peak), n).astype(np.float32) for part in parts]


def routed(p: np.ndarray, parts: list) -> int:
    """Return the part of the largest sum, row by row."""
    inside = {leaf for part in parts for leaf in part}
    sums = {NONE: sum(float(p[leaf]) for leaf in range(len(p)) if leaf not in inside)}
    sums |= {k: sum(float(p[leaf]) for leaf in part) for k, part in enumerate(parts)}
    return max(sums, key=sums.get)


@given(answers(), st.lists(st.sampled_from([0.2, 0.5, 0.9, np.inf]), min_size=3, max_size=3))
def test_with_thresholds_a_submodel_is_asked_only_where_the_general_model_is_less_sure(drawn, limits):
    general, parts, subs = drawn
    limits, asked = limits[: len(parts)], []
    found = answer_hard(general, parts, lambda k, rows: (asked.extend((k, row) for row in rows), subs[k][rows])[1], limits)
    without = answer_hard(general, parts, lambda k, rows: subs[k][rows])
    for row, p in enumerate(general):
        k = routed(p, parts)
        is_asked = k != NONE and p.max() < limits[k]
        assert ((k, row) in asked) == is_asked
        np.testing.assert_array_equal(found[row], without[row] if is_asked or k == NONE else general[row])


@given(answers())
def test_soft_is_the_product_for_every_vertical_and_a_distribution(drawn):
    general, parts, subs = drawn
    found = answer_soft(general, parts, lambda k, rows: subs[k][rows])
    for row, p in enumerate(general):
        wanted = p.astype(float)
        for part, sub in zip(parts, subs, strict=True):
            mass = float(sum(float(p[leaf]) for leaf in part))
            for leaf, q in zip(part, sub[row], strict=True):
                wanted[leaf] = mass * float(q)
        assert found[row] == pytest.approx(wanted, abs=1e-6)
    assert found.sum(axis=1) == pytest.approx(general.sum(axis=1), abs=1e-5) and (found >= 0).all()


@given(answers())
def test_hard_answers_with_the_submodels_best_and_stays_a_distribution(drawn):
    general, parts, subs = drawn
    asked = []
    found = answer_hard(general, parts, lambda k, rows: (asked.append((k, rows.tolist())), subs[k][rows])[1])
    routes = route(general, parts)
    assert routes.tolist() == [routed(p, parts) for p in general]
    assert asked == [(k, np.flatnonzero(routes == k).tolist()) for k in range(len(parts)) if (routes == k).any()], "routed rows alone"
    assert found.sum(axis=1) == pytest.approx(general.sum(axis=1), abs=1e-5) and (found >= 0).all()
    for row, k in enumerate(routes):
        p, part = general[row].astype(float), parts[k]
        if k == NONE:
            assert found[row].tolist() == general[row].tolist()
            continue
        q, outside = subs[k][row].astype(float), np.setdiff1d(np.arange(len(p)), part)
        assert found[row].argmax() in part[q == q.max()]
        mass = p[part].sum()
        if p[outside].max(initial=0) < 0.999 * mass * q.max():  # nothing is in the way: the plain product
            assert found[row][part] == pytest.approx(mass * q, abs=1e-6)
            assert found[row][outside] == pytest.approx(p[outside], abs=1e-6)
        elif len(outside):  # scaled by one factor, no further than needed
            assert found[row][outside].max() == pytest.approx(found[row].max(), rel=1e-3)
            assert found[row][outside] * p[outside].sum() == pytest.approx(p[outside] * found[row][outside].sum(), abs=1e-5)
            assert found[row][part] == pytest.approx(found[row][part].sum() * q, abs=1e-6)


def test_a_leaf_outside_that_is_ahead_is_scaled_behind_the_submodels_best():
    general = np.float32([[0.3, 0.3, 0.4]])
    parts, sub = [np.array([0, 1])], np.float32([[0.5, 0.5]])
    found = answer_hard(general, parts, lambda k, rows: sub[rows])[0]
    # P(V) Q would be 0.3, 0.3 and lose to 0.4. Three equal shares are where the factor ends.
    assert found == pytest.approx([1 / 3] * 3, abs=1e-4) and found[2] < found[0] == found[1]


def test_of_equal_groups_none_of_them_comes_first_then_the_earlier_vertical():
    parts = [np.array([2]), np.array([0])]
    assert route(np.float32([[0.25, 0.5, 0.25], [0.5, 0, 0.5], [0.5, 0.5, 0]]), parts).tolist() == [NONE, 0, NONE]
    assert route(np.float32([[0.5, 0.5]]), [np.array([0]), np.array([1])]).tolist() == [0], "nothing is left for none of them"


def test_restricting_renormalizes_and_says_nothing_where_nothing_is_known():
    general, part = np.float32([[0.2, 0.6, 0.2], [0, 1, 0]]), np.array([2, 0])
    assert restrict(general, part) == pytest.approx(np.array([[0.5, 0, 0.5], [0.5, 0, 0.5]]))
    assert place(np.float32([[0.1, 0.9]]), part, 3) == pytest.approx(np.array([[0.9, 0, 0.1]]))


def fake(ontology, scope="general", px=8, predict=None, digest=TREE.digest, **changes) -> Model:
    card = {
        "name": scope, "scope": scope, "subtrees": None if scope == "general" else SUBTREES.get(scope), "classes": list(ontology.leaves),
        "paths": [ontology.path_of[leaf] for leaf in ontology.leaves], "node_ids": ontology.id_of,
        "preprocessing": Preprocessing(px).card(), "dataset": {"ontology_digest": digest}, **changes,
    }  # fmt: skip
    predict = predict or (lambda images: np.full((len(images), len(card["classes"])), 1 / len(card["classes"]), np.float32))
    return Model(f"b0-{px}-{scope}", card, predict, {"scheme": "fp32", "model_sha256": f"{scope}-{px}"})


def animals(**changes) -> Model:
    return fake(TREE.subset(["Animals"]), "animals", **changes)


def test_submodels_run_on_the_rows_that_are_routed_to_them_at_their_own_size():
    seen = {}

    def answer(scope, table):
        def predict(images):
            seen[scope] = (images.shape[1], images[:, 0, 0, 0].tolist())
            return table[images[:, 0, 0, 0]]

        return predict

    # Rows 0 and 3 are animals to the general model, 1 is electronics, 2 is art. Classes: cat, dog, art, tower, laptop, phone.
    general = np.float32([[0.5, 0.3, 0.1, 0.1, 0, 0], [0, 0, 0.3, 0.2, 0.2, 0.3], [0.3, 0.1, 0.5, 0.1, 0, 0], [0.1, 0.8, 0.1, 0, 0, 0]])
    sub = np.float32([[0.1, 0.9], [0.5, 0.5], [0.5, 0.5], [0.7, 0.3]])
    chain = join_members(
        fake(TREE, predict=answer("general", general)), {"animals": animals(px=16, predict=answer("animals", sub))}, "hard"
    )
    assert chain.hows == (Preprocessing(8), Preprocessing(16)) and chain.parts["animals"].tolist() == [0, 1]
    images = {
        how: np.tile(np.arange(4, dtype=np.uint8)[:, None, None, None], (1, how.resolution_px, how.resolution_px, 3)) for how in chain.hows
    }
    found = chain.predict(images)
    assert seen == {"general": (8, [0, 1, 2, 3]), "animals": (16, [0, 3])}
    assert found[[1, 2]].tolist() == general[[1, 2]].tolist()
    assert found[0] == pytest.approx([0.08, 0.72, 0.1, 0.1, 0, 0]) and found[3] == pytest.approx([0.63, 0.27, 0.1, 0, 0, 0])
    soft = Chain(chain.general, chain.submodels, chain.parts, "soft").predict(images)
    assert seen["animals"] == (16, [0, 1, 2, 3]) and soft[2] == pytest.approx([0.2, 0.2, 0.5, 0.1, 0, 0])
    assert chain.about["model_sha256"] != Chain(chain.general, chain.submodels, chain.parts, "soft").about["model_sha256"]


@pytest.mark.parametrize(
    ("general", "submodels", "told"),
    [
        (fake(TREE, subtrees=["Animals"]), {"animals": animals()}, "covers the whole tree"),
        (fake(TREE), {"animals": animals(digest="0" * 64)}, "the members of a chain need one tree"),
        (fake(TREE), {"animals": animals(dataset={})}, "has no ontology digest"),
        (fake(TREE, digest="0" * 64), {"animals": animals(digest="0" * 64)}, "not those of the ontology digest"),
        (fake(TREE), {"x": fake(from_leaves([("cow", "Animals/Cows")]), "x")}, "has cow, which are no leaves of b0-8-general"),
        (fake(TREE), {"x": fake(from_leaves([("cat", "Animals/Cats")]), "x")}, "has cat, which are no leaves of b0-8-general"),
        (fake(TREE), {"animals": animals(), "pets": animals()}, "pets and animals overlap in cat, dog"),
        (fake(TREE), {"animals": animals(classes=["cat", "cat"], paths=["Animals/Pets/Cats"] * 2)}, "a class twice"),
        (fake(TREE), {"animals": animals(classes=[], paths=[])}, "no classes"),
        (fake(TREE), {"animals": animals(classes=[["cat"], "dog"])}, "no text"),
        (fake(TREE, node_ids=[]), {"animals": animals()}, "no text"),
    ],
)  # fmt: skip
def test_members_that_do_not_belong_together_are_refused(general, submodels, told):
    with pytest.raises(UserError, match=told):
        join_members(general, submodels, "hard")


def test_a_member_that_answers_for_other_classes_than_its_card_is_a_failure():
    chain = join_members(fake(TREE, predict=lambda images: np.ones((len(images), 5))), {"animals": animals()}, "hard")
    with pytest.raises(Failure, match="answers .* for 2 images and 6 classes"):
        chain.predict({Preprocessing(8): np.zeros((2, 8, 8, 3), np.uint8)})


GOOD = 'general = "g"\n[verticals]\nanimals = "a"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('genral = "g"\n' + GOOD, "unknown key in .*'genral'. Did you mean 'general'. Allowed: general, routing, thresholds, verticals"),
        ('routing = "harder"\n' + GOOD, "Did you mean 'hard'. Allowed: hard, soft"),
        ("routing = 1\n" + GOOD, "Allowed: hard, soft"),
        ('general = "g"\n', "names at least one submodel"),
        ('general = "g"\nverticals = ["a"]\n', "names at least one submodel"),
        ('general = "g"\n[verticals]\n', "names at least one submodel"),
        ('[verticals]\nanimals = "a"\n', "general takes the path of a run or a bundle; got None"),
        ('general = "g"\n[verticals]\nanimals = 3\n', "verticals.animals takes the path"),
        ('general = "g"\n[verticals.animals]\npath = "a"\n', "verticals.animals takes the path"),
        ('general = "g"\n[verticals]\n"a b" = "a"\n', "no name of a vertical"),
        ('general = "g\\u0000"\n[verticals]\nanimals = "a"\n', "general takes the path"),
        ('general = ""\n[verticals]\nanimals = "a"\n', "general takes the path"),
        ('general = "/etc"\n[verticals]\nanimals = "a"\n', "is absolute"),
        ('general = "none"\n[verticals]\nanimals = "a"\n', "there is no folder .*none"),
        (f'general = "{"g" * 5000}"\n[verticals]\nanimals = "a"\n', "there is no folder"),
        ('general = "chain.toml"\n[verticals]\nanimals = "a"\n', "there is no folder"),
        ('general = "g"\n[verticals]\nanimals = "a"\n[thresholds]\nanimls = 0.9\n', "unknown vertical in .thresholds.*'animls'. Did you mean 'animals'"),
        ('general = "g"\n[verticals]\nanimals = "a"\n[thresholds]\nanimals = 90\n', "thresholds.animals is a probability above 0, at most 1; got 90"),
        ('general = "g"\n[verticals]\nanimals = "a"\n[thresholds]\nanimals = true\n', "is a probability"),
        ('general = "g"\nthresholds = 0.5\n[verticals]\nanimals = "a"\n', "holds a probability for a vertical"),
        ('general = "g"\nrouting = "soft"\n[verticals]\nanimals = "a"\n[thresholds]\nanimals = 0.9\n', "with soft routing each always is"),
        ("general = g", "is no TOML"),
        ("general = " + "[" * 100_000, "is no TOML"),
        ("# " + "x" * 2**20, "larger than 1 MB"),
    ],
)  # fmt: skip
def test_a_chain_file_that_says_something_else_is_refused(tmp_path, text, told):
    for name in ("g", "a"):
        (tmp_path / name).mkdir()
    (tmp_path / "chain.toml").write_text(text)
    with pytest.raises(UserError, match=told):
        read_chain(tmp_path / "chain.toml")


def test_a_file_that_is_missing_or_no_text_is_told(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        open_any(tmp_path / "chain.toml")
    (tmp_path / "chain.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is no TOML"):
        read_chain(tmp_path / "chain.toml")


def test_what_is_written_is_read_again_from_anywhere(tmp_path, monkeypatch):
    folders = {"animals": tmp_path / 'out/bundles/a "quoted" \\ näme', "my.own": tmp_path / "elsewhere/b"}
    for folder in (*folders.values(), tmp_path / "out/bundles/g"):
        folder.mkdir(parents=True)
    write_chain(tmp_path / "out/chain.toml", tmp_path / "out/bundles/g", folders, "soft")
    assert (
        'general = "bundles/g"\n' in (tmp_path / "out/chain.toml").read_text()
        and "../elsewhere/b" in (tmp_path / "out/chain.toml").read_text()
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    told = read_chain(tmp_path / "out/chain.toml")
    assert told.routing == "soft" and list(told.verticals) == ["animals", "my.own"]
    assert told.general.samefile(tmp_path / "out/bundles/g") and all(told.verticals[n].samefile(f) for n, f in folders.items())
    for bad in ({}, {"a b": folders["animals"]}, {"a": tmp_path / "x\ny"}):
        with pytest.raises(UserError):
            write_chain(tmp_path / "bad.toml", tmp_path / "g", bad, "hard")
    with pytest.raises(UserError, match="Did you mean 'soft'"):
        write_chain(tmp_path / "bad.toml", tmp_path / "g", folders, "sofd")
    assert not (tmp_path / "bad.toml").exists()


def hand_over(found: np.ndarray, general: np.ndarray, part: list, sub: np.ndarray) -> None:
    """Search, by halving, the largest factor on the leaves outside that leaves each of them behind the submodel's best."""
    outside, scale, step = np.setdiff1d(np.arange(len(general)), part), 1.0, 0.5
    while step > 1e-12:
        found[outside] = general[outside] * scale
        found[part] = (general.sum() - found[outside].sum()) * sub
        ahead = found[outside].max() >= found[part].max()
        if scale == 1 and not ahead:
            break
        scale, step = scale + (-step if ahead else step), step / 2


@pytest.fixture(scope="module")
def chained(tiny_answers):
    """Answer a photo as a chain does, in plain Python on the tiny bundles' arithmetic."""

    def answer(image: Image.Image, routing: str) -> np.ndarray:
        p = {}
        for scope, px in SIZES.items():
            n = len((TREE.subset(SUBTREES[scope]) if scope in SUBTREES else TREE).leaves)
            p[scope] = tiny_answers(np.asarray(image.convert("RGB").resize((px, px), Image.Resampling.BILINEAR))[None], n)[0]
        parts = {name: [TREE.class_of[leaf] for leaf in TREE.subset(below).leaves] for name, below in SUBTREES.items()}
        best = routed(p["general"], list(parts.values()))
        found = p["general"].copy()
        for k, (name, part) in enumerate(parts.items()):
            if routing == "soft" or k == best:
                found[part] = p["general"][part].sum() * p[name]
            if routing == "hard" and k == best:
                hand_over(found, p["general"], part, p[name])
        return found

    return answer


@pytest.mark.parametrize("routing", ["hard", "soft"])
def test_predict_takes_a_chain(family_of_three, chained, photo, tmp_path, capsys, routing):
    for k in range(6):
        (tmp_path / f"{k}.png").write_bytes(photo(k, file_format="PNG"))
    words = [
        "predict",
        str(family_of_three / f"{routing}.toml"),
        *(str(tmp_path / f"{k}.png") for k in range(6)),
        "--json",
        "--threads",
        "1",
    ]
    assert main(words) == 0
    for k, row in enumerate(json.loads(capsys.readouterr().out)):
        wanted = chained(Image.open(tmp_path / f"{k}.png"), routing)
        assert row["category_id"] == TREE.leaves[int(wanted.argmax())] and row["path"] == TREE.path_of[row["category_id"]]
        assert [top["probability"] for top in row["top"]] == pytest.approx(sorted(wanted, reverse=True)[:5], abs=2e-4)


@pytest.mark.parametrize("routing", ["hard", "soft"])
def test_evaluate_takes_a_chain(family_of_three, chained, tmp_path, capsys, routing):
    data, chain, out = family_of_three / "data", family_of_three / f"{routing}.toml", tmp_path / "out"
    assert main(["evaluate", str(chain), str(data), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"chain-{routing}-b0-32-general-fp32+electronics+animals on 84 test images" in printed
    assert "| pooled: 70 images, 5 categories" in printed and f"next: family predict {chain} IMAGE" in printed
    metrics, verticals = read_json(out / "metrics.json"), read_json(out / "verticals.json")
    written = pyarrow.parquet.read_table(out / "predictions.parquet").to_pylist()
    answers = [chained(Image.open(data / row["image"]), routing) for row in written]
    for row, p in zip(written, answers, strict=True):
        assert row["top_probabilities"] == pytest.approx(sorted(p, reverse=True)[:5], abs=2e-4)
        assert p[TREE.class_of[row["top_ids"][0]]] == pytest.approx(p.max(), abs=1e-9), "the best, or as good where the factor ends"
    right = [row["top_ids"][0] == row["true_id"] for row in written]
    assert metrics["top1"]["micro"] == pytest.approx(np.mean(right)) and 0 < np.mean(right) < 1
    assert verticals["all"]["ways"][routing]["top1"]["micro"]["share"] == metrics["top1"]["micro"]
    assert verticals["all"]["ways"][routing]["levels"]["2"]["summed"]["macro"]["share"] == metrics["levels"]["2"]["summed"]["macro"]
    assert (verticals["routing_of_chain"], set(verticals["members"])) == (routing, {"general", *SUBTREES})
    assert verticals["routing"]["verticals"]["animals"]["n"] == verticals["verticals"]["animals"]["n"] == 28
    before = (out / "verticals.json").stat().st_mtime_ns
    assert main(["evaluate", str(chain), str(data), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == metrics and (out / "verticals.json").stat().st_mtime_ns == before
    other = family_of_three / ("soft.toml" if routing == "hard" else "hard.toml")
    assert main(["evaluate", str(other), str(data), "--out", str(out)]) == 2


def test_a_batch_answers_as_its_rows_do_one_by_one(family_of_three, photo):
    chain = open_chain(family_of_three / "hard.toml")
    data = [photo(k) for k in range(9)]
    decoded = [decode_sizes(image, chain.hows) for image in data]
    batch = {how: np.stack([sizes[how] for sizes in decoded]) for how in chain.hows}
    assert chain.predict(batch) == pytest.approx(np.stack([chain.answer(image) for image in data]), abs=1e-6)


def test_settings_are_those_of_every_member_and_a_changed_file_is_refused(family_of_three, write_bundle, tmp_path):
    chain = open_chain(family_of_three / "hard.toml", "int8", "cpu", 1)
    assert {model.about["scheme"] for model in (chain.general, *chain.submodels.values())} == {"int8"}
    changes = {"scope": "animals", "subtrees": ["Animals"], "dataset": {"ontology_digest": TREE.digest}}
    write_bundle(tmp_path / "animals", TREE.subset(["Animals"]), 24, **changes)
    write_chain(tmp_path / "chain.toml", family_of_three / "general", {"animals": tmp_path / "animals"})
    with pytest.raises(UserError, match="unknown scheme of .*animals 'int8'"):
        open_chain(tmp_path / "chain.toml", "int8")
    card = read_json(tmp_path / "animals/card.json")
    write_json(tmp_path / "animals/card.json", {**card, "dataset": {"ontology_digest": "1" * 64}})
    assert main(["predict", str(tmp_path / "chain.toml"), "x.jpg"]) == 2
    (tmp_path / "animals/model.fp32.onnx").write_bytes(b"other")
    with pytest.raises(UserError, match="is not the file of the card"):
        open_chain(tmp_path / "chain.toml")


def test_a_chain_of_another_tree_than_the_dataset_is_refused(write_source, family_of_three, tmp_path, capsys):
    rows = [{"listing_id": str(k), "image": f"{k}.jpg", "category": "A" if k % 2 else "B", "split": "test"} for k in range(4)]
    import_dataset(write_source(tmp_path / "src", rows, ontology=[("A", "A"), ("B", "B")]), tmp_path / "data")
    assert len(open_dataset(tmp_path / "data").ontology.leaves) == 2
    assert main(["evaluate", str(family_of_three / "hard.toml"), str(tmp_path / "data"), "--out", str(tmp_path / "o")]) == 2
    assert "knows 6 classes" in capsys.readouterr().err and not (tmp_path / "o").exists()
