#!/bin/bash
#$ -N hvdtools
#$ -S /bin/bash
#$ -cwd
#$ -pe mpi 8
#$ -l h_rt=01:00:01
#$ -t 1-3
#$ -r y
#$ -notify
#$ -j y
#$ -o sge-$JOB_ID.$TASK_ID.out

set -uo pipefail
export HVDTOOLS_SAVE_AT=$(($(date +%s) + 3481))
hvdtools_counts=(4 1 2)
hvdtools_nodes=${hvdtools_counts[$((SGE_TASK_ID - 1))]}
export PATH='/env dir/bin':"$PATH"
exec '/env dir/bin/python' -m hvdtools launch --on grid-engine \
    -n $((hvdtools_nodes * 2)) --ranks-per-node 2 \
    -- './run me'
