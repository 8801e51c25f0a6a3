"""The command line: a table of commands that names modules as strings and imports one only when it is asked for."""

import argparse
import difflib
import importlib
import sys

# command: (module, what it does). A module gives `arguments(parser)` and `run(args) -> exit code or None`, and where
# its output tells what it was made of, `done(args) -> bool`.
COMMANDS = {
    "demo": ("family.plan.demo", "everything, on made-up listings, in minutes"),
    "data synth": ("family.data.synth", "write a dataset of made-up listings"),
    "data import": ("family.data.importing", "make a dataset of a listing table with images, or of folders of images"),
    "train": ("family.training.command", "train one member"),
    "compress": ("family.compression.command", "make a run smaller: quantization-aware training, pruning, clustering"),
    "evaluate": ("export.evaluate", "accuracy at every level of the tree, on the rows of a split"),
    "export": ("export.command", "turn a run into a bundle of ONNX files, checked against the run"),
    "verify": ("export.verifying", "recompute what a bundle's card claims"),
    "bench": ("benchmarks.bench", "latency, throughput and accuracy of bundles on this machine"),
    "bench train": ("benchmarks.training.command", "images/s of a training step against plain Keras `fit` and peers, in turns"),
    "bench scaling": ("benchmarks.scaling.command", "images/s of several ranks against as many independent trainers, in turns"),
    "submit": ("slurm.submit", "run one of our command lines on a SLURM cluster"),
    "bench fabric": ("benchmarks.scaling.fabric", "latency and bandwidth of sums between ranks, for `forecast`"),
    "forecast": ("benchmarks.scaling.forecast", "time to train and efficiency on a cluster"),
    "report": ("benchmarks.report", "an HTML and Markdown report of results, with pictures"),
    "pick": ("benchmarks.pick", "the member that fits a latency budget"),
    "predict": ("export.predict", "file images under the tree"),
    "produce": ("family.plan.produce", "the whole family: train, evaluate, export, bench, report"),
    "list": ("family.zoo", "variants, recipes, scopes, schemes, clusters that there are, with sizes"),
    "show": ("family.show", "the card of a run, a bundle, a dataset or results, readably"),
    "doctor": ("family.doctor", "versions, providers, CPU features, Horovod, GPUs: what would fail"),
}
EPILOG = "`family COMMAND --help` tells more. Exit codes: 0 done, 1 failed, 2 bad arguments or input, 3 nothing fits."


class Parser(argparse.ArgumentParser):
    """An argument parser that answers a misspelt option with the nearest one."""

    def error(self, message: str):
        known = [option for action in self._actions for option in action.option_strings]
        got = [word for word in message.replace("=", " ").split() if word.startswith("--")]
        if "unrecognized" in message and got:
            message += _did_you_mean(got[0], known)
        self.exit(2, f"{self.prog}: {message}\nSee `{self.prog} --help`.\n")


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(_help())
        return 0
    if argv[0] not in COMMANDS and _group(argv[0]) and argv[1:] in (["-h"], ["--help"]):
        print(_table(_group(argv[0])))
        return 0
    name, rest = _find_command(argv)
    if name is None:
        print(rest, file=sys.stderr)
        return 2
    debug = "--debug" in rest
    try:
        return _run(name, rest)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        print(f"family {name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except ModuleNotFoundError as error:
        if debug or not error.name or error.name.split(".")[0] in ("family", "distributed", "export", "benchmarks", "slurm"):
            raise
        print(
            f"family {name}: {error.name} is not installed; `make setup` installs everything, pip install '.[serve]' what predicting needs",
            file=sys.stderr,
        )
        return 2
    except Exception as error:
        if debug:
            raise
        code = getattr(error, "exit_code", 1)
        what = str(error) if hasattr(error, "exit_code") else f"{type(error).__name__}: {error} (--debug shows where)"
        print(f"family {name}: {what}", file=sys.stderr)
        return code


def _run(name: str, rest: list[str]) -> int:
    module = importlib.import_module(COMMANDS[name][0])
    return module.run(_parse(name, module, rest)) or 0


def _parse(name: str, module, rest: list[str]) -> argparse.Namespace:
    parser = Parser(prog=f"family {name}", description=COMMANDS[name][1], allow_abbrev=False)
    module.arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(rest)


def is_done(argv: list[str]) -> bool:
    """Say whether a command line's output is there already and made of the same; False for a command that can't tell without working.

    A module tells by `done(args)`, which loads no TensorFlow. Errors are those of the command.
    """
    name, rest = _find_command(argv)
    if name is None:
        return False
    module = importlib.import_module(COMMANDS[name][0])
    return hasattr(module, "done") and module.done(_parse(name, module, rest))


def _find_command(argv: list[str]) -> tuple[str | None, list[str] | str]:
    """Split argv into a command's name, of one word or two, and the rest; or None and the error."""
    two = " ".join(argv[:2])
    if two in COMMANDS:
        return two, argv[2:]
    if argv[0] in COMMANDS:
        return argv[0], argv[1:]
    group = _group(argv[0])
    if group:
        if len(argv) == 1:
            return None, _table(group)
        hint = _did_you_mean(two, group)
        return None, f"family: no command {two!r}.{hint} Allowed: {', '.join(group)}"
    first_words = sorted({name.split()[0] for name in COMMANDS})
    hint = _did_you_mean(argv[0], first_words)
    return None, f"family: no command {argv[0]!r}.{hint} Allowed: {', '.join(first_words)}"


def _group(word: str) -> list[str]:
    """Return the commands of two words that start with one."""
    return [name for name in COMMANDS if name.startswith(f"{word} ")]


def _table(names: list[str]) -> str:
    return "\n".join(f"  family {name:13} {COMMANDS[name][1]}" for name in names)


def _did_you_mean(got: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(got, allowed, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _help() -> str:
    lines = ["usage: family COMMAND ...", "", "The model family for classified listings.", ""]
    lines += [f"  {name:13} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join([*lines, "", EPILOG])


if __name__ == "__main__":
    sys.exit(main())
