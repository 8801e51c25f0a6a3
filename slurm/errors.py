"""The errors that end `family submit` in one or two lines."""

import difflib
from collections.abc import Iterable


class BadInput(Exception):
    """Bad arguments or a bad cluster file."""

    exit_code = 2


class Failed(Exception):
    """SLURM refused or lost something."""

    exit_code = 1


def unknown(kind: str, got: str, allowed: Iterable[str]) -> BadInput:
    """Return the error for a name that is not in a table, with the nearest one that is, and all of them."""
    names = sorted(allowed)
    close = difflib.get_close_matches(got, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return BadInput(f"unknown {kind} {got!r}.{hint} Allowed: {', '.join(names)}")
