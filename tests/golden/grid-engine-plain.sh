#!/bin/bash
#$ -N hvdtools
#$ -S /bin/bash
#$ -cwd
#$ -pe mpi 4
#$ -r y
#$ -notify
#$ -j y
#$ -o sge-$JOB_ID.out

set -uo pipefail
export PATH='/env dir/bin':"$PATH"
exec '/env dir/bin/python' -m hvdtools launch --on grid-engine \
    -n 4 \
    -- '/env dir/bin/python' train.py --lr 0.1
