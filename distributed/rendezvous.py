"""Where ranks find one another: Horovod's key-value store, bound to one address, on a port of this job and under its name.

Whoever reaches the port can read and write the store (Horovod's server has no password), so it is on one interface only and goes
as soon as the world ends.
"""

import errno
import http.client
import ipaddress
import socket
import subprocess
import threading
import time
from collections.abc import Iterable

_SCOPE = "family"  # beside Horovod's own scopes
_POLL_S = 0.5


class Rendezvous:
    """A running store."""

    def __init__(self, server):
        self._server = server
        self.port: int = server.server_address[1]
        self._thread = threading.Thread(target=server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve(address: str, ports: Iterable[int], hosts: list[tuple[str, int]], words: dict[str, str]) -> Rendezvous:
    """Start the store on the first port that is free.

    Args:
        address: the one that it binds to.
        ports: 0 is any.
        hosts: (name, ranks) of each.
        words: what ranks find in it; `name` tells it from another job's.

    Raises:
        OSError: all of them are taken, or the address is not of this machine.
    """
    from horovod.runner.common.util.hosts import HostInfo, get_host_assignments
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    class Handler(RendezvousHandler):
        def do_HEAD(self):  # the server that it inherits from would tell which files there are
            self.send_status_code(404)

    n_ranks = sum(n for _, n in hosts)
    plan = get_host_assignments([HostInfo(host, n) for host, n in hosts], n_ranks, n_ranks)
    for port in ports:
        try:
            server = RendezvousHTTPServer((address, port), Handler, 0)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        server.init(plan)
        server.cache[_SCOPE] = {key: word.encode() for key, word in words.items()}  # all of them, before anyone asks
        return Rendezvous(server)
    raise OSError(errno.EADDRINUSE, f"no free port for the rendezvous on {address} among {list(ports)}")


def find(address: str, ports: list[int], name: str, patience_s: float) -> int:
    """Return the port under which the store of this name answers; ask until it does.

    Raises:
        TimeoutError: nobody answered under that name.
    """
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        for port in ports:
            if get(address, port, "name") == name:
                return port
        time.sleep(_POLL_S)
    raise TimeoutError(f"no rendezvous {name!r} on {address}, ports {ports[0]} to {ports[-1]}, after {patience_s:.0f} s; "
                       "did rank 0 start, and can this node reach that address?")  # fmt: skip


def get(address: str, port: int, key: str) -> str | None:
    """Return a word that was left in the store, or None."""
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", f"/{_SCOPE}/{key}")
        answer = connection.getresponse()
        return answer.read(4096).decode("utf-8", "replace") if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def address_of(node: str, for_others: bool) -> str:
    """Return the address of a SLURM node: by its name, or as the controller knows it.

    Args:
        for_others: other nodes must reach it. Many systems resolve their own name to 127.0.1.1, which they can't.

    Raises:
        OSError: neither knows it.
    """
    try:
        found = socket.gethostbyname(node)
        if not (for_others and ipaddress.ip_address(found).is_loopback):
            return found
    except OSError:
        pass
    try:
        said = subprocess.run(["scontrol", "show", "node", "--oneliner", node], capture_output=True, text=True, timeout=30).stdout
        known = [word.partition("=")[2] for word in said.split() if word.startswith("NodeAddr=")]
        return socket.gethostbyname(known[0])
    except (OSError, IndexError, subprocess.TimeoutExpired) as error:
        raise OSError(f"no address for the node {node}: its name does not resolve and scontrol does not tell") from error


def interface_towards(address: str) -> str:
    """Return the name of the network interface by which this machine reaches an address (its own addresses included).

    Raises:
        OSError: there is no way there.
    """
    import psutil

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # sends nothing: it only asks the kernel for the way
        own = probe.getsockname()[0]
    for name, addresses in psutil.net_if_addrs().items():
        if own in [item.address for item in addresses]:
            return name
    raise OSError(f"no interface has the address {own}, by which {address} is reached")
