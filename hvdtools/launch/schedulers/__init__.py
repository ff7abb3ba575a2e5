"""Where a job may run, and what is asked of each place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.hosts import Host
from hvdtools.launch.schedulers.kubernetes.target import Kubernetes
from hvdtools.launch.schedulers.sagemaker.target import SageMaker
from hvdtools.launch.schedulers.slurm.target import Slurm


@dataclass(frozen=True)
class Local:
    """This machine."""


@dataclass(frozen=True)
class Hosts:
    """Machines that ssh reaches without a password.

    Raises:
        HvdtoolsError: There is none.
    """

    hosts: tuple[Host, ...]

    def __post_init__(self) -> None:
        if not self.hosts:
            raise HvdtoolsError("Name the hosts: --hosts a:4,b:4 or --hostfile FILE.")


LOCAL = Local()
Target: TypeAlias = Local | Hosts | Slurm | Kubernetes | SageMaker

__all__ = ["LOCAL", "Hosts", "Kubernetes", "Local", "SageMaker", "Slurm", "Target"]
