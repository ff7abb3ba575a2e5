"""This machine: ranks start at once, on its CPU cores and GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.hosts import Host
from hvdtools.launch.scheduler import Scheduler

if TYPE_CHECKING:
    from hvdtools.launch.machine import Machine
    from hvdtools.launch.spec import JobSpec

OTHER_MACHINES = "name them with --hosts, or choose a scheduler with --on"


@dataclass(frozen=True)
class Local(Scheduler):
    """Ranks on this machine."""

    name = "local"
    title = "This machine"
    unsupported: ClassVar[Mapping[str, str]] = {
        "gpus_per_node": "ranks use the GPUs that are here",
        "name": "only a submitted job has a name",
        "distribution": "all ranks are on one node",
    }

    def check(self, spec: JobSpec) -> None:
        if spec.nodes not in (None, 1):
            raise HvdtoolsError(f"--nodes {spec.nodes} needs other machines: {OTHER_MACHINES}.")

    def submits(self, machine: Machine) -> bool:
        return False

    def require_room(self, spec: JobSpec, machine: Machine) -> None:
        cores = spec.ranks * (spec.cpus_per_rank or 1)
        if cores <= machine.slots or spec.oversubscribe:
            return
        each = f" with {spec.cpus_per_rank} cores each" if spec.cpus_per_rank else ""
        fitting = machine.slots // (spec.cpus_per_rank or 1)
        raise HvdtoolsError(
            f"{spec.ranks} ranks{each} are more than the {machine.slots} slots (CPU cores) of this "
            f"machine: use -n {fitting} or fewer, or add --oversubscribe."
        )

    def hosts(self, machine: Machine) -> tuple[Host, ...]:
        return ()

    def node_count(self, spec: JobSpec, machine: Machine) -> int:
        return 1

    def choose_launcher(self, spec: JobSpec, machine: Machine) -> None:
        return None

    def describe(self, machine: Machine) -> str:
        return "on this machine"


LOCAL = Local()
