"""The errors that end a command in one or two lines: what was got, what is allowed, what to do next."""

import difflib
from collections.abc import Iterable

from distributed.signals import COME_BACK_CODE, ENDED_CODE


class UserError(Exception):
    """Bad arguments or bad input."""

    exit_code = 2


class OtherOutput(UserError):
    """`--out` holds something that was made of other inputs, or by something else."""


class Failure(Exception):
    """Something broke, or was refused, while working."""

    exit_code = 1


class NothingFits(Exception):
    """No member satisfies what was asked."""

    exit_code = 3


class ComeBack(Exception):
    """A training was asked to make room, and has written a checkpoint: start it again."""

    exit_code = COME_BACK_CODE


class Ended(Exception):
    """A training was asked to end, and has written a checkpoint."""

    exit_code = ENDED_CODE


def unknown_name(kind: str, got: str, allowed: Iterable[str]) -> UserError:
    """Return the error for a name that is not in a table, with the nearest one that is."""
    names = sorted(allowed)
    close = difflib.get_close_matches(got, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return UserError(f"unknown {kind} {got!r}.{hint} Allowed: {shown}")


def first_line(error: BaseException) -> str:
    """Return what an error of somebody else's says, cut to a line; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
