"""How ranks find one another and notice that one is gone: the environment of srun, the rendezvous, the heartbeat."""

import http.client
import os
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed import rendezvous
from distributed.devices import pick_gpu, refuse_sharing
from distributed.heartbeat import Heartbeat, Monitor
from distributed.joining import cycle_time_ms, step_environment, world_size
from distributed.srun import N_PORTS, Step, expand_counts, expand_nodes, read_step

LOOPBACK = "127.0.0.1"
TASK = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_PROCID": "2",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "0",
}


def test_a_task_knows_its_place():
    step = read_step(TASK)
    assert (step.name, step.rank, step.size, step.nodes, step.tasks) == ("7.0", 2, 3, ("node1", "node2"), (2, 1))
    assert (step.local_rank, step.local_size, step.cross_rank, step.cross_size) == (0, 1, 1, 2)


def test_the_second_task_of_the_only_node_that_has_two_has_no_peer_across_nodes():
    step = read_step({**TASK, "SLURM_PROCID": "1", "SLURM_NODEID": "0", "SLURM_LOCALID": "1"})
    assert (step.local_size, step.cross_rank, step.cross_size) == (2, 0, 1)


def test_a_batch_script_is_no_task():
    assert read_step({"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "3", "SLURM_JOB_NODELIST": "node[1-2]"}) is None


def test_variables_that_contradict_one_another_are_refused():
    with pytest.raises(ValueError, match="4 tasks in all"):
        read_step({**TASK, "SLURM_STEP_NUM_TASKS": "4"})


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.data())
def test_places_fit_together_for_any_tasks_per_node(tasks, data):
    steps = [
        Step("1.0", 0, node, local, tuple(f"n{k}" for k in range(len(tasks))), tuple(tasks))
        for node, n in enumerate(tasks)
        for local in range(n)
    ]
    step = data.draw(st.sampled_from(steps))
    across = [other for other in steps if other.local_rank == step.local_rank]
    assert step.size == len(steps) and step.cross_size == len(across)
    assert sorted(other.cross_rank for other in across) == list(range(len(across)))


@pytest.mark.parametrize(
    "text, names",
    [
        ("node1", ["node1"]),
        ("node[1-3]", ["node1", "node2", "node3"]),
        ("gpu[01-02,7],login", ["gpu01", "gpu02", "gpu7", "login"]),
        ("r[1-2]n[08-10]-a", ["r1n08-a", "r1n09-a", "r1n10-a", "r2n08-a", "r2n09-a", "r2n10-a"]),
        ("a,b[2]", ["a", "b2"]),
    ],
)
def test_node_lists_are_expanded(text, names):
    assert expand_nodes(text) == names


def test_counts_are_expanded():
    assert expand_counts("2(x3),1") == [2, 2, 2, 1]
    with pytest.raises(ValueError, match="2x3"):
        expand_counts("2x3")


@pytest.mark.parametrize("own", [{"HOROVOD_SIZE": "4", "HOROVOD_RANK": "2"}, {"OMPI_COMM_WORLD_SIZE": "4"}])
def test_ranks_that_a_task_of_srun_started_are_a_world_of_their_own(monkeypatch, own):
    for name, value in {
        **TASK,
        "SLURM_STEP_NUM_TASKS": "1",
        "SLURM_STEP_NODELIST": "node1",
        "SLURM_STEP_TASKS_PER_NODE": "1",
        **own,
    }.items():
        monkeypatch.setenv(name, value)
    assert world_size() == 4


def test_a_loopback_name_is_no_address_for_other_nodes(monkeypatch):
    monkeypatch.setattr(socket, "gethostbyname", lambda name: {"node1": "127.0.1.1"}.get(name, name))
    said = subprocess.CompletedProcess([], 0, stdout="NodeName=node1 NodeAddr=10.0.0.7 State=IDLE\n")
    monkeypatch.setattr(subprocess, "run", lambda *words, **options: said)
    assert rendezvous.address_of("node1", for_others=True) == "10.0.0.7"
    assert rendezvous.address_of("node1", for_others=False) == "127.0.1.1"


def test_two_steps_look_for_their_rendezvous_at_other_ports():
    one, other = read_step(TASK), read_step({**TASK, "SLURM_STEP_ID": "1"})
    assert one.ports == read_step({**TASK, "SLURM_PROCID": "0"}).ports and len(one.ports) == N_PORTS
    assert one.ports != other.ports and max(one.ports) < 32_768


def test_a_step_tells_horovod_its_world(monkeypatch):
    monkeypatch.setenv("FAMILY_INTERFACE", "ib0")
    told = step_environment(read_step(TASK), "10.0.0.1", 20_000)
    assert (told["HOROVOD_RANK"], told["HOROVOD_SIZE"], told["HOROVOD_LOCAL_RANK"], told["HOROVOD_CROSS_RANK"]) == ("2", "3", "0", "1")
    assert told["HOROVOD_GLOO_IFACE"] == "ib0" and told["HOROVOD_HOSTNAME"] == "node2"


def test_ranks_speak_less_often_when_steps_are_long():
    costs = {cycle: 0.6 / cycle + cycle / 2 / 3400 for cycle in range(1, 101)}
    assert cycle_time_ms(3400) == pytest.approx(min(costs, key=costs.get), abs=1)
    assert cycle_time_ms(1) == 5 < cycle_time_ms(150) < cycle_time_ms(3400) < cycle_time_ms(1e6) == 100


def test_a_rendezvous_passes_over_a_busy_port_and_another_jobs(tmp_path):
    with socket.create_server((LOOPBACK, 0)) as silent:
        busy = silent.getsockname()[1]
        others = rendezvous.serve(LOOPBACK, [0], [("node1", 1)], {"name": "6.0"})
        mine = rendezvous.serve(LOOPBACK, [others.port, 0], [("node1", 2), ("node2", 1)], {"name": "7.0", "monitor": "1234"})
        try:
            assert mine.port != others.port
            silent.close()  # nobody answers there any more
            assert rendezvous.find(LOOPBACK, [busy, others.port, mine.port], "7.0", 5) == mine.port
            assert rendezvous.get(LOOPBACK, mine.port, "monitor") == "1234"
            with pytest.raises(TimeoutError, match=r"no rendezvous '8\.0'"):
                rendezvous.find(LOOPBACK, [others.port, mine.port], "8.0", 0.6)
        finally:
            mine.stop()
            others.stop()
    assert rendezvous.get(LOOPBACK, mine.port, "name") is None, "the rendezvous outlived its world"


def test_a_rendezvous_is_on_one_address_only():
    store = rendezvous.serve(LOOPBACK, [0], [("node1", 1)], {"name": "9.0"})
    try:
        assert rendezvous.get("127.0.0.2", store.port, "name") is None
        assert rendezvous.get(LOOPBACK, store.port, "name") == "9.0"
        connection = http.client.HTTPConnection(LOOPBACK, store.port, timeout=5)
        connection.request("HEAD", "/README.md")  # the server that Horovod's inherits from serves files
        assert connection.getresponse().status == 404
        connection.close()
    finally:
        store.stop()


def test_the_way_to_an_address_has_an_interface():
    assert rendezvous.interface_towards(LOOPBACK) == "lo"


# Several beats, so that a busy machine, which lets a process wait for a second, is none that fell silent.
SILENCE_S = 6
# A rank that beats until it is told to leave; standard input tells.
RANK = """
import sys
from distributed.heartbeat import Heartbeat
beat = Heartbeat("127.0.0.1", int(sys.argv[1]), int(sys.argv[2]), "node9", float(sys.argv[3]))
print("beating", flush=True)
sys.stdin.readline()
beat.leave()
"""


@pytest.fixture
def start_rank():
    children = []

    def start(port: int, rank: int) -> subprocess.Popen:
        child = subprocess.Popen([sys.executable, "-c", RANK, str(port), str(rank), str(SILENCE_S)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True, cwd=os.path.dirname(os.path.dirname(__file__)))  # fmt: skip
        children.append(child)
        assert child.stdout.readline() == "beating\n"
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture
def monitor():
    losses = []
    watching = Monitor(LOOPBACK, 2, lambda *loss: losses.append(loss), SILENCE_S)
    yield watching, losses
    watching.stop()


def wait_for(losses: list, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not losses and time.monotonic() < deadline:
        time.sleep(0.05)


def test_a_rank_that_stops_answering_is_named(monitor, start_rank):
    watching, losses = monitor
    child = start_rank(watching.port, 1)
    time.sleep(SILENCE_S + 2)
    assert losses == [], "a rank that beats was lost"
    child.send_signal(19)  # SIGSTOP
    wait_for(losses)
    assert losses == [(1, "node9", "has not answered for 6 s")]


def test_a_rank_that_dies_is_named_at_once(monitor, start_rank):
    watching, losses = monitor
    start_rank(watching.port, 1).kill()
    wait_for(losses, SILENCE_S - 2)
    assert losses == [(1, "node9", "went away")]


def test_a_rank_that_takes_its_leave_is_not_lost(monitor, start_rank):
    watching, losses = monitor
    child = start_rank(watching.port, 1)
    assert not watching.wait_for_others(0.1)
    child.communicate("go\n")
    assert watching.wait_for_others(5) and child.returncode == 0
    time.sleep(SILENCE_S + 1)
    assert losses == []


def test_a_rank_ends_itself_when_the_monitor_goes(start_rank):
    watching = Monitor(LOOPBACK, 2, lambda *loss: None, SILENCE_S)
    child = start_rank(watching.port, 1)
    watching.stop()
    assert child.wait(10) == 1
    assert "went away" in child.stderr.read()


def test_strangers_at_the_monitors_port_change_nothing(monitor, start_rank):
    watching, losses = monitor
    start_rank(watching.port, 1)
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b'{"rank": 99, "host": "x"}\n.', b"\0" * 5000, b'{"rank": "a"}\n', b"[]\n"):
        with socket.create_connection((LOOPBACK, watching.port)) as stranger:
            stranger.sendall(said)
    time.sleep(1.5)
    assert losses == []
    assert Heartbeat(LOOPBACK, watching.port, 1, "node9", SILENCE_S).leave() is None


@pytest.mark.parametrize(
    "n_visible, local_rank, n_given, index", [(0, 0, 0, None), (0, 3, 0, None), (1, 0, 1, 0), (1, 5, 8, 0), (8, 5, 8, 5), (2, 0, 0, 0)]
)
def test_a_rank_takes_the_only_gpu_or_that_of_its_local_rank(n_visible, local_rank, n_given, index):
    assert pick_gpu(n_visible, local_rank, n_given) == index


def test_a_gpu_that_is_not_there_is_an_error():
    with pytest.raises(RuntimeError, match="gave this node 8 GPUs and TensorFlow sees none"):
        pick_gpu(0, 0, 8)
    with pytest.raises(RuntimeError, match="local rank 2 has no GPU"):
        pick_gpu(2, 2, 2)


def test_ranks_may_not_share_a_gpu():
    refuse_sharing([None, None])
    refuse_sharing([("a", "0", 0), ("a", "0", 1), ("b", "0", 0)])
    with pytest.raises(RuntimeError, match="ranks 0 and 2 would share a GPU of a"):
        refuse_sharing([("a", "0", 0), ("b", "0", 0), ("a", "0", 0)])
    with pytest.raises(RuntimeError, match="rank 1 sees no GPU while"):
        refuse_sharing([("a", "0", 0), None])
