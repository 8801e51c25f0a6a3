"""Outputs are whole or not there, and are told apart by what they were made of."""

import json
import os
import subprocess
import sys

import pytest

from family.card import member_name, read_card, write_card
from family.errors import UserError
from family.outputs import MADE_OF, is_done, locked, move_aside, read_json, whole_file, whole_folder, write_json
from family.show import _candidates

CARD = {"schema": 1, "name": "x", "variant": "b0", "resolution_px": 64, "scope": "general", "classes": [], "paths": [],
        "preprocessing": {"resolution_px": 64, "aspect": "stretch", "filter": "bilinear"}}  # fmt: skip


def test_nothing_and_an_empty_folder_are_not_done(tmp_path):
    assert not is_done(tmp_path / "none", {})
    (tmp_path / "empty").mkdir()
    assert not is_done(tmp_path / "empty", {})
    with whole_folder(tmp_path / "empty", {"a": 1}) as folder:
        (folder / "x").touch()
        number = folder.stat().st_ino
    assert (tmp_path / "empty").stat().st_ino == number, "renamed at once, not copied bit by bit"
    assert is_done(tmp_path / "empty", {"a": 1})


def test_what_an_output_was_made_of_is_compared_as_json(tmp_path):
    with whole_folder(tmp_path / "o", {"a": (1, 2), "b": None}):
        pass
    assert is_done(tmp_path / "o", {"b": None, "a": [1, 2]})
    with pytest.raises(UserError, match=r"a was \[1, 2\], now \[1\]; c was None, now 3\. Choose another --out, or --fresh"):
        is_done(tmp_path / "o", {"a": [1], "b": None, "c": 3})


def test_what_others_made_is_never_touched(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/mine").touch()
    for name in ("file", "folder"):
        with pytest.raises(UserError, match="was not made by this command"):
            is_done(tmp_path / name, {})


def test_fresh_moves_aside_and_never_over_what_was_moved_before(tmp_path, capsys):
    for n in range(3):
        with whole_folder(tmp_path / "o", {"n": n}):
            pass
        assert not is_done(tmp_path / "o", {"n": n}, fresh=True)
    assert [read_json(tmp_path / f"o.old-{n + 1}" / MADE_OF)["n"] for n in range(3)] == [0, 1, 2]
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("moved the old") == 3
    (tmp_path / "f").write_text("x")
    assert move_aside(tmp_path / "f") == tmp_path / "f.old-1"


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "deep/o", {}) as folder:
        (folder / "half").touch()
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "deep/f") as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_failure_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "f", {"é": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "f", {"x": object()})
    assert read_json(tmp_path / "f") == {"é": 1} and os.listdir(tmp_path) == ["f"]


KILLED = """
import os, signal, sys
from pathlib import Path
from family.outputs import whole_folder
with whole_folder(Path(sys.argv[1]), {}) as folder:
    (folder / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_command_left_is_swept_by_the_next(tmp_path):
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "o")]).returncode == -9
    assert os.listdir(tmp_path) == [".o.partial"] and not is_done(tmp_path / "o", {})
    with whole_folder(tmp_path / "o", {}) as folder:
        assert os.listdir(folder) == [".lock"]
    assert os.listdir(tmp_path) == ["o"] and os.listdir(tmp_path / "o") == [MADE_OF]


def test_an_output_that_is_being_made_is_not_made_twice(tmp_path):
    with whole_folder(tmp_path / "o", {}) as folder:
        (folder / "ours").touch()
        with pytest.raises(UserError, match=f"^{tmp_path}/o is in use by process {os.getpid()} on "), whole_folder(tmp_path / "o", {}):
            raise AssertionError
    assert sorted(os.listdir(tmp_path / "o")) == [MADE_OF, "ours"]
    with pytest.raises(UserError, match="has been made meanwhile"), whole_folder(tmp_path / "o", {}):
        raise AssertionError
    assert os.listdir(tmp_path) == ["o"]


MANY = """
import sys
from pathlib import Path
from family.errors import UserError
from family.outputs import is_done, whole_folder
out, number = Path(sys.argv[1]), sys.argv[2]
sys.stdin.readline()
try:
    for _ in range(50):
        with whole_folder(out, {"number": number}) as folder:
            for k in range(20):
                (folder / f"{k}").write_text(number)
        if {path.read_text() for path in out.iterdir() if path.suffix == ""} != {number}:
            sys.exit("a mixture")
        print(number)
        is_done(out, {}, fresh=True)
except UserError as error:
    sys.exit(0 if "in use" in str(error) or "made meanwhile" in str(error) else str(error))
"""


def test_of_many_at_once_each_output_is_of_one(tmp_path):
    words = [sys.executable, "-c", MANY, str(tmp_path / "o")]
    processes = [
        subprocess.Popen([*words, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    made = sum(len(out.split()) for out, _ in said)
    kept = [path for path in tmp_path.iterdir() if path.name.startswith("o.old")]
    assert made == len(kept) > 0 and not list(tmp_path.glob(".o.partial*"))
    assert all(len({path.read_text() for path in folder.iterdir() if path.name != MADE_OF}) == 1 for folder in kept)


def test_a_lock_that_was_moved_away_with_its_folder_is_none(tmp_path):
    out = tmp_path / "o"
    with locked(out):
        move_aside(out)
        with locked(out):  # another folder, which nobody holds
            assert (out / ".lock").is_file()
    (tmp_path / "f").touch()
    with pytest.raises(UserError, match="f is a file"), locked(tmp_path / "f"):
        raise AssertionError


def test_json_that_is_none_is_the_users_error(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match="bad.json is not valid JSON"):
        read_json(tmp_path / "bad.json")
    with pytest.raises(UserError, match="none.json: No such file"):
        read_json(tmp_path / "none.json")


def test_member_names():
    card = {"variant": "v2-b0", "resolution_px": 224, "scope": "general", "label": ""}
    assert member_name(card, "int8") == "v2-b0-224-general-int8"
    assert member_name({**card, "label": "distilled"}) == "v2-b0-224-general-distilled"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "neither a finished run nor a bundle"),
        ("[]", "is no card"),
        ('{"schema": "1"}', "is no card"),
        (json.dumps({**CARD, "schema": 2}), "card schema 2; this version reads up to 1"),
        (json.dumps({k: v for k, v in CARD.items() if k not in ("classes", "scope")}), "lacks scope, classes"),
        (json.dumps({**CARD, "classes": ["a"]}), "lacks a path for each class"),
        (json.dumps({**CARD, "preprocessing": {}}), "lacks preprocessing.resolution_px"),
    ],
)
def test_a_card_that_is_none_is_told(tmp_path, text, told):
    if text is not None:
        (tmp_path / "card.json").write_text(text)
    with pytest.raises(UserError, match=told):
        read_card(tmp_path)


def test_a_card_travels_whole_with_fields_of_its_own(tmp_path):
    write_card(tmp_path, {**CARD, "mine": {"a": [1]}})
    assert read_card(tmp_path) == {**CARD, "mine": {"a": [1]}}


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", -1), ("temperature", "1"), ("temperature", True), ("activation", 3), ("compression", None), ("compression", {"ranges": {"a": [1, 2]}}),
     ("compression", {"ranges": {"a": [-1]}})],
)  # fmt: skip
def test_a_field_that_a_card_need_not_have_is_checked_where_it_has_it(tmp_path, field, value):
    write_card(tmp_path, {**CARD, field: value})
    with pytest.raises(UserError, match=field):
        read_card(tmp_path)


@pytest.mark.parametrize("text", ["", "a,b\n1\n", "a,b\n1,2,3\n"])
def test_a_crooked_table_of_candidates_is_refused(tmp_path, text):
    (tmp_path / "candidates.csv").write_text(text)
    with pytest.raises(UserError, match="is no table"):
        _candidates(tmp_path / "candidates.csv")
