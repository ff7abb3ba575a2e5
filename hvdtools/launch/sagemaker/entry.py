"""`python -m hvdtools.launch.sagemaker.entry`, as saved training jobs of 0.1 have it."""

from __future__ import annotations

import runpy

if __name__ == "__main__":
    runpy.run_module(
        "hvdtools.launch.schedulers.sagemaker.entry", run_name="__main__", alter_sys=True
    )
