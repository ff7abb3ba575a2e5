#!/bin/bash
#PBS -N my_job-1
#PBS -l select=2:ncpus=24:mpiprocs=4:ompthreads=6:ngpus=4
#PBS -l place=scatter
#PBS -l walltime=26:00:10
#PBS -q gpu@server
#PBS -A a/c#1
#PBS -r y
#PBS -j oe
#PBS -W group_list=ml
#PBS -m abe
#PBS -p 100

set -uo pipefail
export HVDTOOLS_SAVE_AT=$(($(date +%s) + 93550))
cd "$PBS_O_WORKDIR" || exit 2
exec >>"pbs-${PBS_JOBID%%.*}.out" 2>&1
export QUOTED='a "b" '"'"'c'"'"' ; $HOME \'
export LINES=$'1\n#PBS -q root\n2'
export EMPTY=''
export PATH='/env dir/bin':"$PATH"
exec '/env dir/bin/python' -m hvdtools launch --on pbs \
    -n 8 --nodes 2 --ranks-per-node 4 --launcher mpirun --distribution cyclic --cpus-per-rank 6 --interface ib0 --log-dir 'logs; $HOME' --restarts 2 --env QUOTED --env LINES --env EMPTY --pass=--mca --pass=pml '--pass=ucx x' \
    -- '/env dir/bin/python' -m hvdtools.rank_wrapper --bind numa --cpus 6 -- '/env dir/bin/python' 'a b.py' 'say "hi"' 'it'"'"'s' '; echo foo' '$HOME' '`id`' $'new\nline' '' '*' : '\' '#PBS -q root' 'é' -- -n
