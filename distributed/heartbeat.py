"""Heartbeats: how a rank that stops answering is noticed, on this machine or on another, long before Gloo gives up.

Each rank's client says a byte a second to one monitor, which answers a byte a second. Whoever is silent too long is lost; a rank
that loses the monitor ends itself. Time is counted in one's own ticks: after all processes were suspended together, nobody is lost.
"""

import contextlib
import json
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

SILENCE_S = 20  # a process that is busy tracing still answers within a second or two; the job must end within 30 s
_TICK_S = 1.0
_BEAT, _LEAVE = b".", b"q"


@dataclass
class _Peer:
    rank: int = -1  # until it has said who it is
    host: str = ""
    silent_ticks: int = 0
    introduction: bytes = b""


class Monitor:
    """Listens to the ranks of a world.

    Args:
        address: the one that it binds to.
        n_ranks: of the world.
        on_loss: called once, from the monitor's thread, with (rank, host, what happened) of the first rank that is lost.
        limit_s: of silence.
    """

    def __init__(self, address: str, n_ranks: int, on_loss: Callable[[int, str, str], None], limit_s: float = SILENCE_S):
        self._n_ranks, self._on_loss, self._limit_s = n_ranks, on_loss, limit_s
        self._listener = socket.create_server((address, 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._left: set[int] = set()
        self._all_left, self._closed = threading.Event(), threading.Event()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def wait_for_others(self, patience_s: float) -> bool:
        """Wait until all ranks but the first have taken their leave; say whether they did."""
        return self._all_left.wait(patience_s)

    def stop(self) -> None:
        self._closed.set()
        self._thread.join()

    def _serve(self) -> None:
        ticked_at, lost = time.monotonic(), None
        while not self._closed.is_set() and lost is None:
            ready = [key for key, _ in self._selector.select(_TICK_S / 4)]
            losses = [self._hear(key) for key in ready]
            if time.monotonic() - ticked_at >= _TICK_S:
                ticked_at = time.monotonic()
                losses += [self._tick(key) for key in list(self._selector.get_map().values())]
            lost = next((loss for loss in losses if loss), None)
        if lost:
            self._on_loss(*lost)
            self._closed.wait()  # the other ranks are not to think that it was the monitor that went
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._selector.close()

    def _hear(self, key) -> tuple[int, str, str] | None:
        """Take what a connection has to say; return whom it lost, if anyone."""
        if key.fileobj is self._listener:
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ, _Peer())
            return None
        peer: _Peer = key.data
        try:
            said = key.fileobj.recv(4096)
        except BlockingIOError:
            return None
        except OSError:
            said = b""
        if not said:
            self._drop(key)
            return (peer.rank, peer.host, "went away") if peer.rank >= 0 else None
        peer.silent_ticks = 0
        if peer.rank < 0:
            said = self._introduce(peer, said)
        if said.endswith(_LEAVE):
            self._drop(key)
            self._left.add(peer.rank)
            if self._left >= set(range(1, self._n_ranks)):
                self._all_left.set()
        return None

    def _introduce(self, peer: _Peer, said: bytes) -> bytes:
        """Read `{"rank", "host"}` and the end of its line; return what was said after it. Strangers stay unknown."""
        peer.introduction = (peer.introduction + said)[:4096]
        line, end, rest = peer.introduction.partition(b"\n")
        if not end:
            return _BEAT
        try:
            about = json.loads(line)
            rank, host = int(about["rank"]), str(about["host"])
        except (ValueError, KeyError, TypeError):
            return _BEAT
        if 0 <= rank < self._n_ranks:
            peer.rank, peer.host = rank, host
        return rest or _BEAT

    def _tick(self, key) -> tuple[int, str, str] | None:
        """Answer a rank; return it when it was silent too long."""
        if key.data is None:
            return None
        peer: _Peer = key.data
        with contextlib.suppress(OSError):  # a full buffer: it does not read, and its silence is being counted
            key.fileobj.send(_BEAT)
        peer.silent_ticks += 1
        if peer.silent_ticks * _TICK_S < self._limit_s:
            return None
        self._drop(key)
        return (peer.rank, peer.host, f"has not answered for {self._limit_s:.0f} s") if peer.rank >= 0 else None

    def _drop(self, key) -> None:
        self._selector.unregister(key.fileobj)
        key.fileobj.close()


class Heartbeat:
    """A rank's side: a thread that beats, and that ends the process when the monitor falls silent.

    Args:
        end_all: called before, to end the processes that can't end themselves.
    """

    def __init__(
        self, address: str, port: int, rank: int, host: str, limit_s: float = SILENCE_S, end_all: Callable[[], None] = lambda: None
    ):
        self._limit_s, self._end_all = limit_s, end_all
        self._socket = socket.create_connection((address, port), timeout=limit_s)
        self._socket.sendall(json.dumps({"rank": rank, "host": host}).encode() + b"\n")
        self._socket.settimeout(_TICK_S)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Say that this rank ends because it has nothing left to do."""
        self._closed.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # the monitor went first, which is its right
            self._socket.sendall(_LEAVE)
        self._socket.close()

    def _beat(self) -> None:
        silent_ticks, beaten_at = 0, 0.0
        while not self._closed.is_set():
            try:
                if time.monotonic() - beaten_at >= _TICK_S:
                    beaten_at = time.monotonic()
                    self._socket.sendall(_BEAT)
                if not self._socket.recv(4096):
                    self._end("went away")
                silent_ticks = 0
            except TimeoutError:
                silent_ticks += 1
                if silent_ticks * _TICK_S >= self._limit_s:
                    self._end(f"has not answered for {self._limit_s:.0f} s")
            except OSError:
                self._end("went away")

    def _end(self, what: str) -> None:
        if self._closed.is_set():
            return
        print(f"rank 0, or the launcher, which watches over the ranks, {what}; this rank ends", file=sys.stderr, flush=True)
        self._end_all()
        # Not an exception: the main thread may wait in a collective operation that never ends.
        os._exit(1)
