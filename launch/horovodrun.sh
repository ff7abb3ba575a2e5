#!/usr/bin/env bash
# Starts a Horovod program in N ranks on this machine with horovodrun (on PATH), over Gloo: no MPI.
#
#   launch/horovodrun.sh -n 4 python train.py --lr 0.1
#   NP=4 launch/horovodrun.sh python train.py --lr 0.1
#
# --oversubscribe before the program allows more ranks than CPU cores. This is the saved form of
# what `hvdtools launch --launcher horovodrun` runs; a test holds the two equal. Edit it for your
# site.
# (Over ssh use `hvdtools launch --hosts` or mpirun.sh: when horovodrun is stopped, nobody stops the
# ranks that it started on other hosts, and the command puts a watch over each of them.)
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
((ranks <= slots)) || [[ $oversubscribe == yes ]] ||
    stop "$ranks ranks are more than the $slots CPU cores: use fewer, or --oversubscribe."

# Puts a word between single quotes, unless every character of it is plain to a shell.
quote() {
    local LC_ALL=C # or a-z holds letters with accents too
    case $1 in
        '' | *[!a-zA-Z0-9@%+=:,./_-]*) printf "'%s'" "${1//\'/$'\'"\'"\''}" ;;
        *) printf '%s' "$1" ;;
    esac
}

# horovodrun's parser looks at the program's options too, and gives up on one that could be short
# for two of its own (--log). So the program goes as one word, which sh takes apart in the rank.
script="exec"
for word in "$@"; do
    script+=" $(quote "$word")"
done

# horovodrun makes its ranks unbuffered. It must not be so itself: its threads would write into
# one another's long lines.
export PYTHONUNBUFFERED=
# Each rank's init() asserts what is promised here: a job of another size would train other models.
export HVDTOOLS_SIZE=$ranks HVDTOOLS_NODES=1

# The loopback interface serves, as all ranks are here: left alone, Gloo fails where the
# machine's own name resolves to an address of no interface.
exec horovodrun \
    --gloo \
    -np "$ranks" \
    -H "localhost:$ranks" \
    --network-interfaces lo \
    sh -c "$script"
