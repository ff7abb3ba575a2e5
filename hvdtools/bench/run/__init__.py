"""Running a suite: each case is a job, on this machine, over ssh or under Slurm."""
