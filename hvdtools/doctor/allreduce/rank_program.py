"""Run in each rank that srun starts: sets up Gloo, then runs the smoke test's all-reduce.

Usage: python -m hvdtools.doctor.allreduce.rank_program, with the arguments of build/rank_check.py.
"""

from __future__ import annotations

import os
import sys

from hvdtools import rendezvous
from hvdtools.build.rank_check import main
from hvdtools.core.topology import read_launch_environment

if __name__ == "__main__":
    rendezvous.apply_named_interface(os.environ)
    rendezvous.prepare_gloo(read_launch_environment(os.environ), os.environ)
    main(*sys.argv[1:])
