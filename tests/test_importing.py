"""`family data import`: what a user brings becomes a dataset, and what can't be used is told row by row."""

import collections
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from family.cli import main
from family.data.dataset import open_dataset
from family.data.importing import import_dataset
from family.data.sources import read_source
from family.errors import UserError


def rows_of(n: int, leaves=("laptop", "phone", "cat"), **more) -> list[dict]:
    return [{"listing_id": f"{k:03}", "image": f"i/{k}.jpg", "category": leaves[k % len(leaves)], **more} for k in range(n)]


def read_table(path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def splits_of(folder) -> dict[str, str]:
    table = open_dataset(folder).table
    return dict(zip(table["listing_id"].to_pylist(), table["split"].to_pylist(), strict=True))


def sides_of(groups, splits) -> dict:
    sides = collections.defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        sides[group].add(split)
    return sides


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_listing_table_becomes_a_dataset(tmp_path, write_source, kind):
    rows = rows_of(20, price="12,5", title='a "nice"\nthing', **{"attr:colour": "rot"})
    src = write_source(tmp_path / "src", rows)
    if kind == "parquet":
        (src / "listings.csv").unlink()
        pa.parquet.write_table(pa.Table.from_pylist([{**row, "price": 12.5} for row in rows]), src / "listings.parquet")
    import_dataset(src, tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    found = dataset.table.to_pylist()
    assert [row["listing_id"] for row in found] == [f"{k:03}" for k in range(20)]
    assert [(row["category"], row["source_image"]) for row in found] == [(row["category"], row["image"]) for row in rows]
    assert {(row["title"], row["attr:colour"]) for row in found} == {('a "nice"\nthing', "rot")}
    assert {row["price"] for row in found} == {12.5 if kind == "parquet" else "12,5"}
    for row, own in zip(found, rows, strict=True):
        assert (tmp_path / "out" / row["image"]).read_bytes() == (src / own["image"]).read_bytes()
    assert dataset.about["counts"] | {"images": 20, "listings": 20, "categories": 6} == dataset.about["counts"]
    assert sum(len(dataset.rows(split)) for split in ("train", "val", "test")) == 20


def test_ids_in_every_column_stay_text(tmp_path, write_source):
    rows = [{"listing_id": f"00{k}", "image": f"{k}.jpg", "category": c, "price": "007"} for k, c in enumerate(["007", "08"])]
    src = write_source(tmp_path / "src", rows, ontology=[("007", "A/B"), ("08", "A/C")])
    import_dataset(src, tmp_path / "out")
    found = open_dataset(tmp_path / "out").table.to_pylist()
    assert [(row["listing_id"], row["category"], row["price"]) for row in found] == [("000", "007", "007"), ("001", "08", "007")]


def test_numbers_and_categoricals_of_a_parquet_file_become_ids(tmp_path, write_source):
    src = write_source(tmp_path / "src", rows_of(2), ontology=[("7", "A"), ("8", "B")])
    (src / "listings.csv").unlink()
    table = {"listing_id": pa.array([1, 2]), "image": ["i/0.jpg", "i/1.jpg"], "category": pa.array([7, 8]).dictionary_encode()}
    pa.parquet.write_table(pa.table(table), src / "listings.parquet")
    import_dataset(src, tmp_path / "out")
    found = open_dataset(tmp_path / "out").table
    assert (found["listing_id"].to_pylist(), found["category"].to_pylist()) == (["1", "2"], ["7", "8"])


def test_a_category_is_an_id_or_a_path(tmp_path, write_source):
    rows = rows_of(3, ("laptop", "Electronics/Computers/Laptops", " Electronics / Computers/Laptops"))
    import_dataset(write_source(tmp_path / "src", rows), tmp_path / "out")
    assert set(open_dataset(tmp_path / "out").table["category"].to_pylist()) == {"laptop"}


def test_without_an_ontology_the_paths_are_the_tree(tmp_path, write_source):
    rows = rows_of(40, ("A/B", "A / B", "C", "C"))
    rows[3]["category"] = "C//D"
    src = write_source(tmp_path / "src", rows, ontology=None)
    import_dataset(src, tmp_path / "out", max_bad=0.05)
    assert open_dataset(tmp_path / "out").ontology.leaves == ("A/B", "C")
    assert [row["problem"] for row in read_table(tmp_path / "out/problems.csv")] == ["unknown category 'C//D'"]


def test_folders_are_categories(tmp_path, photo):
    src = tmp_path / "photos"
    for k, name in enumerate(["A/B/one.jpg", "A/B/two.PNG", "C/one.jpeg", "C/._one.jpeg", ".trash/x.jpg", "C/notes.txt", "top.jpg"]):
        (src / name).parent.mkdir(parents=True, exist_ok=True)
        (src / name).write_bytes(b"junk" if name.endswith(("/._one.jpeg", ".txt")) else photo(k))
    import_dataset(src, tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert dataset.ontology.leaves == ("A/B", "C")
    assert sorted(dataset.table["listing_id"].to_pylist()) == ["A/B/one", "A/B/two", "C/one"]
    assert dataset.about["counts"]["skipped_rows"] == 0


def test_an_out_among_the_photos_is_refused(tmp_path, photo):
    (tmp_path / "A").mkdir()
    (tmp_path / "A/1.jpg").write_bytes(photo(1))
    with pytest.raises(UserError, match="outside of it"):
        import_dataset(tmp_path, tmp_path / "dataset")


def bomb() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (1, 1)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = (60_000).to_bytes(4) * 2  # of the header: a size of 3.6 gigapixels
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    return bytes(data)


@pytest.fixture
def hostile(tmp_path, write_source, photo):
    """A table of 40 good rows and one of each kind of bad row: (source, {row: what is told})."""
    rows = rows_of(40, split="")
    (tmp_path / "secret.jpg").write_bytes(photo(99))
    cases = {
        "bad.jpg": (b"not an image", {}, "no image"),
        "half.jpg": (photo(98, (300, 300))[:2000], {}, "truncated"),
        "empty.jpg": (b"", {}, "no image"),
        "bomb.png": (bomb(), {}, "megapixels"),
        "category.jpg": (photo(97), {"category": "toaster"}, "unknown category 'toaster'"),
        "none.jpg": (photo(91), {"category": ""}, "unknown category ''"),
        "inner.jpg": (photo(96), {"category": "Electronics/Computers"}, "is no leaf"),
        "i/0.jpg": (photo(0), {"listing_id": "000"}, "the same image of the same listing as row 1"),
        "missing.jpg": (None, {}, "missing file"),
        "../secret.jpg": (None, {}, "outside"),
        "link.jpg": (None, {}, "outside"),
        "loop.jpg": (None, {}, "loop"),
        str(tmp_path / "secret.jpg"): (None, {}, "outside"),
        "split.jpg": (photo(95), {"split": "training"}, "unknown split 'training'"),
        "id.jpg": (photo(94), {"listing_id": ""}, "listing_id is empty"),
        "": (None, {}, "missing file"),
        "two.jpg": (photo(93), {"listing_id": "001", "category": "dog"}, "'001' has another category"),
    }
    told = {}
    for name, (_, changes, text) in cases.items():
        rows.append({"listing_id": f"bad {name}", "image": name, "category": "laptop", "split": "", **changes})
        told[len(rows)] = text
    src = write_source(tmp_path / "src", rows, images={name: data for name, (data, _, _) in cases.items()})
    (src / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (src / "loop.jpg").symlink_to(src / "loop.jpg")
    return src, told


def test_every_kind_of_problem_is_told_with_its_row(tmp_path, hostile, capsys):
    src, told = hostile
    import_dataset(src, tmp_path / "out", max_bad=0.5)
    found = {int(row["row"]): row["problem"] for row in read_table(tmp_path / "out/problems.csv")}
    assert found.keys() == told.keys()
    assert {row: told[row] for row in told if told[row] not in found[row]} == {}
    assert "17 of 57 rows can't be used" in capsys.readouterr().out
    assert len(open_dataset(tmp_path / "out").table) == 40


def test_too_many_problems_are_refused_and_leave_nothing(tmp_path, hostile):
    src, _ = hostile
    with pytest.raises(UserError, match=r"17 of 57 rows can't be used \(row 41: .*--max-bad"):
        import_dataset(src, tmp_path / "out", max_bad=0.29)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.jpg", "src"]


def test_a_file_name_that_no_disk_takes_is_a_problem_of_its_row(tmp_path, write_source, photo):
    rows = rows_of(3)
    rows[1]["image"] = "x" * 300
    rows[2]["image"] = f"x.{'y' * 240}"
    src = write_source(tmp_path / "src", rows, images={rows[1]["image"]: None})
    import_dataset(src, tmp_path / "out", max_bad=0.5)
    assert [row["row"] for row in read_table(tmp_path / "out/problems.csv")] == ["2"]


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda src: (src / "listings.csv").write_text("listing_id,image\n1,2\n"), "no column category"),
        (lambda src: (src / "listings.csv").write_text("listing_id,image,category\n"), "has no rows"),
        (lambda src: (src / "listings.csv").write_text(""), "listings.csv"),
        (lambda src: (src / "listings.csv").write_text("listing_id,image,category,n,n\n1,2,3,4,5\n"), "the column n stands there twice"),
        (lambda src: (src / "listings.csv").write_bytes(b"listing_id,image,category\n1,\xe9,3\n"), "utf-8"),
        (lambda src: (src / "listings.csv").write_text("listing_id,image,category\n1,2\n"), "listings.csv"),
        (lambda src: (src / "listings.parquet").write_bytes(b""), "both"),
        (lambda src: (src / "ontology.csv").write_text("category_id,path\n"), "no category"),
        (lambda src: [path.unlink() for path in src.glob("*.csv")] + [(src / "listings.parquet").write_bytes(b"junk")], "listings.parquet"),
    ],
)
def test_a_table_that_is_none_is_told(tmp_path, write_source, break_it, told):
    src = write_source(tmp_path / "src", rows_of(2))
    break_it(src)
    with pytest.raises(UserError, match=told):
        import_dataset(src, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_photos_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "none"):
        with pytest.raises(UserError, match="listings.csv"):
            read_source(tmp_path / name)


def test_killed_in_the_middle_it_leaves_nothing_and_starts_again(tmp_path, write_source, photo):
    src = write_source(tmp_path / "src", rows_of(30))
    out, pipe = tmp_path / "out", src / "i/29.jpg"
    data = pipe.read_bytes()
    pipe.unlink()
    pipe.write_bytes(photo(29, (9000, 9000)))  # long enough to be met in the middle
    child = subprocess.Popen([sys.executable, "-m", "family.cli", "data", "import", str(src), str(out)], stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob(".out.partial/images/*/*")):
        assert child.poll() is None
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not out.exists()
    pipe.write_bytes(data)
    import_dataset(src, out)
    assert len(open_dataset(out).table) == 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "src"]


def test_a_failure_in_the_middle_leaves_nothing(tmp_path, write_source, monkeypatch):
    from family.data import importing

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(importing, "describe", fail)
    with pytest.raises(OSError, match="the disk is full"):
        import_dataset(write_source(tmp_path / "src", rows_of(3)), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def test_the_second_import_has_nothing_to_do(tmp_path, write_source, capsys):
    src, out = write_source(tmp_path / "src", rows_of(5)), tmp_path / "out"
    import_dataset(src, out)
    before = (out / "dataset.json").stat().st_mtime_ns
    capsys.readouterr()
    import_dataset(src, out)
    assert "already done" in capsys.readouterr().out and (out / "dataset.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("change", ["table", "image", "seed", "tree"])
def test_a_changed_source_is_told_by_what_differs(tmp_path, write_source, photo, change, capsys):
    src, out = write_source(tmp_path / "src", rows_of(5)), tmp_path / "out"
    import_dataset(src, out)
    if change == "table":
        (src / "listings.csv").write_text((src / "listings.csv").read_text().replace("phone", "cat"))
    elif change == "image":
        (src / "i/3.jpg").write_bytes(photo(77))
    elif change == "tree":
        (src / "ontology.csv").write_text((src / "ontology.csv").read_text() + "new,New\n")
    with pytest.raises(UserError, match=f"made of something else: {'table' if change == 'image' else change} was .*--fresh"):
        import_dataset(src, out, seed=int(change == "seed"))
    import_dataset(src, out, seed=int(change == "seed"), fresh=True)
    assert open_dataset(out) and open_dataset(tmp_path / "out.old-1")


def test_an_out_that_was_not_made_by_an_import_is_left_alone(tmp_path, write_source):
    src = write_source(tmp_path / "src", rows_of(2))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("all of it")
    with pytest.raises(UserError, match="was not made by this command"):
        import_dataset(src, tmp_path / "out")
    assert (tmp_path / "out/thesis.txt").read_text() == "all of it"


def recode(data: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).resize((100, 75)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_given_split_is_kept_and_its_leaks_are_told(tmp_path, write_source, photo, capsys):
    rows = rows_of(12, split="train")
    rows[1]["split"], rows[2]["split"], rows[5]["split"] = "test", "val", ""
    rows[11]["image"] = "again.png"
    images = {"i/1.jpg": photo(1, (320, 240)), "again.png": recode(photo(1, (320, 240)))}
    import_dataset(write_source(tmp_path / "src", rows, images=images), tmp_path / "out")
    found = splits_of(tmp_path / "out")
    assert {k: s for k, s in found.items() if k != "005"} == {row["listing_id"]: row["split"] for row in rows if row["split"]}
    leaks = read_table(tmp_path / "out/leaks.csv")
    assert [(row["listing_id"], row["split"]) for row in leaks] == [("001", "test"), ("011", "train")]
    assert "1 groups of look-alike images" in capsys.readouterr().out


def test_a_listing_without_a_split_follows_its_lookalike(tmp_path, write_source, photo):
    rows = rows_of(8, ("cat",), split="")
    for k in range(4):  # the first four have a split, the others are their copies
        rows[k]["split"] = ("train", "val", "test", "test")[k]
    images = {f"i/{k + 4}.jpg": recode(photo(k, (320, 240))) for k in range(4)} | {f"i/{k}.jpg": photo(k, (320, 240)) for k in range(4)}
    import_dataset(write_source(tmp_path / "src", rows, images=images), tmp_path / "out")
    assert list(splits_of(tmp_path / "out").values()) == ["train", "val", "test", "test"] * 2
    assert read_table(tmp_path / "out/leaks.csv") == []


def test_a_category_whose_other_listings_were_given_away_trains(tmp_path, write_source):
    for seed in range(4):
        rows = rows_of(2, ("cat",), split="")
        rows[0]["split"] = "test"
        src = write_source(tmp_path / f"src{seed}", rows, ontology=[("cat", "Cats")])
        import_dataset(src, tmp_path / f"out{seed}", seed=seed)
        assert splits_of(tmp_path / f"out{seed}") == {"000": "test", "001": "train"}


def test_a_drawn_split_keeps_listings_and_lookalikes_together_and_trains_every_category(tmp_path, write_source, photo):
    leaves = ("laptop", "tower", "phone", "cat", "dog", "art")
    rows, images = [], {}
    for k in range(60):  # listings of one to three photos; the photos 50 to 59 are copies of 0 to 9
        data = recode(photo(k - 50, (320, 240))) if k >= 50 else photo(k, (320, 240))
        rows.append({"listing_id": f"{k // 2}", "image": f"{k}.jpg", "category": leaves[k // 2 % 6]})
        images[f"{k}.jpg"] = data
    src = write_source(tmp_path / "src", rows, images=images)
    import_dataset(src, tmp_path / "out")
    found = open_dataset(tmp_path / "out").table.to_pylist()
    split = {row["source_image"]: row["split"] for row in found}
    assert all(len(s) == 1 for s in sides_of([row["listing_id"] for row in found], split.values()).values())
    assert all(split[f"{k}.jpg"] == split[f"{k - 50}.jpg"] for k in range(50, 60))
    assert {row["category"] for row in found if row["split"] == "train"} == set(leaves)
    assert set(split.values()) == {"train", "val", "test"} and read_table(tmp_path / "out/leaks.csv") == []


def test_the_split_is_of_the_seed_and_not_of_the_order_of_rows(tmp_path, write_source, photo):
    rows = rows_of(40)
    images = {row["image"]: photo(k) for k, row in enumerate(rows)}
    order = np.random.default_rng(0).permutation(40)
    import_dataset(write_source(tmp_path / "a", rows, images=images), tmp_path / "out-a")
    import_dataset(write_source(tmp_path / "b", [rows[k] for k in order], images=images), tmp_path / "out-b")
    import_dataset(tmp_path / "b", tmp_path / "out-c", seed=1)
    assert splits_of(tmp_path / "out-a") == splits_of(tmp_path / "out-b") != splits_of(tmp_path / "out-c")
    digests = [open_dataset(tmp_path / f"out-{k}").digest for k in "abc"]
    assert len(set(digests)) == 3  # the digest is of the rows as they stand


def test_a_dataset_can_be_imported_again(tmp_path, write_source):
    import_dataset(write_source(tmp_path / "src", rows_of(9)), tmp_path / "out")
    import_dataset(tmp_path / "out", tmp_path / "again")
    assert open_dataset(tmp_path / "again").table.equals(open_dataset(tmp_path / "out").table)


def test_rows_of_a_split_hold_listings_together(tmp_path, write_source):
    rows = [{"listing_id": str(k % 7), "image": f"{k}.jpg", "category": ("cat", "phone")[k % 7 % 2], "split": "test"} for k in range(21)]
    import_dataset(write_source(tmp_path / "src", rows), tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    found = dataset.rows("test")
    assert found.listing_ids.tolist() == sorted(str(k % 7) for k in range(21))
    assert [found.ontology.leaves[label] for label in found.labels] == [("cat", "phone")[int(i) % 2] for i in found.listing_ids]
    animals = dataset.rows("test", "animals")
    assert set(animals.listing_ids) == {"0", "2", "4", "6"} and animals.ontology.leaves == ("cat", "dog")
    with pytest.raises(UserError, match="Did you mean 'test'"):
        dataset.rows("tset")
    with pytest.raises(UserError, match="no train rows"):
        dataset.rows("train")


def test_a_dataset_that_was_changed_or_is_newer_is_refused(tmp_path, write_source):
    import_dataset(write_source(tmp_path / "src", rows_of(3)), tmp_path / "out")
    about = json.loads((tmp_path / "out/dataset.json").read_text())
    tree = (tmp_path / "out/ontology.csv").read_text()
    (tmp_path / "out/ontology.csv").write_text(tree.replace("Cats", "Kittens"))
    with pytest.raises(UserError, match="changed after the import"):
        open_dataset(tmp_path / "out")
    (tmp_path / "out/ontology.csv").write_text(tree)
    (tmp_path / "out/dataset.json").write_text(json.dumps({**about, "schema": 2}))
    with pytest.raises(UserError, match="schema 2; this version reads up to 1"):
        open_dataset(tmp_path / "out")
    with pytest.raises(UserError, match="no dataset"):
        open_dataset(tmp_path / "src")


PEAK = """
import sys
from pathlib import Path
from family.data.importing import import_dataset
from family.machine import peak_memory_mb
import_dataset(Path(sys.argv[1]), Path(sys.argv[2]))
print(peak_memory_mb())
"""


def test_memory_does_not_grow_with_the_images(tmp_path, write_source, photo, run_python):
    peaks_mb = []
    data = [photo(k, (512, 512)) for k in range(20)]  # 0.8 MB each once decoded
    for n in (100, 1000):
        src = write_source(tmp_path / f"src{n}", rows_of(n), images={f"i/{k}.jpg": data[k % 20] for k in range(n)})
        done = run_python("-c", PEAK, str(src), str(tmp_path / f"out{n}"))
        assert done.returncode == 0, done.stderr
        peaks_mb.append(float(done.stdout.split()[-1]))
    assert peaks_mb[1] < peaks_mb[0] + 60, "900 images more are 700 MB of pixels"


def test_synth_is_a_function_of_its_seed(tmp_path, run_python):
    words = ["-m", "family.cli", "data", "synth", "--listings", "30", "--categories", "12"]
    for name in "ab":
        assert run_python(*words, str(tmp_path / name)).returncode == 0
    a, b = (open_dataset(tmp_path / name) for name in "ab")
    assert a.digest == b.digest and a.about["counts"]["listings"] == 30
    again = run_python(*words, str(tmp_path / "a"))
    assert again.returncode == 0 and "already done" in again.stdout
    other = run_python(*words, str(tmp_path / "a"), "--seed", "1")
    assert other.returncode == 2 and "seed was 0, now 1" in other.stderr
    assert not [path for path in os.listdir(tmp_path) if path.startswith(".")]


def test_listings_of_an_earlier_dataset_stay_on_their_side(tmp_path, write_source, capsys):
    rows = [{"listing_id": f"l{k}", "image": f"{k}.jpg", "category": ("cat", "dog", "art")[k % 3]} for k in range(60)]
    import_dataset(write_source(tmp_path / "old", rows[:21]), tmp_path / "first")
    source = write_source(tmp_path / "new", rows)
    sides = {}
    for name, words in (("anew", []), ("kept", ["--splits-of", str(tmp_path / "first")])):
        assert main(["data", "import", str(source), str(tmp_path / name), *words]) == 0
        table = open_dataset(tmp_path / name).table
        sides[name] = dict(zip(table["listing_id"].to_pylist(), table["split"].to_pylist(), strict=True))
    assert "21 of 60 listings stand in" in capsys.readouterr().out
    first = open_dataset(tmp_path / "first").table
    old = dict(zip(first["listing_id"].to_pylist(), first["split"].to_pylist(), strict=True))
    assert {i: sides["kept"][i] for i in old} == old and {i: sides["anew"][i] for i in old} != old
    assert set(sides["kept"].values()) == {"train", "val", "test"}
    assert main(["data", "import", str(source), str(tmp_path / "kept")]) == 2  # made of the earlier splits, and now of none
