"""Whether a measurement is to be trusted: a noisy neighbour, a hot machine and a busy hypervisor are caught, on made-up counters."""

import numpy as np
import pytest

from benchmarks.timing.scenarios import Plan, time_members
from benchmarks.timing.trust import Counters, _throttled, between, conditions, faults, read_counters, slowing
from family.machine import _quota


class Machine:
    """Two cores on which only the member that is timed works, unless told otherwise."""

    def __init__(self, others: float = 0.0, stolen: float = 0.0, throttled: float = 0.0):
        self.now, self.own, self.others, self.stolen, self.throttled = 0.0, 0.0, others, stolen, throttled

    def clock(self) -> float:
        return self.now

    def read(self) -> Counters:
        return Counters(self.now, self.own, self.own + self.others * self.now, self.stolen * self.now, self.throttled * self.now)

    def work(self, ms: float) -> None:
        self.now += ms / 1000
        self.own += ms / 1000


def faults_of(machine: Machine, ms=lambda n: 10.0, n: int = 600, threads: int = 1, cores: int = 2) -> list[str]:
    calls = iter(range(10**6))
    pipeline = {"model": lambda query: machine.work(ms(next(calls)))}
    turns = time_members([pipeline], [[0]], Plan(n, 0), machine.clock, machine.read)
    return faults(turns, turns, cores=cores, threads=threads)


def test_an_idle_machine_has_no_faults():
    assert faults_of(Machine()) == [] and faults_of(Machine(others=0.15), threads=2) == []
    noise = np.random.default_rng(0).normal(1, 0.2, 10**4)
    assert faults_of(Machine(), lambda n: 10 * abs(noise[n])) == []


def test_a_noisy_neighbour_is_caught():
    (why,) = faults_of(Machine(others=0.8))
    assert why.startswith("other processes used 0.8 of 2 cores meanwhile: stop them")
    assert faults_of(Machine(others=0.4)) == [], "the other core is free for system services"
    assert faults_of(Machine(others=0.4), threads=2), "no core is"


@pytest.mark.parametrize("cores", [2, 8, 64])
def test_many_cores_allow_no_more_busy_ones_than_two(cores):
    assert faults_of(Machine(others=0.4), cores=cores) == [] and faults_of(Machine(others=0.4), cores=cores, threads=cores)
    (why,) = faults_of(Machine(others=0.8), cores=cores)
    assert f"0.8 of {cores} cores" in why and "taskset" in why


def test_turns_that_differ_are_unstable_though_no_counter_tells():
    (why,) = faults_of(Machine(), lambda n: 10 if n // 50 % 2 else 14)
    assert "unstable: the medians of its turns lie" in why and "idle" in why


def test_a_machine_that_gets_slower_is_caught_from_all_members():
    whys = faults_of(Machine(), lambda n: 10 * (1 + 0.24 * n / 600))
    assert len(whys) == 1 and "became" in whys[0] and "slower while it measured" in whys[0]
    machine = Machine()
    calls = iter(range(10**6))
    slow = lambda base: {"model": lambda query: machine.work(base * (1.3 if next(calls) > 900 else 1))}  # noqa: E731
    turns = time_members([slow(10), slow(40)], [[0], [0]], Plan(600, 0), machine.clock, machine.read)
    assert slowing(turns) == pytest.approx(1.3, abs=0.1)


def test_a_hypervisor_and_a_quota_that_take_time_are_caught():
    (why,) = faults_of(Machine(stolen=0.3))
    assert "hypervisor gave 0.3 cores" in why
    (why,) = faults_of(Machine(throttled=0.2))
    assert "quota stopped it for 20% of the time" in why


def test_too_few_samples_are_told_with_how_many_there_must_be():
    assert faults_of(Machine(), n=100) == ["100 images can't bound p99: --samples 300"]


def test_what_the_kernel_does_not_tell_is_no_fault():
    machine = Machine()
    machine.read = lambda: Counters(machine.now, machine.own, None, None, None)
    assert faults_of(machine) == []
    turns = time_members([{"model": lambda query: machine.work(10)}], [[0]], Plan(300, 0), machine.clock, machine.read)
    assert conditions(turns) == {"others_cores": None, "stolen_cores": None, "throttled": None, "spread": 0.0}


def test_counters_of_this_machine_go_on():
    before = read_counters()
    spent = sum(k * k for k in range(2_000_000))
    after = read_counters()
    assert spent and after.own > before.own and after.at > before.at
    found = between(before, after)
    assert found.seconds > 0 and (found.others is None or -0.5 < found.others < 1000)


def test_a_turn_shorter_than_the_kernels_tick_does_not_make_others_of_nothing():
    """The kernel counts in ticks of 10 ms: what it has not counted yet in one turn comes in the next, and the mean is nothing."""
    machine = Machine()
    machine.read = lambda: Counters(machine.now, machine.own, machine.own // 0.01 * 0.01, 0.0, 0.0)
    turns = time_members([{"model": lambda query: machine.work(0.07)}], [[0]], Plan(3000, 0), machine.clock, machine.read)
    assert conditions(turns)["others_cores"] < 0.01 and any(turn.meanwhile.others < 0 for turn in turns)


OF_A_JOB = "system.slice/slurmstepd.scope/job_7/step_0"


@pytest.mark.parametrize(
    ("files", "told", "quota"),
    [({"cpu.max": "150000 100000\n"}, "0::/\n", 1.5), ({"cpu.max": "max 100000\n"}, "0::/\n", None), ({}, None, None),
     ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, "3:cpu,cpuacct:/\n0::/\n", 4.0),
     ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None, None),
     ({f"{OF_A_JOB}/cpu.max": "max 100000\n", "system.slice/cpu.max": "300000 100000\n"}, f"0::/{OF_A_JOB}\n", 3.0),
     ({f"{OF_A_JOB}/cpu.max": "200000 100000\n", "system.slice/cpu.max": "300000 100000\n"}, f"0::/{OF_A_JOB}\n", 2.0),
     ({"other/cpu.max": "100000 100000\n"}, f"0::/{OF_A_JOB}\n", None),
     ({"cpu/job/cpu.cfs_quota_us": "200000", "cpu/job/cpu.cfs_period_us": "100000"}, "5:cpu,cpuacct:/job\n4:memory:/x\n", 2.0),
     ({"cpu.max": "400000 100000\n"}, "0::/../../elsewhere\n", 4.0), ({"cpu.max": "400000 100000\n"}, "nonsense\n", 4.0)],
)  # fmt: skip
def test_quotas_of_a_container_a_service_or_a_job_are_read(files, told, quota, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    own = tmp_path / "own"
    if told is not None:
        own.write_text(told)
    assert _quota(tmp_path, own) == quota


def test_time_that_quotas_took_is_summed_over_the_cgroups_around(tmp_path):
    assert _throttled([tmp_path]) is None
    (tmp_path / "job").mkdir()
    (tmp_path / "cpu.stat").write_text("nr_periods 3\nthrottled_usec 2500000\n")
    (tmp_path / "job" / "cpu.stat").write_text("nr_throttled 2\nthrottled_time 1000000000\n")
    assert _throttled([tmp_path / "job", tmp_path]) == 3.5
