"""Lines decoded for one question: what is kept is what the plain way keeps, and no line is taken that it refuses for what is looked at."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.candidates import needed_for
from benchmarks.decoding import decoder_for
from benchmarks.measurements import WHOLE, check_row, lean, read_rows
from benchmarks.pick import Wanted, _pick, pick
from family.cli import main
from family.errors import UserError

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results" / "caltech101-amd-epyc-2.jsonl"
ROWS = read_rows([RESULTS])
METRICS = ("top1.micro", "top1.macro", "top5.micro", "levels.2.summed.macro", "levels.1.micro", "thirds.tail.macro", "hierarchical.f1",
           "listings.levels.2.micro")  # fmt: skip
ODD = st.one_of(st.none(), st.booleans(), st.integers(-3, 10**16), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=4),
                st.sampled_from([[], {}, {"micro": 2}, {"name": 3}, [[1]]]))  # fmt: skip


def line_of(row: dict, is_lean: bool = True) -> bytes:
    return json.dumps(lean(row) if is_lean else row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def plainly(line: bytes, wanted: Wanted) -> dict | None:
    """Return what the plain way keeps of a line, without the line itself.

    Raises:
        UserError: it refuses the line.
    """
    row = json.loads(line)
    check_row(row, "here")
    return needed_for(wanted)(row, line)


@pytest.mark.parametrize("metric", METRICS)
def test_a_question_gets_the_same_answer_from_what_is_decoded_for_it(metric, tmp_path):
    wanted = Wanted(budget_ms=12.0, metric=metric)
    found = read_rows([RESULTS], needed_for(wanted), decoder_for(metric, "general"))
    lines = [line for line in RESULTS.read_bytes().splitlines(keepends=True) if line.strip()]
    assert all(decoder_for(metric, "general")(line) is not None for line in lines), "the plain way is for others' rows"
    try:
        assert _pick(found, wanted) == pick(ROWS, budget_ms=12.0, metric=metric)
    except UserError as error:
        with pytest.raises(type(error)) as plain:
            pick(ROWS, budget_ms=12.0, metric=metric)
        assert str(plain.value) == str(error)


def places(value: object, path: tuple = ()) -> list[tuple]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(place for key, part in inner for place in places(part, (*path, key)))]


def changed(row: dict, path: tuple, value: object, drop: bool) -> dict:
    row = json.loads(json.dumps(row))
    at = row
    for key in path[:-1]:
        at = at[key]
    if drop:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return row


@settings(max_examples=300)
@given(st.data())
def test_no_line_is_taken_that_the_plain_way_refuses_for_what_is_kept_and_that_is_the_same(data):
    row = data.draw(st.sampled_from(ROWS))
    path = data.draw(st.sampled_from(places(row)))
    row = changed(row, path, data.draw(ODD), data.draw(st.booleans()))
    wanted = Wanted(metric=data.draw(st.sampled_from(METRICS)))
    try:
        line = line_of(row, data.draw(st.booleans()))
    except (KeyError, TypeError, AttributeError, OverflowError):  # no row that `bench` writes
        line = line_of(row, False)
    found = decoder_for(wanted.metric, wanted.scope)(line)
    if found is None:
        return
    if found["scope"] != wanted.scope:
        assert found == {key: json.loads(line)[key] for key in ("schema", "kind", "scope")}
        return
    try:
        kept = plainly(line, wanted)
    except UserError:
        assert is_passed_over(path, wanted.metric)
        return
    for key, value in found.items():
        if key == WHOLE:
            assert value == line
        elif key == "metrics":
            asked = {name: kept["metrics"].get(name) for name in ("top1", wanted.metric.partition(".")[0])}
            assert covers(asked, {name: value.get(name) for name in asked})
        else:
            assert covers(kept.get(key), value)


def is_passed_over(path: tuple, metric: str) -> bool:
    """Say whether picking does not look at a field, so that what it holds is no reason to leave a line to the plain way."""
    if path[0] == "metrics" and len(path) > 1:
        return path[1] not in ("top1", "n_listings", metric.partition(".")[0])
    return path[0] in ("stages_ms", "size_mb") or path == ("latency_ms", "mean")


def covers(whole: object, part: object) -> bool:
    """Say whether a value holds another one: of an object, some fields, each of which it holds."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and covers(whole[key], value) for key, value in part.items())
    return whole == part


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line[:-20],
        lambda line: line.replace(b'"animals"', b'"\xff"'),
        lambda line: line.replace(b'"n":', b'"n":NaN,"m":'),
        lambda line: line[:-2] + b',"deep":' + b"[" * 10_000 + b"]" * 10_000 + b"}\n",
        lambda line: b"[" + line.strip() + b"]\n",
        lambda line: line.replace(b'"schema":2', b'"schema":99'),
    ],
)
def test_a_broken_line_is_left_to_what_names_it(spoil, tmp_path):
    for kind in ("accuracy", "latency"):
        row = next(row for row in ROWS if row["kind"] == kind and row["scope"] == "animals")
        path = tmp_path / f"{kind}.jsonl"
        for line, scope in ((line_of(row), "animals"), (line_of(row, False), "animals"), (line_of(row, False), "general")):
            path.write_bytes(line_of(ROWS[0]) + spoil(line))
            assert decoder_for("top1.micro", scope)(spoil(line)) is None
            with pytest.raises(UserError, match=r"(line 2|not UTF-8)"):
                read_rows([path], needed_for(Wanted(scope=scope)), decoder_for("top1.micro", scope))


@pytest.mark.parametrize("kind", ["accuracy", "latency"])
def test_a_line_that_begins_with_another_scope_is_not_looked_into_but_is_a_whole_line_of_a_known_schema(kind):
    decode = decoder_for("top1.micro", "general")
    line = line_of(next(row for row in ROWS if row["kind"] == kind and row["scope"] == "animals"))
    assert decode(line) == decode(line.rstrip()) == decode(line.replace(b'"n":', b'"n":nothing')) == {"schema": 2, "kind": kind, "scope": "animals"}
    for spoiled in (line[:-20], b"[" + line.strip() + b"]\n", line.replace(b'"schema":2', b'"schema":99'), line.replace(b'"animals"', b'"\xff"')):
        assert decode(spoiled) is None
    named = line.replace(b'"scope":"animals"', b'"scope":"a\\u0062"', 1)
    assert decode(named)["scope"] == "ab", "what is escaped is decoded"


def test_a_number_out_of_range_where_nobody_looks_is_no_traceback(tmp_path, capsys):
    path = tmp_path / "r.jsonl"
    path.write_bytes(RESULTS.read_bytes().replace(b'"trained"', b'"more": [1e999], "trained"'))
    assert main(["pick", str(path), "--budget-ms", "20"]) == 2
    assert "can't be read whole" in capsys.readouterr().err
