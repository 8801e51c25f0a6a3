#!/bin/bash
#SBATCH --job-name=family
#SBATCH --output=/data/jobs/family-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --signal=B:USR1@120
#SBATCH --array=1,5
#SBATCH --requeue

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

set -u
may_requeue=1
export PYTHONPATH=/opt/family
export FAMILY_LEAD_S=120
export FAMILY_MAX_RESTARTS=20
export FAMILY_INTERFACE=lo
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
cd -- /data/jobs || { say "no such folder on $(hostname)"; exit 1; }

launch=(srun --kill-on-bad-exit=1 --distribution=block --nodes=2 --ntasks=2 --ntasks-per-node=1 /opt/family/.venv/bin/python -P -m family.cli)
case $SLURM_ARRAY_TASK_ID in
    1) command=(train --resume data/listings --out runs/b0 --variant b0) ;;
    5) command=(train --resume 'a b' --fresh --out '{task}'); [ "$restarts" = 0 ] || command=(train --resume 'a b' --out '{task}') ;;
esac

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
