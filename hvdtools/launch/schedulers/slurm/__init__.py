"""Jobs under Slurm: the batch script, its submission, and what becomes of it."""
