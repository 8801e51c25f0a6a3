"""Run our own command lines: those of one stage in one process, so that TensorFlow starts once; dependents of a failure are skipped."""

import itertools
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path


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
    failed, began, done = [], time.monotonic(), 0
    for _, group in itertools.groupby(steps, key=lambda step: (step.stage, step.words if step.alone else None)):
        group = list(group)
        numbers = f"{done + 1}" if len(group) == 1 else f"{done + 1}-{done + len(group)}"
        print(f"\n[{numbers} of {len(steps)}, {time.monotonic() - began:.0f} s] family {group[0].stage}", flush=True)
        failed += _run_group(group)
        done += len(group)
    return failed


def _run_group(group: list[Step]) -> list[str]:
    """Run the lines in one process, which tells on a pipe what became of each."""
    reader, writer = os.pipe()
    lines = [
        {"words": step.words, "needs": list(map(str, step.needs)), "uses": {k: str(v) for k, v in (step.uses or {}).items()}}
        for step in group
    ]
    child = subprocess.Popen([sys.executable, "-m", "family.plan.steps", str(writer), json.dumps(lines)], pass_fds=[writer])
    os.close(writer)
    try:
        with os.fdopen(reader) as pipe:
            answers = [line.strip() for line in pipe]
        child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    answers += [f"its process ended with {child.returncode}"] * (len(group) - len(answers))
    return [f"{step}: {answer}" for step, answer in zip(group, answers, strict=True) if answer != "done"]


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
    return f"exit code {code}" if code else "done"


def _main(pipe: int, lines: list[dict]) -> None:
    with os.fdopen(pipe, "w") as answers:
        for line in lines:
            answers.write(_run_line(line) + "\n")
            answers.flush()


if __name__ == "__main__":
    _main(int(sys.argv[1]), json.loads(sys.argv[2]))
