"""Whether a measurement is to be trusted: what else the machine did meanwhile, and whether it kept its speed."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.timing.statistics import MIN_SAMPLES
from family.machine import cgroups, n_cores

MOST_BUSY = 0.5  # cores, by others, where the model leaves one free: two busy ones among many may still be those that it runs on
LEAST_BUSY = 0.2  # where it leaves none; system services take some, always
MOST_STOLEN = 0.1  # cores, that a hypervisor gave to other machines
MOST_THROTTLED = 0.01  # of the time, by a cgroup's quota
MOST_SPREAD = 0.3  # of the medians of a member's turns, between the 10th and the 90th percentile, over their median; on a quiet virtual machine 0.04 to 0.27
MOST_SLOWER = 1.15  # the last third of all turns against the first


@dataclass(frozen=True)
class Counters:
    """What the kernel has counted up to now, in seconds; None where it doesn't tell."""

    at: float
    own: float
    busy: float | None  # of the processors that this process may run on, by anybody
    stolen: float | None
    throttled: float | None


@dataclass(frozen=True)
class Meanwhile:
    """What happened between two readings, in cores (seconds of processor time a second); None where it isn't known."""

    seconds: float
    others: float | None
    stolen: float | None
    throttled: float | None  # share of the time


@dataclass(frozen=True)
class Turn:
    """One turn of a member: some queries one after another."""

    member: int
    began_s: float
    samples_ms: dict[str, np.ndarray]  # stage -> float64 [n]
    meanwhile: Meanwhile
    cold_ms: dict[str, float] = field(default_factory=dict)  # stage -> of the query before them, behind another member's turn; empty behind its own

    @property
    def total_ms(self) -> np.ndarray:
        """float64 [n], from the query to its answer."""
        return sum(self.samples_ms.values())


def read_counters() -> Counters:
    """Read them. Source: proc(5), /proc/stat; cgroups(7), cpu.stat."""
    busy, stolen = _processors()
    return Counters(time.monotonic(), time.process_time(), busy, stolen, _throttled())


def _processors() -> tuple[float | None, float | None]:
    if n_cores() < len(os.sched_getaffinity(0)):
        return None, None  # a quota: what others do on the other processors is no matter
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return None, None
    ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    rows = [list(map(int, line.split()[1:])) for line in lines if line.split(" ", 1)[0] in ours]
    if not rows or min(map(len, rows)) < 8:
        return None, None
    hertz = os.sysconf("SC_CLK_TCK")
    user, nice, system, _, _, irq, softirq, stolen = (sum(column) / hertz for column in list(zip(*rows, strict=False))[:8])
    return user + nice + system + irq + softirq, stolen


def _throttled(folders: Sequence[Path] | None = None) -> float | None:
    """Return how long quotas have stopped this process's cgroups, those around them included; None where no cgroup tells."""
    found = []
    for folder in cgroups() if folders is None else folders:
        try:
            told = dict(line.split()[:2] for line in (folder / "cpu.stat").read_text().splitlines())
            found += [int(told[key]) * unit for key, unit in (("throttled_usec", 1e-6), ("throttled_time", 1e-9)) if key in told]
        except (OSError, ValueError):
            continue
    return sum(found) if found else None


def between(before: Counters, after: Counters) -> Meanwhile:
    """Return what happened between two readings."""
    seconds = max(after.at - before.at, 1e-9)

    def rate(name: str) -> float | None:
        ends = getattr(before, name), getattr(after, name)
        return None if None in ends else (ends[1] - ends[0]) / seconds

    busy = rate("busy")
    others = None if busy is None else busy - (after.own - before.own) / seconds  # may be below 0 in a short turn, by the kernel's ticks
    return Meanwhile(seconds, others, rate("stolen"), rate("throttled"))


def conditions(turns: Sequence[Turn]) -> dict:
    """Return the means over turns, weighted by how long they took, of what is known; for the row."""

    def mean(name: str) -> float | None:
        known = [(getattr(turn.meanwhile, name), turn.meanwhile.seconds) for turn in turns if getattr(turn.meanwhile, name) is not None]
        return round(max(0.0, sum(value * s for value, s in known) / sum(s for _, s in known)), 3) if known else None

    return {"others_cores": mean("others"), "stolen_cores": mean("stolen"), "throttled": mean("throttled"), "spread": round(spread(turns), 3)}


def spread(turns: Sequence[Turn]) -> float:
    """Return how far the medians of turns lie apart: between their 10th and 90th percentile, over their median."""
    medians = [np.median(turn.total_ms) for turn in turns]
    low, middle, high = np.percentile(medians, (10, 50, 90))
    return float((high - low) / max(middle, 1e-12))


def slowing(turns: Sequence[Turn]) -> float:
    """Return how many times longer queries took in the last third of all turns than in the first, each against its own member's median."""
    usual = {member: np.median(np.concatenate([t.total_ms for t in turns if t.member == member])) for member in {t.member for t in turns}}
    ordered = [float(np.median(turn.total_ms) / max(usual[turn.member], 1e-12)) for turn in sorted(turns, key=lambda turn: turn.began_s)]
    n = len(ordered) // 3
    return float(np.median(ordered[-n:]) / np.median(ordered[:n])) if n else 1.0


def faults(own: Sequence[Turn], everyone: Sequence[Turn], cores: int, threads: int) -> list[str]:
    """Return why the turns of one member don't count, each with what to do about it; arguments as of `disturbances`."""
    n = sum(len(turn.total_ms) for turn in own)
    few = [f"{n} images can't bound p99: --samples {MIN_SAMPLES}"] if n < MIN_SAMPLES else []
    return few + disturbances(own, everyone, cores, threads)


def disturbances(own: Sequence[Turn], everyone: Sequence[Turn], cores: int, threads: int) -> list[str]:
    """Return what kept a machine from its usual speed in the turns of one member, each with what to do about it.

    Args:
        everyone: the turns of all members, its own among them.
        cores: that this process may use.
        threads: of the model.
    """
    found, told = [], conditions(own)
    most = MOST_BUSY if cores > threads else LEAST_BUSY
    if told["others_cores"] is not None and told["others_cores"] > most:
        found.append(f"other processes used {told['others_cores']:.1f} of {cores} cores meanwhile: stop them (`top` shows them), or run on cores of one's own "
                     "(`taskset`)")  # fmt: skip
    if told["stolen_cores"] is not None and told["stolen_cores"] > MOST_STOLEN:
        found.append(f"the hypervisor gave {told['stolen_cores']:.1f} cores to other machines: measure at another time, or on a machine of one's own")
    if told["throttled"] is not None and told["throttled"] > MOST_THROTTLED:
        found.append(f"the container's quota stopped it for {told['throttled']:.0%} of the time: give it more processor, or fewer --threads")
    if told["spread"] > MOST_SPREAD:
        found.append(f"unstable: the medians of its turns lie {told['spread']:.0%} apart: measure when the machine is idle")
    slower = slowing(everyone)
    if slower > MOST_SLOWER:
        found.append(f"the machine became {slower - 1:.0%} slower while it measured, as one that gets hot: let it cool, or fix its clock (`cpupower "
                     "frequency-set -g performance`)")  # fmt: skip
    return found
