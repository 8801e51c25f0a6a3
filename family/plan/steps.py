"""Run our own command lines: those of a stage in one process (or two), so that TensorFlow starts once; dependents of a failure are skipped."""

import contextlib
import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from distributed.signals import AGREED_CODES, COME_BACK_CODE, handling
from family import cli
from family.errors import ComeBack, Ended, Failure, OtherOutput

# Exporting is Python of one thread for most of its time (converting, optimizing and quantizing graphs): two at once take half of it.
AT_ONCE = {"export": 2}
DONE = "done"
_STOPPED = "stopped by a signal; the same command goes on from here"


@dataclass(frozen=True)
class Step:
    """One command line and the files that it needs."""

    words: tuple[str, ...]
    needs: tuple[Path, ...] = ()  # files without which it is skipped
    uses: tuple[tuple[str, Path], ...] = ()  # words that are left out where their file is missing; one at least must be there
    alone: bool = False  # in a process of its own, as a launcher of ranks is
    renews: bool = False  # costs little: what its place holds of other inputs is moved aside
    member: int = 0  # the number of the member that it makes; 0: of all
    expected_s: float = 0.0

    @property
    def stage(self) -> str:
        return self.words[0]

    @property
    def missing(self) -> Path | None:
        """The first file that it needs and that is not there."""
        gone = [path for path in self.needs if not path.exists()]
        unused = [path for _, path in self.uses if not path.exists()]
        return next(iter(gone + (unused if len(unused) == len(self.uses) else [])), None)

    @property
    def present_words(self) -> tuple[str, ...]:
        gone = {word for word, path in self.uses if not path.exists()}
        return tuple(word for word in self.words if word not in gone)

    @property
    def run_words(self) -> tuple[str, ...]:
        """The words that it is run with, once it is known not to be done."""
        return (*self.present_words, *(["--fresh"] if self.renews else []))

    def __str__(self) -> str:
        return f"family {shlex.join(self.words)}"


def standing(step: Step) -> str:
    """Return `done`, an error that its finished output holds (such as a refused scheme), or "" if it is to be run.

    Raises:
        OtherOutput: its place holds what was made of other inputs, and it does not renew that.
    """
    if step.missing or "--fresh" in step.words:
        return ""
    try:
        return DONE if cli.is_done(list(step.present_words)) else ""
    except OtherOutput:
        if step.renews:
            return ""
        raise
    except Failure as error:
        return str(error)
    except (Exception, SystemExit):  # it would fail, and tells why at its turn
        return ""


class Told:
    """What a plan is told of its steps; here a line each."""

    def begins(self, k: int, n: int, step: Step) -> None:
        print(f"\n[{k} of {n}] {step}", flush=True)

    def ended(self, step: Step, answer: str, s: float) -> None:
        pass

    def passed_over(self, step: Step) -> None:
        pass


def run_steps(steps: list[Step], told: Told | None = None) -> list[str]:
    """Run the steps that are not done, and return those that failed or were skipped, one line each.

    Raises:
        ComeBack, Ended: a signal came; run again, the plan goes on where it was.
    """
    runner = _Runner(steps, told or Told())
    with handling(runner.stop):
        return runner.run()


class _Runner:
    def __init__(self, steps: list[Step], told: Told):
        self._steps, self._told = steps, told
        self._workers: list[_Worker] = []
        self._stopped_by = 0  # a signal

    def stop(self, number: int, frame=None) -> None:
        """Pass a signal on; nothing more is begun."""
        self._stopped_by = number
        for worker in self._workers:
            worker.signal(number)

    def run(self) -> list[str]:
        failed = []
        numbered = list(enumerate(self._steps, 1))
        for _, group in itertools.groupby(numbered, key=lambda pair: (pair[1].stage, pair[1].words if pair[1].alone else None)):
            group = list(group)
            answers = self._run_group(group)
            failed += [f"{step}: {answers[k]}" for k, step in group if answers.get(k, DONE) != DONE]
            if self._stopped_by:
                raise (ComeBack if self._stopped_by == signal.SIGUSR1 else Ended)(_STOPPED)
        return failed

    def _run_group(self, group: list[tuple[int, Step]]) -> dict[int, str]:
        """Run the steps of a stage, in one process or in a few at once, and return number -> what became of it."""
        n = min(len(group), AT_ONCE.get(group[0][1].stage, 1))
        waiting, answers = deque(group), {}
        with ThreadPoolExecutor(n) as pool:
            try:
                for working in [pool.submit(self._work, waiting, answers, n > 1) for _ in range(n)]:
                    working.result()
            except BaseException:  # Ctrl-C among them: a training saves, as when it is told to end
                self.stop(signal.SIGTERM)
                raise
        return answers

    def _work(self, waiting: deque, answers: dict[int, str], beside_others: bool) -> None:
        """Run what is waiting until nothing is; another process takes the place of one that died."""
        worker = None
        try:
            while not self._stopped_by:
                try:
                    k, step = waiting.popleft()
                except IndexError:
                    return
                answer = _answer_without_running(step)
                if answer:
                    self._told.passed_over(step)
                else:
                    worker = worker if worker and worker.is_alive else self._start_worker(beside_others)
                    answer = self._run_one(k, step, worker)
                answers[k] = answer
        finally:
            if worker:
                worker.close()

    def _start_worker(self, beside_others: bool) -> "_Worker":
        worker = _Worker(beside_others)
        self._workers.append(worker)
        if self._stopped_by:  # it came before this one was in the list
            worker.signal(self._stopped_by)
        return worker

    def _run_one(self, k: int, step: Step, worker: "_Worker") -> str:
        self._told.begins(k, len(self._steps), step)
        began = time.monotonic()
        code = worker.run(step.run_words)
        if code in AGREED_CODES:
            self._stopped_by = self._stopped_by or (signal.SIGUSR1 if code == COME_BACK_CODE else signal.SIGTERM)
        answer = DONE if code == 0 else f"its process died ({-code})" if code < 0 else f"exit code {code}"
        self._told.ended(step, answer, time.monotonic() - began)
        return answer


def _answer_without_running(step: Step) -> str:
    """Return what a step comes to that is done, refused or has nothing to work with; its needs are looked for at its turn."""
    if step.missing:
        answer = f"skipped, since {step.missing} is not there"
    else:
        try:
            answer = standing(step)
        except OtherOutput as error:
            answer = str(error)
    if answer not in ("", DONE):
        print(f"{step}: {answer}", file=sys.stderr, flush=True)
    return answer


class _Worker:
    """A process that runs command lines, one after the other (`family.plan.worker`)."""

    def __init__(self, beside_others: bool):
        (asked, self._ask), (hear, tell) = os.pipe(), os.pipe()
        words = [sys.executable, "-m", "family.plan.worker", str(os.getpid()), str(asked), str(tell), str(int(beside_others))]
        self._process = subprocess.Popen(words, pass_fds=[asked, tell])
        os.close(asked)
        os.close(tell)
        self._answers = os.fdopen(hear)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        if self.is_alive:
            self._process.send_signal(number)

    def run(self, words: tuple[str, ...]) -> int:
        """Run a command line and return its exit code, or the process's own if it died on it: -N for signal N."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._ask, json.dumps(words).encode() + b"\n")
        answer = self._answers.readline()
        return int(answer) if answer else self._process.wait() or -1

    def close(self) -> None:
        os.close(self._ask)  # which ends it
        self._process.wait()
        self._answers.close()
