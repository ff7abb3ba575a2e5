#!/bin/bash
#$ -N my_job-1.2
#$ -S /bin/bash
#$ -cwd
#$ -pe mpi 48
#$ -l h_rt=26:00:10
#$ -q gpu.q@@fast
#$ -P vision
#$ -A a/c#1
#$ -r y
#$ -notify
#$ -j y
#$ -o sge-$JOB_ID.out
#$ -l gpu=1

set -uo pipefail
export HVDTOOLS_SAVE_AT=$(($(date +%s) + 93550))
export HVDTOOLS_SLOTS_PER_RANK=6
export QUOTED='a "b" '"'"'c'"'"' ; $HOME \'
export LINES=$'1\n#PBS -q root\n2'
export EMPTY=''
export PATH='/env dir/bin':"$PATH"
exec '/env dir/bin/python' -m hvdtools launch --on grid-engine \
    -n 8 --nodes 2 --ranks-per-node 4 --launcher mpirun --distribution cyclic --cpus-per-rank 6 --interface ib0 --log-dir 'logs; $HOME' --restarts 2 --env QUOTED --env LINES --env EMPTY --pass=--mca --pass=pml '--pass=ucx x' \
    -- '/env dir/bin/python' -m hvdtools.rank_wrapper --bind numa --cpus 6 -- '/env dir/bin/python' 'a b.py' 'say "hi"' 'it'"'"'s' '; echo foo' '$HOME' '`id`' $'new\nline' '' '*' : '\' '#PBS -q root' 'é' -- -n
