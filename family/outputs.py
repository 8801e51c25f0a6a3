"""Outputs that are whole or not there: written beside, renamed; told apart by what they were made of."""

import fcntl
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from family.errors import OtherOutput, UserError

MADE_OF = "made_of.json"
_LOCK = ".lock"


def is_done(out: Path, made_of: dict, fresh: bool = False, defaults: dict | None = None) -> bool:
    """Say whether `out` is already the finished output of these inputs; make way for it otherwise.

    Args:
        made_of: what the output is a function of; compared as JSON.
        defaults: what a key stands for that an earlier version, which had no such key, did not write.
        fresh: move an output that is there aside, to `out.old-N`.

    Raises:
        OtherOutput: `out` holds something else; the message names what differs.
    """
    if not out.exists() or (out.is_dir() and _is_empty(out)):
        return False
    if fresh:
        print(f"moved the old {out} to {move_aside(out)}", file=sys.stderr)  # standard output may be one JSON object
        return False
    there = read_json(out / MADE_OF) if (out / MADE_OF).is_file() else None
    if there is None:
        raise OtherOutput(f"{out} exists and was not made by this command; choose another --out, or --fresh to move it aside")
    made_of, there = json.loads(json.dumps(made_of)), {**json.loads(json.dumps(defaults or {})), **there}
    differing = [key for key in sorted(there.keys() | made_of.keys()) if there.get(key) != made_of.get(key)]
    if differing:
        shown = "; ".join(f"{key} was {there.get(key)!r}, now {made_of.get(key)!r}" for key in differing[:4])
        raise OtherOutput(f"{out} was made of something else: {shown}. Choose another --out, or --fresh to move it aside")
    return True


def _is_empty(folder: Path) -> bool:
    """Say whether a folder holds nothing but its lock."""
    return all(path.name == _LOCK for path in folder.iterdir())


def move_aside(out: Path) -> Path:
    """Rename an output to the first free `out.old-N` and return that path."""
    n = 1
    while (old := out.with_name(f"{out.name}.old-{n}")).exists():
        n += 1
    os.rename(out, old)
    return old


@contextmanager
def locked(out: Path, named: Path | None = None) -> Iterator[None]:
    """Make the folder `out` if need be and hold it: nobody else may write to it until the block ends, however it ends.

    Args:
        named: what is told to be in use, where `out` stands for another folder.

    Raises:
        UserError: another process holds it, or it is a file.
    """
    named = named or out
    while True:
        try:
            out.mkdir(parents=True, exist_ok=True)
            file = open(out / _LOCK, "a+", encoding="utf-8")  # noqa: SIM115  closed below, with its lock
        except FileExistsError:
            raise UserError(f"{out} is a file, and a folder is wanted; choose another --out") from None
        except FileNotFoundError:  # the folder was moved away just now
            continue
        with file:
            _lock(file, named)
            if not _is_at(file, out / _LOCK):
                continue  # so was the folder with this lock, by who held it before
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield
            return


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Wait until nobody else is in such a block for a file, for the moment in which it is read, changed and renamed; a hidden file beside it is the lock."""
    with open(path.with_name(f".{path.name}{_LOCK}"), "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            _warn_of_no_lock(path, error)
        yield


def _lock(file, named: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise UserError(f"{named} is in use by {file.read().strip() or 'another process'}; wait for it, or choose another --out") from None
    except OSError as error:  # some parallel file systems have no locks unless they are mounted so
        _warn_of_no_lock(named, error)


def _warn_of_no_lock(path: Path, error: OSError) -> None:
    print(f"warning: {path} can't be locked ({error.strerror}); make sure that nobody else writes to it", file=sys.stderr)


def _is_at(file, path: Path) -> bool:
    """Say whether an open file still is the one at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


@contextmanager
def whole_folder(out: Path, made_of: dict) -> Iterator[Path]:
    """Give a folder beside `out` to write to, and hold it; it becomes `out` when the block ends well, and goes when it does not.

    Raises:
        UserError: another process makes `out` just now, or has made it since `is_done` looked.
    """
    partial = out.with_name(f".{out.name}.partial")
    with locked(partial, named=out):
        try:
            _clear(partial)  # of what a killed command left
            if out.is_dir() and not _is_empty(out):
                raise UserError(f"{out} has been made meanwhile; run the command again, which tells whether it is the same")
            yield partial
            write_json(partial / MADE_OF, made_of)
            if out.is_dir():  # an empty one
                (out / _LOCK).unlink(missing_ok=True)
                out.rmdir()
            os.rename(partial, out)
        except BaseException:
            with suppress(OSError):
                _clear(partial)
                (partial / _LOCK).unlink()
                partial.rmdir()  # unless another process has begun there since the lock went
            raise
        (out / _LOCK).unlink()


def _clear(folder: Path) -> None:
    """Remove everything in a folder but its lock."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; it becomes `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value) -> None:
    """Write JSON, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path):
    """Read a JSON file.

    Raises:
        UserError: it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # the latter of brackets in brackets in brackets
        raise UserError(f"{path} is not valid JSON: {error}") from error
