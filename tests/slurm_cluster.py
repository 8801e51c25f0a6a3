"""A real SLURM on this host: slurmctld, munge and two nodes, in a temporary folder, started on first use.

A test takes the session fixture `slurm`. Every process is ended by its id, and ends with the test run if that is killed.
"""

import ctypes
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

NEEDED = ("slurmctld", "slurmd", "sbatch", "munged")
# The requeue delay is the lifetime of a credential: 120 s where nothing is said.
REQUEUE_DELAY_S = 6
_CONF = """
ClusterName=family
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={delay}
CryptoType=crypto/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldParameters=enable_configless
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=1
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
MpiDefault=none
GresTypes=gpu
SlurmdTimeout=300
KillWait=20
MinJobAge=300
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port_1} CPUs=64 RealMemory=512000 Gres=gpu:8
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={port_2} CPUs=64 RealMemory=512000 Gres=gpu:8
NodeName=gpu[1-4] NodeAddr=127.0.0.1 Port={port_3} CPUs=64 RealMemory=512000 Gres=gpu:8 State=CLOUD
PartitionName=cpu Nodes=node[1-2] Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=gpu[1-4] MaxTime=INFINITE State=UP
SuspendProgram=/bin/true
ResumeProgram=/bin/true
SuspendExcNodes=node[1-2]
"""
# Eight files stand for the GPUs of each node: SLURM counts and hands out device files without opening them.
_GRES = "NodeName=node[1-2],gpu[1-4] Name=gpu File={folder}/gpu[0-7]\n"


class SlurmCluster:
    """Two nodes, node1 and node2, told apart by SLURMD_NODENAME. `environment` is what our commands need to find them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self.toml = folder / "cluster.toml"
        self._daemons: list[subprocess.Popen] = []

    def start(self) -> None:
        """Start the daemons; once more with other ports, where somebody took one between its choice and its use."""
        try:
            self._start_all()
        except AssertionError:
            self.stop()
            self._daemons.clear()
            for path in self.folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            self._start_all()

    def _start_all(self) -> None:
        for name in ("state", "spool-node1", "spool-node2"):
            (self.folder / name).mkdir()
        ports = dict(zip(("ctld_port", "port_1", "port_2", "port_3"), _free_ports(4), strict=True))
        host = socket.gethostname().split(".")[0]
        text = _CONF.format(folder=self.folder, host=host, user=getpass.getuser(), delay=REQUEUE_DELAY_S, **ports)
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text(_GRES.format(folder=self.folder))
        for k in range(8):
            (self.folder / f"gpu{k}").touch()
        self.toml.write_text('partition = "cpu"\ninterface = "lo"\nlead_s = 30\n')
        self._start_munge()
        self._start("slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))
        for node in ("node1", "node2"):
            self._start("slurmd", "-D", "-f", str(self.folder / "slurm.conf"), "-N", node)
        self.wait_until(lambda: self.states() == {"node1": "idle", "node2": "idle"}, 60, "both nodes idle")

    def stop(self) -> None:
        if len(self._daemons) == 4:
            self.run("scancel", "--full", "--signal=KILL", "--user", getpass.getuser())
            self.run("scancel", "--user", getpass.getuser())
            time.sleep(1)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def run(self, *words: str, timeout_s: float = 60, **options) -> subprocess.CompletedProcess:
        """Run a command line against this cluster."""
        options = {"env": self.environment, "capture_output": True, "text": True} | options
        return subprocess.run(words, timeout=timeout_s, **options)

    def submit(self, script: str, *options: str, **more) -> str:
        """Give sbatch a script and return the job's number."""
        done = self.run("sbatch", "--parsable", *options, input=script, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().split(";")[0]

    def squeue(self) -> dict[str, str]:
        """Return job -> state of what is not over."""
        lines = self.run("squeue", "--noheader", "--format=%i %T").stdout.splitlines()
        return dict(line.split() for line in lines)

    def show(self, job: str) -> dict[str, str]:
        """Return what scontrol says of a job: JobState, ExitCode, Restarts, NodeList ..."""
        words = self.run("scontrol", "--oneliner", "show", "job", job).stdout.split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def states(self) -> dict[str, str]:
        """Return node -> state of the two nodes."""
        lines = self.run("sinfo", "--noheader", "--Node", "--partition=cpu", "--format=%N %T").stdout.splitlines()
        return dict(line.split() for line in lines)

    def set_node(self, node: str, state: str) -> None:
        """Set a node down, where it stays until it is brought back: resume."""
        done = self.run("scontrol", "update", f"nodename={node}", f"state={state}", "reason=test")
        assert done.returncode == 0, done.stderr
        if state == "resume":
            self.wait_until(lambda: self.states().get(node) in ("idle", "mixed", "allocated"), 40, f"{node} to be back")

    def wait_for(self, job: str, *states: str, timeout_s: float = 60) -> dict[str, str]:
        """Wait until a job is in one of the states, and return what scontrol says of it."""
        self.wait_until(lambda: self.show(job).get("JobState") in states, timeout_s, f"job {job} to be {' or '.join(states)}")
        return self.show(job)

    def wait_until(self, holds, timeout_s: float, what: str) -> None:
        end = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > end:
                queue = self.run("squeue").stdout + self.run("sinfo").stdout
                raise AssertionError(f"waited {timeout_s} s for {what}\n{queue}{self._log_tail()}")
            time.sleep(0.2)

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        words = [f"--{option}={self.folder}/munge.{name}" for option, name in names.items()]
        self._start("munged", "--foreground", "--force", "--num-threads=2", *words)
        self.wait_until(lambda: (self.folder / "munge.socket").exists(), 20, "munge's socket")

    def _start(self, name: str, *words: str) -> None:
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        with open(self.folder / f"{name}-{len(self._daemons)}.out", "wb") as out:
            daemon = subprocess.Popen(
                [shutil.which(name, path=path), *words], env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                preexec_fn=_die_with_parent,
            )  # fmt: skip
        self._daemons.append(daemon)

    def _log_tail(self) -> str:
        return "".join(f"== {log.name}\n" + "\n".join(log.read_text().splitlines()[-12:]) + "\n" for log in self.folder.glob("slurm*.log"))


def _die_with_parent() -> None:
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def missing() -> list[str]:
    """Return the programs that a real SLURM needs and this machine lacks."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return [name for name in NEEDED if not shutil.which(name, path=path)]


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A real two-node SLURM; skipped where Debian's packages slurm-wlm and munge are not installed."""
    if missing():
        pytest.skip(f"no {', '.join(missing())}: apt-get install slurm-wlm munge")
    cluster = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
