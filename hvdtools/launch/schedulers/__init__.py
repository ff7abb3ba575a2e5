"""The schedulers that `--on` knows: hvdtools' own, and those that a site adds.

Each is a class that derives from `hvdtools.launch.scheduler.Scheduler`, imported when it is
wanted. A site's own is an entry point of the group "hvdtools.schedulers".
"""

from __future__ import annotations

import sys
from functools import cache
from typing import cast

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.registry import Registry
from hvdtools.launch.scheduler import Scheduler

REGISTRY = Registry(
    "scheduler",
    "hvdtools.schedulers",
    {
        "local": "hvdtools.launch.schedulers.local:Local",
        "hosts": "hvdtools.launch.schedulers.ssh:Hosts",
        "slurm": "hvdtools.launch.schedulers.slurm.request:Slurm",
        "kubernetes": "hvdtools.launch.schedulers.kubernetes.request:Kubernetes",
        "sagemaker": "hvdtools.launch.schedulers.sagemaker.request:SageMaker",
        "pbs": "hvdtools.launch.schedulers.pbs:Pbs",
        "grid-engine": "hvdtools.launch.schedulers.grid_engine:GridEngine",
    },
)


@cache
def scheduler(name: str) -> type[Scheduler]:
    """The scheduler of this name.

    Raises:
        HvdtoolsError: There is none, or a site's own cannot be imported.
    """
    return cast(type[Scheduler], REGISTRY.load(name))


@cache
def all_schedulers() -> tuple[type[Scheduler], ...]:
    """Every scheduler, in the order of the registry; warns of a site's that cannot be imported."""
    found = []
    for name in REGISTRY.names():
        try:
            found.append(scheduler(name))
        except HvdtoolsError as error:  # the other commands work without it
            print(f"hvdtools: warning: {error}", file=sys.stderr)
    return tuple(found)
