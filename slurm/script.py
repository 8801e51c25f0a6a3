"""The batch script of a job: a pure function of the job and the cluster."""

from slurm.cluster import Cluster
from slurm.errors import BadInput
from slurm.job import Job
from slurm.quoting import directive, quote_word, quote_words
from slurm.units import write_time

RESUMABLE = {"train": 1, "compress": 2}  # commands that go on with --resume, and which of their words is the dataset

# What every script does, whatever the job. Kept as bash, so that it reads as bash.
_BEGIN = r"""
# Written by `family submit`. It starts the ranks, tells them what SLURM says, and comes back when they ask for it.
say() { printf 'family: job %s: %s\n' "$job" "$*" >&2; }
job=$SLURM_JOB_ID
# The last task of an array has the number of the whole array, so a task is named by its index.
[ -z "${SLURM_ARRAY_TASK_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
restarts=${SLURM_RESTART_COUNT:-0}
step=""
woken=0
out_of_time=0
cancelled=0
# The batch shell alone gets SIGUSR1 before the time limit. srun passes it to every task, and needs no controller for that.
on_time() {
    woken=1
    out_of_time=1
    say "SIGUSR1: the ranks are told to save a checkpoint"
    [ -z "$step" ] || kill -USR1 "$step"
}
# scancel, preemption and the time limit itself: SLURM tells the ranks too. (A SIGTERM to srun would kill them at once.)
on_end() {
    woken=1
    cancelled=1
    say "SIGTERM: waiting for the ranks to end"
}
trap on_time USR1
trap on_end TERM
"""
_RUN = r"""
if [ "$out_of_time$cancelled" = 00 ]; then
    "${launch[@]}" "${command[@]}" &
    step=$!
    [ "$out_of_time" = 0 ] || kill -USR1 "$step" # it came just now
    # A trap ends `wait` early, so wait until it is the step that ended. Bash keeps the exit code of a child for the next wait.
    while :; do
        woken=0
        wait "$step"
        code=$?
        [ "$woken" = 1 ] || break
    done
else
    code=$((cancelled ? 143 : 75)) # during the set-up
fi
"""
_END = r"""
# The first rank to exit with 75 makes srun end those that are still on their way out, and their codes are higher: 143 or 137.
# 138 is srun itself, told before it listened.
come_back=0
case $code in
    75) come_back=1 ;;
    137 | 138 | 143) come_back=$out_of_time ;;
esac
if [ "$come_back" = 0 ] || [ "$cancelled" = 1 ]; then
    say "ended with exit code $code"
    exit "$code"
elif [ "$may_requeue" = 0 ]; then
    say "wants to go on (exit code 75), but the cluster's file says requeue = false"
elif [ "$restarts" -ge "$FAMILY_MAX_RESTARTS" ]; then
    say "wants to go on (exit code 75), but was restarted $restarts times of at most $FAMILY_MAX_RESTARTS"
else
    trap '' TERM # requeueing ends this shell
    say "goes back into the queue, after $restarts restarts of at most $FAMILY_MAX_RESTARTS"
    scontrol requeue "$job" || say "scontrol requeue failed"
fi
exit 75
"""


def sbatch_script(job: Job, cluster: Cluster) -> str:
    """Return the text that sbatch takes.

    Raises:
        BadInput: a value that an #SBATCH line, PYTHONPATH or a container's mount can't hold; a time limit within the lead.
    """
    parts = ["#!/bin/bash\n" + "\n".join(directives(job, cluster)) + "\n", _BEGIN]
    parts += [_setup(cluster), _environment(job, cluster), _command(job, cluster), _RUN, _END]
    return "".join(parts)


def directives(job: Job, cluster: Cluster) -> list[str]:
    """Return the #SBATCH lines."""
    time_min, lead_s = job.time_min or cluster.time_min, job.lead_s or cluster.lead_s
    if time_min and time_min * 60 <= lead_s:
        raise BadInput(f"the time limit of {time_min} min is within the lead of {lead_s} s; wanted --time above {-(-lead_s // 60)} min")
    array = f"{job.array}%{job.array_limit}" if job.array_limit else job.array
    pairs = [
        ("--job-name", job.name),
        ("--output", job.log or default_log(job)),
        ("--open-mode", "append"),
        ("--nodes", job.nodes),
        ("--ntasks", job.n_tasks()),
        ("--ntasks-per-node", 0 if job.tasks else job.tasks_of_each_node()),
        ("--cpus-per-task", job.cpus_per_task or cluster.cpus_per_task),
        ("--mem", f"{max(1, round(job.memory_gb * 1024))}M" if job.memory_gb else ""),
        ("--time", write_time(time_min) if time_min else ""),
        ("--signal", f"B:USR1@{lead_s}"),
        ("--array", array),
        ("--dependency", job.dependency()),
        *((f"--{name}", getattr(job, name) or getattr(cluster, name)) for name in _PLACES),
        *((f"--{name.replace('_', '-')}", getattr(job, name)) for name in _TEXTS),
    ]
    lines = [directive(option, value) for option, value in pairs if value not in ("", 0)]
    lines += [directive(option) for option in _switches(job, cluster)]
    asked = [cluster.gpus.replace("{n}", str(job.gpus_per_node))] if job.gpus_per_node else []
    return lines + [directive(*option.split("=", 1)) for option in [*asked, *cluster.sbatch]]


_PLACES = ("partition", "account", "qos", "constraint", "reservation")
_TEXTS = ("nodelist", "exclude", "begin", "comment", "mail_user", "mail_type")


def _switches(job: Job, cluster: Cluster) -> list[str]:
    found = ["--requeue" if cluster.requeue else "--no-requeue"]
    found += ["--exclusive"] if job.exclusive else []
    return found + (["--kill-on-invalid-dep=yes"] if job.after else [])


def default_log(job: Job) -> str:
    """Return the log's pattern: in the working folder, by the job's name and number."""
    folder = job.working_folder.replace("%", "%%")
    if not folder.isprintable() or "\\" in folder:
        raise BadInput(f"the working folder {job.working_folder!r} can't be named to sbatch, so give --log a file elsewhere")
    name = "".join(character if character.isalnum() or character in "._-" else "_" for character in job.name)
    return f"{folder.rstrip('/')}/{name}-{'%A_%a' if job.array else '%j'}.log"


def _setup(cluster: Cluster) -> str:
    """Return the modules and the set-up lines; one that fails ends the job there, not somewhere later."""
    lines = [f"module load {quote_word(module)}" for module in cluster.modules] + list(cluster.setup)
    if not lines:
        return ""
    failed = "trap 'say \"a set-up line of the cluster file failed: $BASH_COMMAND\"' ERR"
    return "\n".join(["", failed, "set -e", *lines, "set +e", "trap - ERR", ""])


def exports(job: Job, cluster: Cluster) -> dict[str, str]:
    """Return the variables that the ranks get."""
    if ":" in job.checkout:
        raise BadInput(f"the checkout {job.checkout!r} has a colon in its path, which PYTHONPATH can't hold; move it")
    told = {
        "PYTHONPATH": job.checkout,
        "FAMILY_LEAD_S": str(job.lead_s or cluster.lead_s),
        "FAMILY_MAX_RESTARTS": str(job.max_restarts),
    }
    return told | ({"FAMILY_INTERFACE": cluster.interface} if cluster.interface else {}) | cluster.environment


def _environment(job: Job, cluster: Cluster) -> str:
    lines = ["", "set -u", f"may_requeue={int(cluster.requeue)}"]
    lines += [f"export {name}={quote_word(value)}" for name, value in exports(job, cluster).items()]
    # srun of 22.05 and later does not take over --cpus-per-task; without this each rank gets one core.
    lines.append('[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK')
    failed = '{ say "no such folder on $(hostname)"; exit 1; }'
    return "\n".join([*lines, f"cd -- {quote_word(job.working_folder)} || {failed}", ""])


def _command(job: Job, cluster: Cluster) -> str:
    """Return the arrays `launch` (srun and what it starts) and `command` (our words)."""
    spread = [f"--ntasks={job.n_tasks()}"] + ([] if job.tasks else [f"--ntasks-per-node={job.tasks_of_each_node()}"])
    launch = ["srun", "--kill-on-bad-exit=1", "--distribution=block", f"--nodes={job.nodes}", *spread, *_pyxis(job, cluster), *cluster.srun]
    launch += [*_apptainer(job, cluster), *job.program]
    lines = [f"launch=({quote_words(launch)})", *(_commands_of_tasks(job) if job.commands else _words(job.command))]
    if job.array and not job.commands:
        lines.append('command=("${command[@]//\\{task\\}/$SLURM_ARRAY_TASK_ID}")')
    return "\n".join(["", *lines]) + "\n"


def _commands_of_tasks(job: Job) -> list[str]:
    tasks = [f"    {task}) {'; '.join(_words(words))} ;;" for task, words in job.commands]
    return ["case $SLURM_ARRAY_TASK_ID in", *tasks, "esac"]


def _words(words: tuple[str, ...]) -> list[str]:
    """Return the lines that set `command`."""
    words = list(words)
    if words[0] in RESUMABLE and "--resume" not in words:
        words.insert(1, "--resume")  # so that a requeued job goes on by itself
    lines = [f"command=({quote_words(words)})"]
    if words[0] in RESUMABLE and "--fresh" in words:
        again = [word for word in words if word != "--fresh"]
        lines.append(f'[ "$restarts" = 0 ] || command=({quote_words(again)})')
    return lines


def _mounts(job: Job, cluster: Cluster) -> list[str]:
    """Return the mounts of a container: the checkout and the working folder under their own names, then the cluster's."""
    own = dict.fromkeys((job.checkout, job.working_folder))
    for path in own:
        if any(character in path for character in ",:") or not path.isprintable():
            raise BadInput(f"{path!r} can't be mounted into a container: commas, colons and control characters separate mounts")
    return [f"{path}:{path}" for path in own] + list(cluster.container.mounts)


def _pyxis(job: Job, cluster: Cluster) -> list[str]:
    if not cluster.container or cluster.container.kind != "pyxis":
        return []
    return [
        f"--container-image={cluster.container.image}",
        f"--container-mounts={','.join(_mounts(job, cluster))}",
        f"--container-workdir={job.working_folder}",
        f"--container-env={','.join(exports(job, cluster))}",  # these win over the image's own
    ]


def _apptainer(job: Job, cluster: Cluster) -> list[str]:
    if not cluster.container or cluster.container.kind != "apptainer":
        return []
    gpu = ["--nv"] if job.gpus_per_node else []
    return ["apptainer", "exec", *gpu, "--bind", ",".join(_mounts(job, cluster)), "--pwd", job.working_folder, cluster.container.image]
