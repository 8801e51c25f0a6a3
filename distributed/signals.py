"""Signals that ask a training to end: noted when they come, acted on at a step that all ranks agree on."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

COME_BACK_CODE = 75  # EX_TEMPFAIL: a checkpoint was written, start me again
ENDED_CODE = 143  # as a shell tells of SIGTERM: a checkpoint was written, leave it at that
AGREED_CODES = (COME_BACK_CODE, ENDED_CODE)
FORWARDED = (signal.SIGUSR1, signal.SIGTERM)


@dataclass
class Wishes:
    """What this process was asked for so far."""

    come_back: bool = False  # SIGUSR1: the time limit is near
    end: bool = False  # SIGTERM: cancelled


@contextmanager
def listening() -> Iterator[Wishes]:
    """Note SIGUSR1 and SIGTERM while the block runs, however often they come: a queue sends them to launcher and ranks alike."""
    wishes = Wishes()

    def note(number, frame):
        if number == signal.SIGUSR1:
            wishes.come_back = True
        else:
            wishes.end = True

    with handling(note):
        yield wishes


@contextmanager
def handling(handler: Callable) -> Iterator[None]:
    """Let `handler(number, frame)` take both signals while the block runs."""
    before = {number: signal.signal(number, handler) for number in FORWARDED}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
