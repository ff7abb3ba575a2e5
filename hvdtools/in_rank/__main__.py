"""`python -m hvdtools.in_rank`, as saved scripts and manifests of 0.1 have it."""

from __future__ import annotations

import runpy

runpy.run_module("hvdtools.rank_wrapper", run_name="__main__", alter_sys=True)
