"""Start ranks of our own command line on this machine, with Gloo's rendezvous and neither MPI nor ssh, and watch over them."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed.heartbeat import SILENCE_S, Monitor
from distributed.joining import CPUS_VARIABLE, LAUNCHER_VARIABLE, MONITOR_VARIABLE, gloo_environment
from distributed.rendezvous import serve
from distributed.signals import AGREED_CODES, handling
from distributed.world import last_lines, say_lost

_LOOPBACK = "127.0.0.1"
_LEAVING_S = 60  # after the first rank that ends


def launch(command: list[str], n_ranks: int, logs: Path, silence_s: float = SILENCE_S) -> int:
    """Run a command as `n_ranks` local Horovod ranks and return 0, or the exit code of the first rank that failed.

    Rank 0 writes to our own output, the others to `logs/rank-N.log`. When one rank fails or stops answering, the others are
    stopped and its last lines are shown; when this process ends, however it ends, so do they. SIGUSR1 and SIGTERM are passed on.
    """
    lost = []
    monitor = Monitor(_LOOPBACK, n_ranks, lambda *loss: lost.append(loss), silence_s)
    environment = {MONITOR_VARIABLE: f"{_LOOPBACK}:{monitor.port}"}
    try:
        with started([command] * n_ranks, logs, environment=environment, first_is_shown=True) as children, _forwarding(children):
            return _watch(children, logs, lost)
    finally:
        monitor.stop()


@contextmanager
def started(
    commands: list[list[str]], logs: Path, joined: bool = True, environment: dict[str, str] | None = None, first_is_shown: bool = False
) -> Iterator[list[subprocess.Popen]]:
    """Start one process for each command, each with its share of the cores, and give them; kill what is left on leaving.

    Args:
        joined: as the Horovod ranks of one world; otherwise each is a world of one.
        environment: added to theirs.
        first_is_shown: the first writes to our own output; the others, or else all, to `logs/rank-N.log`.
    """
    n = len(commands)
    name = f"local-{secrets.token_hex(4)}"
    rendezvous = serve(_LOOPBACK, [0], [("localhost", n)], {"name": name}) if joined else None
    logs.mkdir(parents=True, exist_ok=True)
    cores = _share_cores(n)
    children = []
    try:
        for rank, command in enumerate(commands):
            own = _rank_environment(rank, n, rendezvous.port, name) if rendezvous else {}
            own |= {CPUS_VARIABLE: cores[rank], LAUNCHER_VARIABLE: str(os.getpid())}
            own = {**os.environ, **own, **(environment or {})}
            with open(logs / f"rank-{rank}.log", "wb") as log:
                output = None if rank == 0 and first_is_shown else log
                children.append(subprocess.Popen(command, env=own, stdout=output, stderr=output, stdin=subprocess.DEVNULL))
        yield children
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
        for child in children:
            child.wait()
        if rendezvous:
            rendezvous.stop()


def _rank_environment(rank: int, n_ranks: int, port: int, name: str) -> dict[str, str]:
    return {
        **gloo_environment(_LOOPBACK, port, "lo"),
        "HOROVOD_RANK": str(rank),
        "HOROVOD_SIZE": str(n_ranks),
        "HOROVOD_LOCAL_RANK": str(rank),
        "HOROVOD_LOCAL_SIZE": str(n_ranks),
        "HOROVOD_CROSS_RANK": "0",
        "HOROVOD_CROSS_SIZE": "1",
        "HOROVOD_HOSTNAME": "localhost",
        "HOROVOD_JOB_ID": name,
    }


def _share_cores(n_ranks: int) -> list[str]:
    """Return each rank's cores as a list of numbers; ranks share cores where there are fewer cores than ranks."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < n_ranks:
        return [str(cores[rank % len(cores)]) for rank in range(n_ranks)]
    share = len(cores) // n_ranks
    return [",".join(map(str, cores[rank * share : (rank + 1) * share])) for rank in range(n_ranks)]


@contextmanager
def _forwarding(children: list[subprocess.Popen]) -> Iterator[None]:
    """Pass the signals that ranks agree on to all of them; they end by themselves."""

    def forward(number, frame):
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    with handling(forward):
        yield


def _watch(children: list[subprocess.Popen], logs: Path, lost: list) -> int:
    """Wait for all; the first that fails, or that is lost, ends the others."""
    ending_at = 0.0
    while True:
        codes = [child.poll() for child in children]
        failed = [rank for rank, code in enumerate(codes) if code]
        if failed and codes[failed[0]] in AGREED_CODES:
            return _wait_for_rest(children, codes[failed[0]])
        if failed:
            return _report_failure(failed[0], codes[failed[0]], logs)
        if all(code == 0 for code in codes):
            return 0
        if 0 in codes:  # they end together; one that hangs on its way out is not waited for
            ending_at = ending_at or time.monotonic()
            if time.monotonic() - ending_at > _LEAVING_S:
                late = codes.index(None)
                say_lost(late, "", f"was still there {_LEAVING_S} s after another had ended", last_lines(logs / f"rank-{late}.log"))
                return 1
        silent = [loss for loss in lost if "answered" in loss[2]]  # one that went away is about to be seen above
        if silent:
            rank, _, what = silent[0]
            say_lost(rank, "", what, [] if rank == 0 else last_lines(logs / f"rank-{rank}.log"))
            return 1
        time.sleep(0.1)


def _wait_for_rest(children: list[subprocess.Popen], code: int) -> int:
    """Wait for the other ranks of a world that agreed to end."""
    deadline = time.monotonic() + _LEAVING_S
    while time.monotonic() < deadline and any(child.poll() is None for child in children):
        time.sleep(0.1)
    return code


def _report_failure(rank: int, code: int, logs: Path) -> int:
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    print(f"rank {rank} {how}; the other ranks were stopped", file=sys.stderr)
    if rank > 0:
        print("\n".join(f"  rank {rank}: {line}" for line in last_lines(logs / f"rank-{rank}.log")), file=sys.stderr)
    return code if 0 < code < 128 else 1
