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
    """One command line, the outputs it needs and the output it makes."""

    words: tuple[str, ...]
    needs: tuple[Path, ...] = ()
    makes: Path | None = None
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
        ready = [step for step in group if all(path.exists() for path in step.needs)]
        failed += [f"{step}: skipped, since {_missing(step)} is not there" for step in group if step not in ready]
        for step in ready:
            done += 1
            print(f"\n[{done}/{len(steps)}, {time.monotonic() - began:.0f} s] {step}", flush=True) if len(ready) == 1 else None
        if len(ready) > 1:
            print(f"\n[{done - len(ready) + 1}-{done}/{len(steps)}, {time.monotonic() - began:.0f} s] {len(ready)} x family {group[0].stage}", flush=True)
        failed += _run_group(ready)
    return failed


def _missing(step: Step) -> Path:
    return next(path for path in step.needs if not path.exists())


def _run_group(group: list[Step]) -> list[str]:
    """Run the lines in one process, which answers with an exit code for each on a pipe."""
    if not group:
        return []
    reader, writer = os.pipe()
    lines = json.dumps([step.words for step in group])
    child = subprocess.Popen([sys.executable, "-m", "family.plan.steps", str(writer), lines], pass_fds=[writer])
    os.close(writer)
    try:
        with os.fdopen(reader) as pipe:
            codes = [int(line) for line in pipe]
        child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    codes += [child.returncode or 1] * (len(group) - len(codes))  # it died in the middle
    return [f"{step}: exit code {code}" for step, code in zip(group, codes, strict=True) if code]


def _main(pipe: int, lines: list[list[str]]) -> None:
    from family.cli import main

    with os.fdopen(pipe, "w") as answers:
        for words in lines:
            if len(lines) > 1:
                print(f"-- family {shlex.join(words)}", flush=True)
            answers.write(f"{main(words)}\n")
            answers.flush()


if __name__ == "__main__":
    _main(int(sys.argv[1]), json.loads(sys.argv[2]))
