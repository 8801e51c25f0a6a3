"""A process that runs one command line of a plan after the other, so that TensorFlow starts once for all lines of a stage."""

import contextlib
import io
import json
import os
import shlex
import signal
import sys

from distributed.joining import die_with
from distributed.signals import COME_BACK_CODE, ENDED_CODE
from family.cli import main


def _work(questions: int, answers: int, beside_others: bool) -> None:
    """Read command lines as JSON from one pipe, and tell on the other with which code each ended."""
    with os.fdopen(questions) as asked, os.fdopen(answers, "w") as told:
        for line in asked:
            code = _run_line(json.loads(line), beside_others)
            sys.stdout.flush()
            told.write(f"{code}\n")
            told.flush()


def _run_line(words: list[str], beside_others: bool) -> int:
    if not beside_others:
        return main(words)
    # What it says comes out at once when it has ended, so that it can be read.
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = main(words)
    sys.stdout.write(f"-- family {shlex.join(words)}\n{said.getvalue()}")
    return code


if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    # A training notes these two and saves first; other stages are begun anew. An interrupt comes from the plan, as a SIGTERM.
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(COME_BACK_CODE))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(ENDED_CODE))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _work(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1")
