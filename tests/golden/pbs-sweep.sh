#!/bin/bash
#PBS -N hvdtools
#PBS -l select=4:ncpus=2:mpiprocs=2:ompthreads=1
#PBS -l place=scatter
#PBS -l walltime=01:00:01
#PBS -J 0-2
#PBS -r y
#PBS -j oe

set -uo pipefail
export HVDTOOLS_SAVE_AT=$(($(date +%s) + 3481))
cd "$PBS_O_WORKDIR" || exit 2
exec >>"pbs-${PBS_JOBID%%.*}.out" 2>&1
hvdtools_counts=(4 1 2)
hvdtools_nodes=${hvdtools_counts[${PBS_ARRAY_INDEX:-0}]}
export PATH='/env dir/bin':"$PATH"
exec '/env dir/bin/python' -m hvdtools launch --on pbs \
    -n $((hvdtools_nodes * 2)) --ranks-per-node 2 \
    -- './run me'
