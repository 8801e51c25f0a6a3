"""The command line: what it loads, what it answers, and its exit codes."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from family import cli
from family.cli import COMMANDS, main
from family.errors import Failure, NothingFits, UserError, unknown_name
from family.progress import next_command

HEAVY = ("tensorflow", "tf_keras", "keras", "horovod", "onnx", "tf2onnx")
HELPS = """
import contextlib, io, json, sys
from family.cli import COMMANDS, main
found = {}
for name in sys.argv[1:]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main([*name.split(), "--help"])
    found[name] = [code, out.getvalue(), sorted({m.split(".")[0] for m in sys.modules} & set(%r))]
print(json.dumps(found))
"""


def built() -> list[str]:
    return [name for name, (module, _) in COMMANDS.items() if importlib.util.find_spec(module)]


def test_the_table_names_modules_that_exist():
    assert sorted(set(COMMANDS) - set(built())) == []


def test_help_loads_nothing_heavy(run_python):
    code = "import sys; from family.cli import main; code = main(['--help']); print(code, sorted(m.split('.')[0] for m in sys.modules))"
    done = run_python("-c", code)
    loaded = done.stdout.splitlines()[-1]
    assert loaded.startswith("0 ") and not re.search("'(numpy|PIL|pyarrow|tqdm|onnxruntime|tensorflow|horovod)'", loaded)
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_every_command_explains_itself_without_tensorflow(run_python):
    done = run_python("-c", HELPS % (HEAVY,), *built())
    assert done.returncode == 0, done.stderr
    for name, (code, text, heavy) in json.loads(done.stdout).items():
        assert code == 0 and heavy == [], name
        assert text.startswith(f"usage: family {name} ") and COMMANDS[name][1][:30] in text.replace("\n", " "), name
        assert "--debug" in text


def test_no_words_and_help_are_the_same(capsys):
    assert main([]) == 0
    first = capsys.readouterr()
    assert main(["--help"]) == 0 and capsys.readouterr() == first and first.err == ""
    assert "0 done, 1 failed, 2 bad arguments or input, 3 nothing fits" in first.out


def test_a_group_of_commands_explains_itself(capsys):
    for words in (["data", "--help"], ["data", "-h"]):
        assert main(words) == 0
        captured = capsys.readouterr()
        assert "family data import" in captured.out and captured.err == ""
    assert main(["data"]) == 2
    assert "family data import" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trian"], "no command 'trian'. Did you mean 'train'? Allowed: "),
        (["data", "imprt"], "no command 'data imprt'. Did you mean 'data import'?"),
        (["zzz"], "no command 'zzz'. Allowed: bench, compress, data,"),
        (["pick", "r.jsonl", "--budgt-ms", "3"], "unrecognized arguments: --budgt-ms 3 Did you mean '--budget-ms'?"),
        (["pick", "r.jsonl", "--budget", "3"], "Did you mean '--budget-ms'?"),
        (["pick"], "RESULTS.jsonl"),
        (["pick", "r.jsonl", "--budget-ms", "soon"], "invalid float value: 'soon'"),
        (["pick", "r.jsonl", "--percentile", "98"], "choose from"),
        (["pick", "none.jsonl"], "none.jsonl: No such file"),
        (["pick", "none.jsonl", "--budget-ms", "0"], "above 0, up to 1,000,000,000; got 0"),
        (["pick", "none.jsonl", "--min-accuracy", "72"], "from 0 to 1; got 72"),
    ],
)
def test_what_is_misspelt_or_wrong_is_exit_2_in_a_few_lines(words, told, capsys):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert told in captured.err and captured.out == ""
    assert captured.err.count("\n") <= 2 and "Traceback" not in captured.err


class Broken:
    """A command that fails as told."""

    def __init__(self, error):
        self.error = error

    def arguments(self, parser):
        parser.add_argument("--x")

    def run(self, args):
        if self.error:
            raise self.error


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (None, 0, ""),
        (UserError("bad word"), 2, "family list: bad word\n"),
        (Failure("broke"), 1, "family list: broke\n"),
        (NothingFits("too slow"), 3, "family list: too slow\n"),
        (OSError(28, "No space left on device"), 1, "family list: OSError: [Errno 28] No space left on device (--debug shows where)\n"),
        (KeyboardInterrupt(), 130, "family list: interrupted\n"),
    ],
)
def test_exit_codes(error, code, told, capsys, monkeypatch):
    monkeypatch.setattr(cli.importlib, "import_module", lambda _: Broken(error))
    assert main(["list"]) == code
    assert capsys.readouterr().err == told
    if isinstance(error, Exception):
        with pytest.raises(type(error)):
            main(["list", "--debug"])


def test_debug_shows_where(run_python):
    words = ["-m", "family.cli", "pick", "none.jsonl"]
    quiet, loud = run_python(*words), run_python(*words, "--debug")
    assert quiet.returncode == 2 and "Traceback" not in quiet.stderr
    assert "Traceback" in loud.stderr and "UserError" in loud.stderr


def test_what_comes_next_is_ready_to_paste():
    words = ["evaluate", Path("my runs/b0's"), "$HOME", "--out", "a;b", "--budget-ms", 20]
    line = next_command(*words)
    assert line.startswith("next: family evaluate 'my runs/")
    split = subprocess.run(["bash", "-c", f"printf '%s\\0' {line.removeprefix('next: ')}"], capture_output=True, text=True).stdout.split(
        "\0"
    )
    assert split[:-1] == ["family", *map(str, words)] == shlex.split(line)[1:]
    root = Path(cli.__file__).parent.parent
    sources = [path for package in ("family", "export", "benchmarks") for path in (root / package).rglob("*.py")]
    assert [path.name for path in sources if "next: " in path.read_text(encoding="utf-8")] == ["progress.py"], "there is one way to say it"


def test_a_dataset_behind_carry_head_is_told(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    words = ["train", "--out", str(tmp_path / "run"), "--weights", "old", "--carry-head", str(tmp_path / "data")]
    assert main(words) == 2
    assert (
        f"'{tmp_path}/data' is no file; the word behind --carry-head is taken for MAPPING.csv, so write DATASET before it"
        in capsys.readouterr().err
    )
    assert main([*words[:-1], str(tmp_path / "mapping.csv"), "data"]) == 2
    assert "mapping.csv' is no file" in capsys.readouterr().err
    assert main(["train", "data", *words[1:-1]]) == 2
    assert "data is no dataset" in capsys.readouterr().err


def test_a_reader_that_leaves_early_costs_no_traceback(tmp_path):
    script = f"{sys.executable} -m family.cli pick {tmp_path}/none.jsonl --help | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def test_unknown_names_get_the_nearest_one():
    assert str(unknown_name("split", "tran", ["train", "val"])) == "unknown split 'tran'. Did you mean 'train'? Allowed: train, val"
    assert str(unknown_name("n", "qq", [f"a{k:02}" for k in range(25)])).endswith("a19 and 5 more")
