#!/usr/bin/env bash
# Starts a Horovod program with Slurm's srun, in an allocation (salloc) or with one of its own.
#
#   launch/srun.sh -N2 --ntasks-per-node=4 --gpus-per-node=4 python train.py --lr 0.1
#
# All options up to the program are srun's. Ask for GPUs by node: --gpus-per-task hides the other
# GPUs of a node from NCCL. In an allocation say -n (--ntasks) if the step is smaller than the job,
# whose number it takes otherwise, and --cpus-per-task again.
# This is the saved form of what `hvdtools launch --on slurm` runs inside an allocation; a test
# holds the two equal. Edit it for your site.
set -euo pipefail

(($# > 0)) || {
    printf '%s: %s\n' "${0##*/}" "there is no program to run: put it last, as in -n2 python train.py." >&2
    exit 2
}

# hvdtools' init() lets ranks find each other through Slurm's PMI2.
mpi=none
! srun --mpi=list 2>&1 | grep -qw pmi2 || mpi=pmi2

# Without it a rank's Python holds its lines back until 8 KiB have gathered.
export PYTHONUNBUFFERED=1

# --cpu-bind=none: a rank that is bound to one core stalls Horovod's background thread.
exec srun \
    --kill-on-bad-exit=1 \
    --label \
    --mpi="$mpi" \
    --cpu-bind=none \
    "$@"
