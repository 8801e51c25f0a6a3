"""A cluster, as its TOML tells it."""

import dataclasses
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from slurm.errors import BadInput, unknown
from slurm.quoting import one_line

FOLDER = Path(__file__).parent / "clusters"
_CONTAINERS = ("pyxis", "apptainer")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OF_A_RANK = re.compile(
    r"HOROVOD_(RANK|SIZE|(LOCAL|CROSS)_(RANK|SIZE)|HOSTNAME|GLOO_RENDEZVOUS_\w+|CONTROLLER)|SLURM_\w+|PYTHONPATH|FAMILY_\w+"
)
_WRITTEN = ("--signal", "--requeue", "--no-requeue", "--open-mode", "--output", "--error", "--nodes", "--ntasks", "--array", "--wrap")
_TEXTS = ("partition", "account", "qos", "constraint", "reservation", "interface")


@dataclass(frozen=True)
class Container:
    """An image that the ranks run in."""

    kind: str  # pyxis or apptainer
    image: str
    mounts: tuple[str, ...] = ()  # OUTSIDE, OUTSIDE:INSIDE or OUTSIDE:INSIDE:ro

    def __post_init__(self):
        if self.kind not in _CONTAINERS:
            raise unknown("kind of container", self.kind, _CONTAINERS)
        if not self.image:
            raise BadInput("container: wanted an image; got an empty text")


@dataclass(frozen=True)
class Cluster:
    """One cluster. The fields are the fields of its TOML."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    reservation: str = ""
    gpus: str = "--gpus-per-node={n}"  # how GPUs are asked for; or --gres=gpu:a100:{n}
    cpus_per_task: int = 0  # where the job gives none
    time_min: int = 0  # where the job gives none
    lead_s: int = 120  # SIGUSR1 comes so long before the time limit
    requeue: bool = True
    interface: str = ""  # the network that ranks meet on
    python: str = ""  # on the nodes; "": the one that submits, or `python` of the image
    modules: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()  # lines of bash, before the ranks
    srun: tuple[str, ...] = ()  # more options
    sbatch: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)  # of the ranks
    container: Container | None = None
    fabric: dict = field(default_factory=dict)  # for `family forecast`

    def __post_init__(self):
        for name in _TEXTS:
            one_line(name, getattr(self, name))
        if not 1 <= self.lead_s <= 65_535:
            raise BadInput(f"lead_s: wanted 1 to 65535 seconds; got {self.lead_s}")
        for name in ("cpus_per_task", "time_min"):
            if getattr(self, name) < 0:
                raise BadInput(f"{name}: wanted 0 or more; got {getattr(self, name)}")
        if not self.gpus.startswith("--") or "{n}" not in self.gpus or "--gpus-per-task" in self.gpus:
            raise BadInput(
                f"gpus {self.gpus!r}: wanted an option of sbatch with {{n}} for the number, such as --gres=gpu:{{n}} "
                "(not --gpus-per-task: it hides the other GPUs of a node from each rank)"
            )
        for option in self.sbatch:
            _check_option("sbatch", option)
        for option in self.srun:
            _check_option("srun", option)
        for name in self.environment:
            if not _VARIABLE.fullmatch(name):
                raise BadInput(f"environment {name!r}: not a variable's name")


def clusters() -> dict[str, Path]:
    """Return name -> TOML of the clusters that ship."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def read_cluster(name: str) -> Cluster:
    """Read a cluster by its file, or by the name of one that ships.

    Raises:
        BadInput: no such file or name, not TOML, an unknown field, or a value of the wrong kind or outside its range.
    """
    path = Path(name) if name.endswith(".toml") or "/" in name else clusters().get(name)
    if path is None:
        raise BadInput(f"{unknown('cluster', name, clusters())}; or give a file that ends in .toml")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; {', '.join(clusters())} ship with the program") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not TOML: {error}") from None
    try:
        return cluster_of(table)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None


def cluster_of(table: dict) -> Cluster:
    """Return the cluster of a TOML's table."""
    values = _checked(Cluster, table, "field")
    if "container" in values:
        values["container"] = Container(**_checked(Container, values["container"], "field of [container]"))
    if "environment" in values:
        values["environment"] = {name: _as_text(name, value) for name, value in values["environment"].items()}
    return Cluster(**values)


def _checked(kind: type, table: dict, what: str) -> dict:
    """Return the table's values if each is a field of the dataclass and of its kind."""
    known = {f.name: f for f in dataclasses.fields(kind)}
    values = {}
    for name, value in table.items():
        if name not in known:
            raise unknown(what, name, known)
        values[name] = _of_kind(name, value, str(known[name].type))
    missing = [name for name, f in known.items() if name not in values and _is_required(f)]
    if missing:
        raise BadInput(f"{what} {missing[0]!r} is missing")
    return values


def _is_required(f: dataclasses.Field) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _of_kind(name: str, value, annotation: str):
    if "tuple" in annotation:
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise BadInput(f"{name}: wanted a list of texts; got {value!r}")
        return tuple(value)
    wanted = next((kind for kind in (str, bool, int, dict) if f"'{kind.__name__}'" in annotation or annotation == kind.__name__), dict)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        names = {str: "a text", bool: "true or false", int: "a whole number", dict: "a table"}
        raise BadInput(f"{name}: wanted {names[wanted]}; got {value!r}")
    return value


def _as_text(name: str, value) -> str:
    if _OF_A_RANK.fullmatch(name):
        raise BadInput(f"environment {name}: is set by the program; take it out")
    if isinstance(value, bool):
        return str(int(value))
    if not isinstance(value, str | int | float):
        raise BadInput(f"environment {name}: wanted a text or a number; got {value!r}")
    return str(value)


def _check_option(what: str, option: str) -> None:
    one_line(what, option)
    name = option.split("=")[0]
    if not option.startswith("-"):
        raise BadInput(f"{what} {option!r}: wanted options, such as --exclusive")
    if name == "--gpus-per-task":
        raise BadInput(f"{what} {option}: hides the other GPUs of a node from each rank, which picks its own by local rank")
    if what == "sbatch" and name in _WRITTEN:
        raise BadInput(f"sbatch {option}: the program writes {name} itself")
