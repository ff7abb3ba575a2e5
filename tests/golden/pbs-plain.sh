#!/bin/bash
#PBS -N hvdtools
#PBS -l select=1:ncpus=4:mpiprocs=4:ompthreads=1
#PBS -l place=scatter
#PBS -r y
#PBS -j oe

set -uo pipefail
cd "$PBS_O_WORKDIR" || exit 2
exec >>"pbs-${PBS_JOBID%%.*}.out" 2>&1
export PATH='/env dir/bin':"$PATH"
exec '/env dir/bin/python' -m hvdtools launch --on pbs \
    -n 4 \
    -- '/env dir/bin/python' train.py --lr 0.1
