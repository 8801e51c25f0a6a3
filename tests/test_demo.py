"""A demo of which one step fails still answers from the rest, and says what is missing."""

from family import cli
from family.plan import demo


def test_what_a_failed_member_leaves_is_picked_from_and_told(tmp_path, monkeypatch, capsys):
    out, ran = tmp_path / "demo", []

    def run_steps(steps):
        ran.append([step.words[0] for step in steps])
        if len(ran) > 1:
            return []
        (out / "results.jsonl").touch()
        (out / "report").mkdir()
        (out / "report" / "report.html").touch()
        return ["family export b0: exit code 1"]

    monkeypatch.setattr(demo, "run_steps", run_steps)
    assert cli.main(["demo", "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "not complete" in said and "family export b0: exit code 1" in said and str(out / "report" / "report.html") in said
    assert ran[1] == ["show", "pick", "pick"] and not (out / "finished.json").exists()
    monkeypatch.setattr(demo, "run_steps", lambda steps: [])
    assert cli.main(["demo", "--out", str(out)]) == 0 and (out / "finished.json").exists(), "the next one goes on"
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "report" / "report.html")
