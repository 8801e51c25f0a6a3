"""Run our own command lines: those of a stage in one process (or two), so that TensorFlow starts once; dependents of a failure are skipped."""

import contextlib
import io
import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from distributed.signals import handling
from family.errors import ComeBack, Ended

# Exporting is Python of one thread for most of its time (converting, optimizing and quantizing graphs): two at once take half of it.
AT_ONCE = {"export": 2}
_EXIT_CODE = "exit code"
_children: list[subprocess.Popen] = []


@dataclass(frozen=True)
class Step:
    """One command line and the files that it needs."""

    words: tuple[str, ...]
    needs: tuple[Path, ...] = ()  # files without which it is skipped
    uses: dict[str, Path] | None = None  # words that are left out where their file is missing; one at least must be there
    alone: bool = False  # in a process of its own, as a launcher of ranks is

    @property
    def stage(self) -> str:
        return self.words[0]

    def __str__(self) -> str:
        return f"family {shlex.join(self.words)}"


def run_steps(steps: list[Step]) -> list[str]:
    """Run all steps and return those that failed or were skipped, one line each."""
    with handling(_forward):
        return _run_groups(steps)


def _forward(number: int, frame) -> None:
    alive = [child for child in _children if child.poll() is None]
    for child in alive:
        child.send_signal(number)
    if not alive:
        raise (ComeBack if number == signal.SIGUSR1 else Ended)("stopped by a signal; the same command goes on from here")


def _run_groups(steps: list[Step]) -> list[str]:
    failed, began, done = [], time.monotonic(), 0
    for _, group in itertools.groupby(steps, key=lambda step: (step.stage, step.words if step.alone else None)):
        group = list(group)
        numbers = f"{done + 1}" if len(group) == 1 else f"{done + 1}-{done + len(group)}"
        print(f"\n[{numbers} of {len(steps)}, {time.monotonic() - began:.0f} s] family {group[0].stage}", flush=True)
        failed += _run_group(group)
        done += len(group)
        _heed(failed)
    return failed


def _heed(failed: list[str]) -> None:
    """Stop the plan where a signal ended one of its lines; run again, it goes on with that line.

    Raises:
        ComeBack, Ended: a line ended so.
    """
    for kind in (Ended, ComeBack):
        if any(line.endswith(f"{_EXIT_CODE} {kind.exit_code}") for line in failed):
            raise kind("stopped by a signal; the same command goes on from here")


def _run_group(group: list[Step]) -> list[str]:
    """Run the lines of a stage, in one process or in a few at once, and return the failures in the lines' order."""
    n = min(len(group), AT_ONCE.get(group[0].stage, 1))
    shares = [group[k::n] for k in range(n)]
    with ThreadPoolExecutor(n) as pool:
        told: list[str] = [""] * len(group)
        for k, answers in enumerate(pool.map(lambda share: _run_share(share, n > 1), shares)):
            told[k::n] = answers
    return [f"{step}: {answer}" for step, answer in zip(group, told, strict=True) if answer != "done"]


def _run_share(share: list[Step], beside_others: bool) -> list[str]:
    """Run lines in one process, which tells on a pipe what became of each."""
    reader, writer = os.pipe()
    lines = [
        {"words": step.words, "needs": list(map(str, step.needs)), "uses": {k: str(v) for k, v in (step.uses or {}).items()}}
        for step in share
    ]
    words = [sys.executable, "-m", "family.plan.steps", str(writer), str(int(beside_others)), json.dumps(lines)]
    child = subprocess.Popen(words, pass_fds=[writer])
    _children.append(child)
    os.close(writer)
    try:
        with os.fdopen(reader) as pipe:
            answers = [line.strip() for line in pipe]
        child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    how = (
        f"{_EXIT_CODE} {child.returncode}"
        if child.returncode in (ComeBack.exit_code, Ended.exit_code)
        else f"its process ended with {child.returncode}"
    )
    return answers + [how] * (len(share) - len(answers))


def _run_line(line: dict) -> str:
    """Run one command line and say what became of it; its needs are looked for now, when the lines before it have run."""
    from family.cli import main

    missing = [path for path in line["needs"] if not Path(path).exists()]
    words = [word for word in line["words"] if word not in line["uses"] or Path(line["uses"][word]).exists()]
    if line["uses"] and not any(word in line["uses"] for word in words):
        missing += list(line["uses"].values())
    if missing:
        return f"skipped, since {missing[0]} is not there"
    print(f"-- family {shlex.join(words)}", flush=True)
    code = main(words)
    return f"{_EXIT_CODE} {code}" if code else "done"


def _main(pipe: int, beside_others: bool, lines: list[dict]) -> None:
    # A training notes these and saves first; other stages are begun anew.
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(ComeBack.exit_code))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(Ended.exit_code))
    with os.fdopen(pipe, "w") as answers:
        for line in lines:
            # Beside others, what a line says comes out at once when it has ended, so that it can be read.
            said = io.StringIO()
            with contextlib.redirect_stdout(said) if beside_others else contextlib.nullcontext():
                answer = _run_line(line)
            sys.stdout.write(said.getvalue())
            sys.stdout.flush()
            answers.write(answer + "\n")
            answers.flush()
            if answer in (f"{_EXIT_CODE} {ComeBack.exit_code}", f"{_EXIT_CODE} {Ended.exit_code}"):
                return


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2] == "1", json.loads(sys.argv[3]))
