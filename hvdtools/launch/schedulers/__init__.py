"""The schedulers that `--on` knows: hvdtools' own, and those that a site adds.

Each is a class that derives from `hvdtools.launch.scheduler.Scheduler`, imported when it is
wanted. A site's own is an entry point of the group "hvdtools.schedulers".
"""

from __future__ import annotations

from functools import cache
from typing import cast

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
    },
)


@cache
def scheduler(name: str) -> type[Scheduler]:
    """The scheduler of this name.

    Raises:
        HvdtoolsError: There is none, or a site's own cannot be imported.
    """
    return cast(type[Scheduler], REGISTRY.load(name))


def all_schedulers() -> tuple[type[Scheduler], ...]:
    """Every scheduler, in the order of the registry."""
    return tuple(scheduler(name) for name in REGISTRY.names())
