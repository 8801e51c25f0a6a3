"""What a command tells of its work: progress of anything long (a bar on a terminal, a plain line now and then elsewhere), and what is next."""

import shlex
import sys
import time
from collections.abc import Iterable, Iterator

PLAIN_INTERVAL_S = 20


def progress(items: Iterable, what: str, total: int | None = None, unit: str = "images", shown: bool = True) -> Iterator:
    """Pass items through and show how far it is, on standard error, once two seconds have gone."""
    total = total if total is not None else len(items) if hasattr(items, "__len__") else None
    if not shown:
        yield from items
    elif sys.stderr.isatty():
        from tqdm import tqdm  # 50 ms, which commands without a bar do not need

        yield from tqdm(items, desc=what, total=total, unit=f" {unit}", delay=2, leave=False)
    else:
        yield from _plain(items, what, total, unit)


def next_command(*words) -> str:
    """Return the line that names the next command of ours, ready to paste: words are quoted where a shell would cut them."""
    return f"next: {shlex.join(['family', *map(str, words)])}"


def _plain(items: Iterable, what: str, total: int | None, unit: str) -> Iterator:
    start = said = time.monotonic()
    for n, item in enumerate(items):
        now = time.monotonic()
        if now - said >= PLAIN_INTERVAL_S:
            said = now
            of = f" of {total}" if total else ""
            print(f"{what}: {n}{of} {unit}, {n / (now - start):.1f}/s", file=sys.stderr, flush=True)
        yield item
